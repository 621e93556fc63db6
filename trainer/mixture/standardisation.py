"""The coordinates a fit works in: centred and of unit size, so that float32 products lose little."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points
from trainer.process_group import Ranks


@dataclass(frozen=True)
class Frame:
    """inside = (z - location) / scale. location: (D,) float64; scale: above 0."""

    location: Tensor
    scale: float

    @staticmethod
    def of(x: Tensor, ranks: Ranks) -> "Frame":
        """The frame of all processes' points: their mean, and the root mean square distance from it a dimension."""
        sums = torch.cat([x.double().sum(0), x.new_tensor([len(x)], dtype=torch.float64)])
        ranks.sum_(sums)
        location = sums[:-1] / sums[-1]
        square = ranks.sum_((x.double() - location).square().sum()[None])
        scale = float((square[0] / (sums[-1] * x.shape[1])).sqrt())
        return Frame(location, scale if scale > 0 else 1.0)

    @property
    def log_density_shift(self) -> float:
        """What to add to a log-density in this frame to have that of the data."""
        return -len(self.location) * math.log(self.scale)

    def enter(self, points: Points, dtype: torch.dtype) -> Points:
        """Points in this frame."""
        variance = None if points.variance is None else (points.variance.double() / self.scale**2).to(dtype)
        return Points(((points.x.double() - self.location) / self.scale).to(dtype), variance)

    def enter_parameters(self, parameters: Parameters) -> Parameters:
        """A mixture of points as a mixture of points in this frame."""
        return parameters.moved(1 / self.scale, -self.location / self.scale)

    def leave_parameters(self, parameters: Parameters) -> Parameters:
        """The inverse of `enter_parameters`."""
        return parameters.moved(self.scale, self.location)
