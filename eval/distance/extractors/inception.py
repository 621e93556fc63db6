"""Inception-v3 as clean-fid uses it, in its three modes; the only extractor whose distance is an FID.

mode               network                                    resizer
clean              TorchScript of the TensorFlow weights      Pillow bicubic, float32, to 299 x 299
legacy_tensorflow  the same                                   inside the network
legacy_pytorch     the port of pytorch-fid                    bilinear without antialiasing, to 299 x 299

Its weight file is given by path, or downloaded once into the shared cache.
"""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cleanfid import inception_pytorch
from cleanfid.downloads_helper import inception_url
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.disk import cache_folder, locked, sha256_of_file
from data_shards.io.errors import InputError
from eval.distance.extractors.extractor import Extractor, resize_bilinear, resize_clean
from eval.questions import INCEPTION_MODES


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A published weight file."""

    url: str
    """Where it is published."""
    sha256: str
    """Its digest, or the first digits of it where no more is published."""

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rsplit("/", 1)[1]


def given_or_downloaded(path: str, published: WeightFile) -> Path:
    """The file at `path` where one is given, else the published one from the cache, downloaded if it is not there.

    A given file may hold any weights; a downloaded one has the published digest or is refused. Processes that start
    together download once. Raises InputError where there is no such file or it cannot be downloaded.
    """
    if path:
        if not Path(path).is_file():
            raise InputError(f"{path} is no file; give the path of {published.name}", parameter="extractor_weights")
        return Path(path)
    kept = cache_folder("weights") / published.name
    with locked(kept):
        if not kept.exists():
            _download(published, kept)
    return kept


def _download(published: WeightFile, kept: Path) -> None:
    try:
        with urllib.request.urlopen(published.url, timeout=60) as response:
            content = response.read()
    except (urllib.error.URLError, OSError) as error:
        raise InputError(
            f"{published.url}: cannot be downloaded ({error}); download {published.name} elsewhere and give its path, "
            f"or put it at {kept}, or use the extractor efficientnet-lite0",
            parameter="extractor_weights",
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(published.sha256):
        raise InputError(f"{published.url}: has SHA-256 {digest} instead of {published.sha256}; it is another file")
    atomic.write_bytes(kept, content)


_DIM, _SIZE = 2048, 299

_TORCHSCRIPT = WeightFile(url=inception_url, sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4")
WEIGHTS_NAME = _TORCHSCRIPT.name
"""The file in the shared cache that makes the clean mode possible without a download."""
# The publisher states the first eight digits, in the file's name.
_PORT = WeightFile(url=inception_pytorch.FID_WEIGHTS_URL, sha256="6726825d")


def inception(device: torch.device, *, mode: str = "clean", weights: str = "") -> Extractor:
    """Inception-v3's pooled features.

    mode: one of INCEPTION_MODES; weights: path of the weight file, empty to download it once. The distance is called
    FID with the published weights only.
    """
    if mode not in INCEPTION_MODES:
        raise InputError(f"{mode!r} is unknown; use one of {', '.join(INCEPTION_MODES)}", parameter="extractor_mode")
    published = _PORT if mode == "legacy_pytorch" else _TORCHSCRIPT
    path = given_or_downloaded(weights, published)
    digest = sha256_of_file(path)
    resize: Callable[[Tensor], Tensor]
    if mode == "clean":
        network, resize = _clean(path, device), partial(resize_clean, size=_SIZE)
        resizer = "clean-fid (Pillow bicubic per channel, float32, not rounded)"
    elif mode == "legacy_tensorflow":
        network, resize, resizer = _legacy_tensorflow(path, device), _unchanged, "inside the network"
    else:
        network, resize = _legacy_pytorch(path, device), partial(resize_bilinear, size=_SIZE)
        resizer = "PyTorch bilinear, not antialiased"
    return Extractor(
        label=f"FID (clean-fid, {mode})"
        if digest.startswith(published.sha256)
        else f"FD (Inception {path.name}, {mode})",
        dim=_DIM,
        resize=resize,
        network=network,
        device=device,
        description={
            "name": "inception",
            "mode": mode,
            "size": _SIZE,
            "resizer": resizer,
            "weights_sha256": digest,
        },
    )


def _unchanged(images: Tensor) -> Tensor:
    return images


def _script(path: Path, device: torch.device) -> Any:
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: is no TorchScript file ({error}); give clean-fid's {_TORCHSCRIPT.name}") from error


def _clean(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    layers = _script(path, device).layers
    return lambda images: layers((images - 128) / 128).reshape(len(images), _DIM)


def _legacy_tensorflow(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    base = _script(path, device)
    return lambda images: base(images, return_features=True).reshape(len(images), _DIM)


def _legacy_pytorch(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path}: holds no plain weights ({error}); give pytorch-fid's {_PORT.name}") from error
    # clean-fid's constructor downloads its weights into a pickle loader: give it ours instead.
    fetch = inception_pytorch.load_state_dict_from_url
    inception_pytorch.load_state_dict_from_url = lambda url, progress: state
    try:
        network = inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False).to(device).eval()
    except RuntimeError as error:
        raise InputError(f"{path}: weights of another network ({error}); give pytorch-fid's {_PORT.name}") from error
    finally:
        inception_pytorch.load_state_dict_from_url = fetch
    return lambda images: network(images / 255)[0].reshape(len(images), _DIM)
