"""Fashion-MNIST: idx files that are in Debian's package, or are downloaded once."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pooch

from data_shards.io.errors import InputError
from data_shards.io.user_cache import cache_folder
from data_shards.sources.idx import idx_dataset, read_idx

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


def find_folder() -> Path:
    """The folder of the four files: Debian's, the cache, or the cache after downloading them.

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


FASHION_MNIST = idx_dataset("fashion-mnist", find=find_folder)


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
