"""The coordinates that a fit works in: centred and of unit size, so that float32 products lose little."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points
from trainer.process_group import Ranks


@dataclass(frozen=True)
class Standardisation:
    """z to (z - location) / scale. location: (D,) float64; scale: above 0."""

    location: Tensor
    scale: float

    @staticmethod
    def of(x: Tensor, ranks: Ranks) -> "Standardisation":
        """By the mean of all processes' points and their root mean square distance from it, over dimensions."""
        sums = torch.cat([x.double().sum(0), x.new_tensor([len(x)], dtype=torch.float64)])
        ranks.sum_(sums)
        location = sums[:-1] / sums[-1]
        square = ranks.sum_((x.double() - location).square().sum()[None])
        scale = float((square[0] / (sums[-1] * x.shape[1])).sqrt())
        return Standardisation(location, scale if scale > 0 else 1.0)

    @property
    def log_density_shift(self) -> float:
        """What to add to a log-density of standardised points for that of the data, in nats."""
        return -len(self.location) * math.log(self.scale)

    def apply(self, points: Points, dtype: torch.dtype) -> Points:
        """The standardised points."""
        variance = None if points.variance is None else (points.variance.double() / self.scale**2).to(dtype)
        return Points(((points.x.double() - self.location) / self.scale).to(dtype), variance)

    def apply_to_parameters(self, parameters: Parameters) -> Parameters:
        """The mixture of the standardised points, where `parameters` is that of the data."""
        return parameters.moved(1 / self.scale, -self.location / self.scale)

    def invert(self, parameters: Parameters) -> Parameters:
        """The mixture of the data, where `parameters` is that of the standardised points."""
        return parameters.moved(self.scale, self.location)
