"""Data sets of idx files: MNIST, and Fashion-MNIST, which is in Debian's package or is downloaded once."""

import functools
import gzip
import hashlib
import math
import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pooch
from numpy.typing import NDArray

from data_shards.io.disk import cache_folder
from data_shards.io.errors import InputError
from data_shards.io.regular_files import read_regular
from data_shards.sources.portion import HeldOutPortions, Portion
from data_shards.sources.source import Dataset, Read, Sample, Source, content_of, stamp_of_file

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
OFFICIAL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/"
SECONDS_TO_CONNECT = 5

# sha256 of the official .gz file, and of the pixels or labels without the idx header, which is the same in Debian's.
FILES = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
CONTENTS = {
    "train-images-idx3-ubyte.gz": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte.gz": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte.gz": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte.gz": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}

_FASHION = "fashion-mnist"
_GZIP = b"\x1f\x8b"
_TYPES = {8: "unsigned bytes", 9: "signed bytes", 11: "short integers", 12: "integers", 13: "floats", 14: "doubles"}
_KINDS = {"images": 3, "labels": 1}  # kind of file: dimensions of its array


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file, plain or gzipped whatever its name: browsers unpack what they load.

    The format: two zero bytes, type 8 (unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit
    integer, the data. Raises InputError where the file is anything else.
    """
    try:
        data = read_regular(path)
        while data[: len(_GZIP)] == _GZIP:  # some servers pack what is packed already
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}); get the file again") from error
    start = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) < start:
        raise InputError(
            f"{path}: {_what_it_is(data)}, not an idx file of unsigned bytes in {dimensions} dimensions; give MNIST's "
            "own files"
        )
    shape = np.frombuffer(data, ">u4", count=dimensions, offset=4).tolist()
    if len(data) - start != math.prod(shape):
        raise InputError(f"{path}: {len(data) - start} bytes of data, not {'x'.join(map(str, shape))}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _what_it_is(data: bytes) -> str:
    if not data:
        return "empty"
    if data[:1] == b"<" or data[:15].lower().startswith((b"\n<!doctype", b"\r\n<!doctype")):
        return "a web page"  # what a broken link gives
    if len(data) >= 4 and data[:2] == b"\0\0" and data[2] in _TYPES:
        return f"an idx file of {_TYPES[data[2]]} in {data[3]} dimensions"
    return "of another format"


class IdxSource(Source):
    """The four idx files in `folder`; the last training images, as many as `valid` says, become the split valid.

    Raises InputError where a file is missing or damaged or images and labels differ in number.
    """

    def __init__(self, folder: Path, *, name: str, valid: Portion) -> None:
        self.name = name
        self._paths = {(part, kind): _find(folder, part, kind) for part in ("train", "t10k") for kind in _KINDS}
        num_train = len(self._array("train", "images"))
        num_test = len(self._array("t10k", "images"))
        for part, count in (("train", num_train), ("t10k", num_test)):
            if (labels := len(self._array(part, "labels"))) != count:
                raise InputError(
                    f"{self._paths[part, 'labels']}: {labels} labels for {count} images; get the files again"
                )
        num_valid = valid.of(num_train)
        if not num_valid < num_train:
            raise InputError(f"{valid} does not leave a training image of {num_train}; use less", parameter="valid")
        self._train_of_valid = num_train - num_valid
        names = [f"train-{index:05d}" for index in range(num_train)]
        keys = {"train": names[: self._train_of_valid], "valid": names[self._train_of_valid :]}
        keys["test"] = [f"test-{index:05d}" for index in range(num_test)]
        self.keys: Mapping[str, Sequence[str]] = {split: names for split, names in keys.items() if names}

    def _array(self, part: str, kind: str) -> NDArray[np.uint8]:
        return _cached_idx(self._paths[part, kind], _KINDS[kind])

    def _place(self, split: str) -> tuple[str, int]:
        """The files of a split, and the row of its first image in them."""
        return ("t10k", 0) if split == "test" else ("train", self._train_of_valid if split == "valid" else 0)

    def read(self, split: str, index: int) -> Sample:
        """The image as H x W x 1 with its class as text."""
        return self.reader(split, np.array([index]))(0)

    def reader(self, split: str, rows: NDArray[np.int64]) -> Read:
        """With the paths of the files."""
        part, first = self._place(split)
        return functools.partial(_read_row, self._paths[part, "images"], self._paths[part, "labels"], rows + first)

    def stamps(self, split: str) -> NDArray[np.uint64]:
        """Of the content."""
        count = len(self.keys[split])
        read = self.reader(split, np.arange(count))
        return np.fromiter((content_of(read(place)) for place in range(count)), np.uint64, count)

    def notes(self) -> list[str]:
        """Whether the images are those that the name of the data set promises, as far as their content is known."""
        images = {part: self._array(part, "images") for part in ("train", "t10k")}
        is_fashion = all(
            hashlib.sha256(array.tobytes()).hexdigest() == CONTENTS[f"{part}-images-idx3-ubyte.gz"]
            for part, array in images.items()
        )
        if is_fashion == (self.name == _FASHION):
            return []
        folder = self._paths["train", "images"].parent
        if is_fashion:
            return [f"{folder}: holds the images of {_FASHION}, though it is built as {self.name}"]
        return [f"{folder}: does not hold the images of {_FASHION}'s authors, though it is built as {_FASHION}"]


def _read_row(images: Path, labels: Path, rows: NDArray[np.int64], place: int) -> Sample:
    image = _cached_idx(images, _KINDS["images"])[rows[place], :, :, None]
    return Sample(image=image, extras={"cls": str(int(_cached_idx(labels, _KINDS["labels"])[rows[place]])).encode()})


def _dataset(name: str, *, find: Callable[[], Path] | None = None) -> Dataset:
    """A data set of MNIST's form: 28 x 28 grey pixels, the last 5000 training images held out."""
    held_out = Portion(images=5000)

    def opened(folder: Path, chosen: HeldOutPortions) -> IdxSource:
        return IdxSource(folder, name=name, valid=chosen.valid or held_out)

    return Dataset(
        name=name,
        open=opened,
        files="folder of the four idx files" + (", which are found or downloaded without it" if find else ""),
        find=find,
        channels=1,
        size=28,
        resize=False,
        valid=held_out,
        encoded=False,
    )


def _cached_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    return _idx_of(path, dimensions, stamp_of_file(path))


@functools.lru_cache(maxsize=4)
def _idx_of(path: Path, dimensions: int, stamp: int) -> NDArray[np.uint8]:
    return read_idx(path, dimensions=dimensions)


def _find(folder: Path, part: str, kind: str) -> Path:
    """The file in the folder or up to two below it: torchvision has MNIST/raw/, Kaggle a folder for each file."""
    name = re.compile(rf"{part}-{kind}[-.]idx{_KINDS[kind]}-ubyte(\.gz)?", re.IGNORECASE)
    for depth in ("", "*/", "*/*/"):
        for candidate in sorted(folder.glob(f"{depth}*"), key=lambda path: (path.suffix.lower() != ".gz", path)):
            if name.fullmatch(candidate.name) and candidate.is_file():
                return candidate
    raise InputError(
        f"{folder}: no {part}-{kind}-idx{_KINDS[kind]}-ubyte.gz there; give the folder of the four idx files",
        parameter="source",
    )


def find_fashion_mnist() -> Path:
    """The folder of Fashion-MNIST's four files: Debian's, the cache, or the cache after downloading them.

    Raises InputError, naming the three ways to provide the files, where none works.
    """
    if _complete(DEBIAN_FOLDER):
        return DEBIAN_FOLDER
    cached = cache_folder("fashion-mnist")
    if _complete(cached):
        return cached
    failures = []
    for fetch in (_fetch_official, _fetch_debian):
        with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
            try:
                folder = fetch(Path(scratch))
                _check(folder)
            except (OSError, ValueError, subprocess.SubprocessError, InputError) as error:
                failures.append(str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__)
                continue
            _keep(folder, cached)
            return cached
    raise InputError(
        f"no idx files of fashion-mnist. Give their folder, or `apt-get install {DEBIAN_PACKAGE}`, or open the network "
        f"to {OFFICIAL} (tried: {'; '.join(failures)})",
        parameter="source",
    )


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _fetch_official(scratch: Path) -> Path:
    downloader = pooch.HTTPDownloader(timeout=SECONDS_TO_CONNECT)
    for name, sha256 in FILES.items():
        pooch.retrieve(OFFICIAL + name, f"sha256:{sha256}", fname=name, path=scratch, downloader=downloader)
    return scratch


def _fetch_debian(scratch: Path) -> Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise OSError("no apt-get here")
    if not _download_package(scratch) and os.geteuid() == 0:
        _run(["apt-get", "-qq", "update"], scratch)
        _download_package(scratch)
    packages = list(scratch.glob("*.deb"))
    if not packages:
        raise OSError(f"apt-get download {DEBIAN_PACKAGE} found no package; are the package lists there?")
    unpacked = scratch / "unpacked"
    if _run(["dpkg", "-x", str(packages[0]), str(unpacked)], scratch) != 0:
        raise OSError(f"dpkg -x could not unpack {packages[0].name}")
    return unpacked / DEBIAN_FOLDER.relative_to("/")


def _download_package(scratch: Path) -> bool:
    return _run(["apt-get", "-qq", "download", DEBIAN_PACKAGE], scratch) == 0


def _run(words: list[str], folder: Path) -> int:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, timeout=300, check=False)
    return done.returncode


def _check(folder: Path) -> None:
    for name, sha256 in CONTENTS.items():
        array = read_idx(folder / name, dimensions=3 if "images" in name else 1)
        if hashlib.sha256(array.tobytes()).hexdigest() != sha256:
            raise InputError(f"{name}: its content is not Fashion-MNIST's")


def _keep(folder: Path, cached: Path) -> None:
    # Another process may fetch at the same moment: each file is renamed on its own, and all copies are the same.
    cached.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        os.replace(folder / name, cached / name)


DATASETS = (_dataset("mnist"), _dataset(_FASHION, find=find_fashion_mnist))
