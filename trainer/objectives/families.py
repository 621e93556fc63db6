"""The families of p(x|z) that `variance.family` names, each with mean g_k(z) and variance sigma_k(z)^2 for pixel k.

Residuals have heavier tails than a Gaussian of their variance. Laplace's density falls by the absolute error, Student's
with DEGREES_OF_FREEDOM by a power of it. Both are scaled so that sigma_k(z)^2 is the variance in every family, and the
floor of Algorithm 1 means the same.
"""

import math

import torch
from torch import Tensor

from trainer.networks.model import Likelihood
from trainer.objectives import gaussian

DEGREES_OF_FREEDOM = 4.0
"""nu of Student's distribution; its variance is scale^2 nu / (nu - 2)."""
_LOG_PEAK_T = (
    math.lgamma((DEGREES_OF_FREEDOM + 1) / 2)
    - math.lgamma(DEGREES_OF_FREEDOM / 2)
    - 0.5 * math.log(math.pi * (DEGREES_OF_FREEDOM - 2))
)
"""Log-density at the mean for variance 1, nats."""


def log_likelihood(x: Tensor, output: Likelihood) -> Tensor:
    """log p(x|z), summed over pixels. x: (B, C, H, W) in [0, 1]. Returns nats per image, (B,)."""
    if output.family == "gaussian":
        return gaussian.log_likelihood(x, output.mean, output.variance)
    # Equation 10 with another density: that of variance 1, at the residual in units of sigma.
    residual = (x - output.mean) / output.variance.sqrt()  # (B, C, H, W)
    return (log_density(residual, output.family) - 0.5 * output.variance.log()).sum((1, 2, 3))


def log_density(residual: Tensor, family: str) -> Tensor:
    """Log-density of the family with mean 0 and variance 1, in nats; residual and result of any one shape."""
    match family:
        case "gaussian":
            return -0.5 * (residual.square() + gaussian.LOG_2PI)
        case "laplace":
            return -math.sqrt(2) * residual.abs() - 0.5 * math.log(2)
        case "student_t":
            nu = DEGREES_OF_FREEDOM
            return _LOG_PEAK_T - 0.5 * (nu + 1) * torch.log1p(residual.square() / (nu - 2))
    raise ValueError(f"family is {family!r}; gaussian, laplace and student_t are known")


def cap(d: int, floor: float, family: str) -> float:
    """The largest log p(x|z) in nats that d pixels can reach where every variance is at least `floor` (D3)."""
    return d * (float(log_density(torch.zeros(1, dtype=torch.float64), family)) - 0.5 * math.log(floor))
