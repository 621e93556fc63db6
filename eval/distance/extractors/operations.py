"""What the features of one image cost, for estimates of time before anything is computed."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from eval.distance.extractors.by_name import extractor_by_name

# At 299 x 299, whatever the weights: an estimate need not download them.
_INCEPTION = 11.4e9


def operations_of(name: str, image_shape: tuple[int, int, int], *, size: int = 0, weights: str = "") -> float:
    """Floating-point operations of the features of one image (C, H, W), counted while they are computed once.

    name, size, weights: as `extractor_by_name` takes them. Raises InputError where it does.
    """
    if name == "inception":
        return _INCEPTION
    extractor = extractor_by_name(name, torch.device("cpu"), size=size, weights=weights)
    with FlopCounterMode(display=False) as counter:
        extractor(torch.zeros(1, *image_shape, dtype=torch.uint8))
    return float(counter.get_total_flops())
