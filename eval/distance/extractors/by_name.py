"""The extractor that a name on the command line stands for."""

from pathlib import Path

import torch

from data_shards.io.errors import InputError
from eval.distance.extractors.custom import function, torchscript
from eval.distance.extractors.efficientnet import efficientnet_lite0
from eval.distance.extractors.extractor import Extractor
from eval.distance.extractors.inception import inception

_LITE_SIZE, _CUSTOM_SIZE = 64, 224


def extractor_by_name(
    name: str, device: torch.device, *, size: int = 0, mode: str = "clean", weights: str = ""
) -> Extractor:
    """`name` is "efficientnet-lite0", "inception", the path of a TorchScript file, or MODULE:FUNCTION.

    size: input size in pixels, 0 for the extractor's own (64 for EfficientNet-Lite0, 224 for custom ones); mode and
    weights: see `inception`. Raises InputError for an unknown name, or an option that the extractor does not have.
    """
    if size and not 32 <= size <= 1024:
        raise InputError(f"--extractor-size: {size} is not in 32 to 1024 pixels")
    if name == "inception":
        if size:
            raise InputError("--extractor-size: inception takes 299 pixels; leave it out")
        return inception(device, mode=mode, weights=weights)
    if mode != "clean" or weights:
        raise InputError(
            f"--extractor-mode, --extractor-weights: are for --extractor inception, not for {name}; leave them out"
        )
    if name == "efficientnet-lite0":
        return efficientnet_lite0(device, size=size or _LITE_SIZE)
    if Path(name).is_file():
        return torchscript(device, Path(name), size=size or _CUSTOM_SIZE)
    if ":" in name:
        return function(device, name, size=size or _CUSTOM_SIZE)
    raise InputError(
        f"--extractor: {name!r} is unknown; use efficientnet-lite0, inception, a TorchScript file or MODULE:FUNCTION"
    )
