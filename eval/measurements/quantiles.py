"""Distribution functions and central intervals of the families of p(x|z), each with mean 0 and variance 1."""

import math

import torch
from torch import Tensor

from trainer.objectives.families import DEGREES_OF_FREEDOM

# Student's distribution of scale 1, in units of this one's.
_SCALE = math.sqrt(DEGREES_OF_FREEDOM / (DEGREES_OF_FREEDOM - 2))


def log_cdf(u: Tensor, family: str = "gaussian") -> Tensor:
    """log P(residual <= u); float64 of any shape, infinite values allowed."""
    if family == "gaussian":
        return torch.special.log_ndtr(u)
    if family == "laplace":
        tail = -math.sqrt(2) * u.abs() - math.log(2)  # log of the probability beyond |u| on one side
        return torch.where(u < 0, tail, torch.log1p(-tail.exp()))
    from scipy.special import stdtr

    return torch.from_numpy(stdtr(DEGREES_OF_FREEDOM, (u * _SCALE).cpu().numpy())).log().to(u.device)


def half_widths(levels: tuple[float, ...], family: str = "gaussian") -> Tensor:
    """Half the width of the central interval of each level in standard deviations, (number of levels,) float64."""
    level = torch.tensor(levels, dtype=torch.float64)
    if family == "gaussian":
        return torch.special.ndtri((1 + level) / 2)
    if family == "laplace":
        return -(1 - level).log() / math.sqrt(2)
    from scipy.special import stdtrit

    return torch.from_numpy(stdtrit(DEGREES_OF_FREEDOM, ((1 + level) / 2).numpy())) / _SCALE
