"""Points from outside, refused with one line where they are not finite matrices of the right width."""

import numpy as np
import torch
from torch import Tensor

from data_shards.io.errors import InputError
from trainer.mixture.points import Points
from trainer.process_group import Ranks

Array = Tensor | np.ndarray


def matrix(x: Array, name: str, dim: int | None = None) -> Tensor:
    """`x` as a float tensor of shape (n, D). Raises InputError with the name where it is something else."""
    tensor = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise InputError(f"{name}: shape {tuple(tensor.shape)} is not (points, dimensions); use one row a point")
    if dim is not None and tensor.shape[1] != dim:
        raise InputError(f"{name}: {tensor.shape[1]} dimensions, where {dim} are expected")
    return tensor if tensor.is_floating_point() else tensor.double()


def points(x: Array, variance: Array | None, name: str, dim: int | None, ranks: Ranks) -> Points:
    """Points that are finite on every process, on this process's device."""
    means = matrix(x, name, dim).detach().to(ranks.device)
    if ranks.any(not bool(torch.isfinite(means).all())):
        raise InputError(f"{name}: some values are NaN or infinite; remove those points")
    if variance is None:
        return Points(means)
    spread = matrix(variance, f"variance of {name}", means.shape[1]).detach().to(ranks.device)
    if ranks.any(len(spread) != len(means)):
        raise InputError(f"variance of {name}: {len(spread)} rows for {len(means)} points; give one row a point")
    if ranks.any(not bool((torch.isfinite(spread) & (spread >= 0)).all())):
        raise InputError(f"variance of {name}: some values are negative, NaN or infinite")
    return Points(means, spread)
