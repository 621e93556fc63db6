"""The points of one process: checked, standardised, and the sums over all processes that a fit begins with."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_shards.io.errors import InputError
from trainer.mixture.parameters import Parameters
from trainer.process_group import Ranks

Array = Tensor | np.ndarray


@dataclass(frozen=True)
class Points:
    """x: (n, D); variance: (n, D) where each point is a Gaussian N(x, diag(variance)), else None."""

    x: Tensor
    variance: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, chosen: Tensor | slice) -> "Points":
        """The points at some rows: a slice, flags (n,), or row numbers of any shape."""
        return Points(_rows(self.x, chosen), None if self.variance is None else _rows(self.variance, chosen))

    def to(self, dtype: torch.dtype) -> "Points":
        """The same in another number format."""
        return Points(self.x.to(dtype), None if self.variance is None else self.variance.to(dtype))


@dataclass(frozen=True)
class StandardisedPoints(Points):
    """Standardised points that another number format is made of from the data's own, not from rounded numbers.

    source: the data's points; chosen: (n,) flags of those that these are.
    """

    source: Points | None = None
    chosen: Tensor | None = None
    standardisation: "Standardisation | None" = None

    def to(self, dtype: torch.dtype) -> Points:
        """See `Points`."""
        if dtype == self.x.dtype or self.source is None or self.standardisation is None:
            return self if dtype == self.x.dtype else super().to(dtype)
        return self.standardisation.of_some(self.source, self.chosen, dtype)


def _rows(x: Tensor, chosen: Tensor | slice) -> Tensor:
    if isinstance(chosen, slice) or chosen.dtype == torch.bool:
        return x[chosen]
    # Nearly twice as fast as x[chosen].
    return x.index_select(0, chosen.flatten()).view(*chosen.shape, -1)


LARGEST = 1e150
"""Of the values of points: sums of squares of larger ones do not fit in float64."""


def tensor_of(array: np.ndarray) -> Tensor:
    """A tensor that shares the memory of `array`, or of a copy where torch cannot read it.

    torch warns of arrays that cannot be written to, such as a file that is mapped for reading. No method writes to its
    points.
    """
    native = array.dtype.newbyteorder("=")
    if array.dtype != native or any(step < 0 for step in array.strides):
        array = np.ascontiguousarray(array, dtype=native)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def matrix(x: Array, name: str, dim: int | None = None) -> Tensor:
    """`x` as a tensor (n, D) in float32 or float64; what has fewer digits becomes float64, as in scikit-learn.

    Raises InputError for another shape, another D than `dim`, or what is not dense, whole and real; `name` is the
    parameter that it names.
    """
    tensor = x if isinstance(x, Tensor) else tensor_of(_numbers(x, name))
    if kind := _unlike_a_matrix(tensor):
        raise InputError(f"a {kind} tensor cannot be fitted; use a dense one of real numbers", parameter=name)
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        shape = tuple(tensor.shape)
        raise InputError(f"shape {shape} is not (points, dimensions); use one row a point", parameter=name)
    if dim is not None and tensor.shape[1] != dim:
        raise InputError(f"{tensor.shape[1]} dimensions, where {dim} are expected", parameter=name)
    return tensor.resolve_neg() if tensor.dtype in (torch.float32, torch.float64) else tensor.double()


def _numbers(x: object, name: str) -> np.ndarray:
    """An array of numbers that torch has too. Raises InputError where there are none, or some are masked."""
    refuse_masked(x, name)
    try:
        array = np.asarray(x)
        if array.dtype.kind in "biufc" and array.dtype.itemsize <= 16 and array.dtype != np.longdouble:
            return array
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"this is not an array of numbers ({error})", parameter=name) from error


def refuse_masked(x: object, name: str) -> None:
    """Raises InputError where `x` is an array of which some values are masked."""
    if np.ma.is_masked(x):
        raise InputError("some values are masked; remove those points or fill them in", parameter=name)


def _unlike_a_matrix(tensor: Tensor) -> str | None:
    """What a tensor is that has no dense real numbers, or None."""
    kinds = {
        "nested": tensor.is_nested,
        "complex": tensor.is_complex(),
        "sparse": tensor.layout != torch.strided,
        "quantized": tensor.is_quantized,
        "meta": tensor.is_meta,
    }
    return next((kind for kind, is_one in kinds.items() if is_one), None)


def check_values(x: Tensor, name: str, ranks: Ranks | None = None) -> None:
    """Raises InputError, on every process of `ranks`, where one has values that are NaN, infinite or above LARGEST."""
    anywhere = bool if ranks is None else ranks.any
    # NaN is the extreme of what it is among. Nothing of the size of the points is made.
    low, high = (float(extreme) for extreme in x.detach().aminmax()) if x.numel() else (0.0, 0.0)
    if anywhere(not (math.isfinite(low) and math.isfinite(high))):
        raise InputError("some values are NaN or infinite; remove those points", parameter=name)
    if anywhere(max(-low, high) > LARGEST):
        raise InputError(f"some values are above {LARGEST:g}, too large to be squared; scale them", parameter=name)


def checked_points(x: Array, variance: Array | None, name: str, dim: int | None, ranks: Ranks) -> Points:
    """Points on this process's device. Raises InputError on every process where one has NaN, infinity, values above
    LARGEST, or a shape that does not fit."""
    means = matrix(x, name, dim).detach().to(ranks.device)
    check_values(means, name, ranks)
    if variance is None:
        return Points(means)
    of = f"variance of {name}"
    variances = matrix(variance, of, means.shape[1]).detach().to(ranks.device)
    if ranks.any(len(variances) != len(means)):
        raise InputError(f"{len(variances)} rows for {len(means)} points; give one row a point", parameter=of)
    if ranks.any(not bool((torch.isfinite(variances) & (variances >= 0)).all())):
        raise InputError("some values are negative, NaN or infinite", parameter=of)
    return Points(means, variances)


def place_among_ranks(count: int, ranks: Ranks) -> tuple[int, int]:
    """(points of all processes, points of the processes before this one) where this one has `count`."""
    sizes = torch.zeros(ranks.world_size, dtype=torch.float64, device=ranks.device)
    sizes[ranks.rank] = count
    ranks.sum_(sizes)
    return int(sizes.sum()), int(sizes[: ranks.rank].sum())


def second_moment(points: Points, ranks: Ranks) -> Tensor:
    """(D,): the mean square of all processes' points in each dimension, float64."""
    x = points.x.double()
    moment = torch.cat([x.square().sum(0), x.new_tensor([len(x)])])
    if points.variance is not None:
        moment[:-1] += points.variance.double().sum(0)
    ranks.sum_(moment)
    return moment[:-1] / moment[-1]


@dataclass(frozen=True)
class Standardisation:
    """z to (z - location) / scale: centred and of unit size, so that float32 products lose little.

    location: (D,) float64; scale: above 0.
    """

    location: Tensor
    scale: float

    @staticmethod
    def of(x: Tensor, ranks: Ranks) -> "Standardisation":
        """By the mean of all processes' points and their root mean square distance from it, over dimensions."""
        sums = torch.cat([x.sum(0, dtype=torch.float64), x.new_tensor([len(x)], dtype=torch.float64)])
        ranks.sum_(sums)
        location = sums[:-1] / sums[-1]
        square = ranks.sum_((x - location).square_().sum()[None])
        scale = float((square[0] / (sums[-1] * x.shape[1])).sqrt())
        return Standardisation(location, scale if scale > 0 else 1.0)

    @property
    def log_density_shift(self) -> float:
        """What to add to a log-density of standardised points for that of the data, in nats."""
        return -len(self.location) * math.log(self.scale)

    def apply(self, points: Points, dtype: torch.dtype) -> Points:
        """The standardised points."""
        variance = None if points.variance is None else (points.variance.double() / self.scale**2).to(dtype)
        # Float32 points become float64 in the difference; of each there is one tensor at a time.
        return Points((points.x - self.location).div_(self.scale).to(dtype), variance)

    def of_some(self, source: Points, chosen: Tensor | None, dtype: torch.dtype) -> StandardisedPoints:
        """The standardised points of those that `chosen` (n,) flags; None is all."""
        made = self.apply(source if chosen is None else source.rows(chosen), dtype)
        return StandardisedPoints(made.x, made.variance, source, chosen, self)

    def apply_to_parameters(self, parameters: Parameters) -> Parameters:
        """The mixture of the standardised points, where `parameters` is that of the data."""
        return parameters.moved(1 / self.scale, -self.location / self.scale)

    def invert(self, parameters: Parameters) -> Parameters:
        """The mixture of the data, where `parameters` is that of the standardised points."""
        return parameters.moved(self.scale, self.location)
