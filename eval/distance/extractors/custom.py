"""Custom extractors: a TorchScript file, or a Python function that makes a network."""

import hashlib
import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from eval.distance.extractors.extractor import Extractor
from eval.distance.extractors.resizing import resize_clean
from eval.distance.extractors.weight_files import sha256_of

Network = Callable[[Tensor], Tensor]
"""(B, 3, size, size) float32 in 0 to 255 to features: (B, dim), or (B, dim, h, w), which is averaged over positions."""


def torchscript(device: torch.device, path: Path, *, size: int) -> Extractor:
    """The network in the TorchScript file `path`, see `Network`. size: height and width in pixels that it is given."""
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} is no TorchScript file ({error}); give one made by torch.jit.save", parameter="extractor"
        ) from error
    return _extractor(network, device, size=size, name=path.name, digest=sha256_of(path))


def function(device: torch.device, target: str, *, size: int) -> Extractor:
    """The network that MODULE:FUNCTION returns when called with the device, see `Network`.

    The protocol records the digest of the module's source, since a function may change under the same name.
    """
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"module {module_name} cannot be imported ({error}); is it on PYTHONPATH?", parameter="extractor"
        ) from error
    if not callable(getattr(module, name, None)):
        raise InputError(f"module {module_name} has no function {name!r}; give MODULE:FUNCTION", parameter="extractor")
    source = Path(module.__file__).read_bytes() if module.__file__ else b""
    network = getattr(module, name)(device)
    return _extractor(network, device, size=size, name=target, digest=hashlib.sha256(source).hexdigest())


def _extractor(network: Network, device: torch.device, *, size: int, name: str, digest: str) -> Extractor:
    features = partial(_pooled, network, name)
    with torch.inference_mode():
        dim = features(torch.zeros(2, 3, size, size, device=device)).shape[1]
    return Extractor(
        label=f"FD ({name}, {size} px)",
        dim=dim,
        resize=partial(resize_clean, size=size),
        network=features,
        device=device,
        description={
            "name": name,
            "size": size,
            "resizer": "clean-fid (Pillow bicubic per channel, float32, not rounded)",
            "weights_sha256": digest,
        },
    )


def _pooled(network: Network, name: str, images: Tensor) -> Tensor:
    features = network(images)
    if not isinstance(features, Tensor) or features.ndim not in (2, 4) or len(features) != len(images):
        form = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(
            f"{name} gave {form} for {len(images)} images; it must give (B, dim) or (B, dim, h, w)",
            parameter="extractor",
        )
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features
