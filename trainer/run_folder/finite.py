"""Whether numbers are sound: weights that are not finite are worth nothing, and are never kept."""

from collections.abc import Mapping

import torch
from torch import Tensor


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity; None where all numbers are finite."""
    return next((name for name, value in tensors.items() if not bool(torch.isfinite(value).all())), None)
