"""The extractor that a name stands for."""

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
    """The extractor `name`: "efficientnet-lite0", "inception", the path of a TorchScript file, or MODULE:FUNCTION.

    size: input size in pixels, 0 for the extractor's own (64 for EfficientNet-Lite0, 224 for custom ones); mode and
    weights: see `inception`. Raises InputError for an unknown name, or an option that the extractor does not have.
    """
    if size and not 32 <= size <= 1024:
        raise InputError(f"{size} is not in 32 to 1024 pixels", parameter="extractor_size")
    if name == "inception":
        if size:
            raise InputError("inception takes 299 pixels; leave it out", parameter="extractor_size")
        return inception(device, mode=mode, weights=weights)
    if mode != "clean" or weights:
        given = "extractor_mode" if mode != "clean" else "extractor_weights"
        raise InputError(f"is for the extractor inception, not for {name}; leave it out", parameter=given)
    if name == "efficientnet-lite0":
        return efficientnet_lite0(device, size=size or _LITE_SIZE)
    if Path(name).is_file():
        return torchscript(device, Path(name), size=size or _CUSTOM_SIZE)
    if ":" in name:
        return function(device, name, size=size or _CUSTOM_SIZE)
    raise InputError(
        f"{name!r} is unknown; use efficientnet-lite0, inception, a TorchScript file or MODULE:FUNCTION",
        parameter="extractor",
    )
