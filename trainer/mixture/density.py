"""A mixture as a density in torch: exact log-densities in float64, gradients, and samples.

Packed products only find the components that can matter to a point, by a bound of their own error. Every score is
computed from differences in float64, so that it is exact wherever a point lies and however narrow a component is.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from trainer.full_precision import full_precision
from trainer.mixture.blocks import Blocks
from trainer.mixture.em.centred import DIFFERENCES, weighted_log_densities
from trainer.mixture.em.dense import DenseScores
from trainer.mixture.em.pairs import Factors, Pairs
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points, check_values, matrix
from trainer.mixture.scored import Scored
from trainer.mixture.working_memory import numbers_at_a_time

# Numbers in the largest intermediate tensor.
_CHUNK_NUMBERS = 16_000_000
# Components whose density is below exp(-32) of the best one's add less than 2e-10 nats, even 10,000 of them.
_NEGLIGIBLE = 32.0
# With fewer components than this, computing all of them is faster.
_FEWEST_TO_PRUNE = 64
_PAIRS_AT_A_TIME = 500_000
_POINTS_AT_A_TIME = 100_000
# Pairs of a point and a component, and components, from which on blocks of components pay.
_PAIRS_FOR_BLOCKS = 50_000_000
_FEWEST_FOR_BLOCKS = 1000


class MixtureDensity:
    """q(z) = sum_k w_k N(z; mu_k, Sigma_k) of known parameters, equation 12.

    Points may lie on any device; results are on that of the parameters. Packed products find the components that matter
    to a point, whose densities are then computed exactly; what is left out is below exp(-32) of the best. Of thousands
    of components that lie apart only blocks near a point are compared at all, see `Blocks`. Points that need gradients,
    and mixtures of few components, are computed against every component.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._location = parameters.weights @ parameters.means  # (D,), subtracted before packed products
        self._made_blocks: Blocks | None = None

    @property
    def weights(self) -> Tensor:
        """(K,) float64, summing to 1."""
        return self.parameters.weights

    @property
    def means(self) -> Tensor:
        """(K, D) float64."""
        return self.parameters.means

    @property
    def covariances(self) -> Tensor:
        """In scikit-learn's shapes: full (K, D, D), tied (D, D), diag (K, D), spherical (K,); float64."""
        return self.parameters.expanded_covariances()

    @full_precision()
    def score_samples(self, z: Tensor) -> Tensor:
        """log q(z) in nats for points z (n, D). Returns (n,) float64; gradients flow to z.

        Raises InputError where some values are NaN, infinite or above 1e150, as all methods of points do.
        """
        points = self._points(z)
        if points.requires_grad:
            return torch.cat([torch.logsumexp(part, 1) for part in self._every(points)])
        return self._of_parts(points, lambda part: part.log_density, (0,))

    @full_precision()
    def score_samples_within(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log q(z) as `score_samples`, and an upper bound, in nats, of what components that were left out would add.

        z: (n, D), without gradients. Returns (n,) and (n,) float64.
        """
        both = self._of_parts(
            self._points(z).detach(), lambda part: torch.stack([part.log_density, part.error], 1), (0, 2)
        )
        return both[:, 0], both[:, 1]

    @full_precision()
    def predict_proba(self, z: Tensor) -> Tensor:
        """Responsibilities (n, K) float64 of the components for points z (n, D)."""
        points = self._points(z)
        if points.requires_grad:
            return torch.cat([part.softmax(1) for part in self._every(points)])
        return self._of_parts(
            points, lambda part: part.responsibilities(self.parameters.n_components), (0, len(self.weights))
        )

    @full_precision()
    def predict(self, z: Tensor) -> Tensor:
        """The most responsible component of each point of z (n, D). Returns (n,) int64."""
        return self._of_parts(self._points(z).detach(), lambda part: part.best, (0,)).long()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws (n, D) float64, in random order of components. generator: on the CPU."""
        return self.sample_with_components(n, generator)[0]

    @full_precision()
    def sample_with_components(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The draws of `sample`, and the component (n,) int64 of each."""
        parameters, dim, device = self.parameters, self.parameters.dim, self.parameters.means.device
        if n == 0:
            return parameters.means[:0], torch.zeros(0, dtype=torch.int64, device=device)
        chosen = torch.multinomial(parameters.weights.cpu(), n, replacement=True, generator=generator)
        noise = torch.randn(n, dim, dtype=torch.float64, generator=generator).to(device)
        chosen = chosen.to(device)
        draws = parameters.means[chosen]  # (n, D)
        if parameters.covariance_type in ("diag", "spherical"):
            return (draws + parameters.covariances[chosen].sqrt() * noise), chosen
        if parameters.covariance_type == "tied":
            return (draws + noise @ parameters.cholesky(slice(0, 1))[0].t()), chosen
        for block in parameters.blocks():
            mine = ((chosen >= block.start) & (chosen < block.stop)).nonzero()[:, 0]
            cholesky = parameters.cholesky(block)
            for rows in mine.split(max(1, numbers_at_a_time(_CHUNK_NUMBERS, device) // dim**2)):
                draws[rows] += (cholesky[chosen[rows] - block.start] @ noise[rows, :, None])[..., 0]
        return draws, chosen

    def _points(self, z: Tensor) -> Tensor:
        points = matrix(z, "z", self.parameters.dim)
        check_values(points, "z")
        return points

    def _precise(self, part: Tensor) -> Tensor:
        """A part of the points in float64, on the device of the parameters; all of them would be a second copy."""
        return part.to(self.parameters.means.device).double()

    def _every(self, points: Tensor) -> Iterator[Tensor]:
        """The log-densities (n, K) under all components, of part after part of the points."""
        k, dim, device = self.parameters.n_components, self.parameters.dim, points.device
        rows = numbers_at_a_time(DIFFERENCES, device) // dim
        if self.parameters.covariance_type in ("full", "tied"):
            rows = max(rows, 4 * dim)  # matrices are inverted anew for each part
        size = max(256, min(rows, numbers_at_a_time(_CHUNK_NUMBERS, device) // k))
        yield from (weighted_log_densities(self._precise(rows), self.parameters) for rows in points.split(size))

    def _of_parts(self, points: Tensor, result: Callable[[Scored], Tensor], shape: tuple[int, ...]) -> Tensor:
        """A result of part after part of the points, together; of this shape where there are none."""
        parts = [result(part) for part in self._scored(points)]
        return torch.cat(parts) if parts else self.means.new_zeros(shape)

    def _scored(self, points: Tensor) -> Iterator[Scored]:
        """Part after part of points (n, D), with the components that can matter to each."""
        if not len(points):
            return
        blocks = self._blocks(len(points))
        for part in points.split(_POINTS_AT_A_TIME if blocks is None else blocks.points_at_a_time):
            precise = self._precise(part)
            around_mean = precise - self._location
            found = None if blocks is None else blocks.scored(around_mean)
            if found is None:
                yield from self._compared(precise, around_mean)
            else:
                yield found

    def _blocks(self, count: int) -> Blocks | None:
        """The blocks of components, made once for `count` points or more that they pay for."""
        k = self.parameters.n_components
        if self._made_blocks is None and k >= _FEWEST_FOR_BLOCKS and count * k >= _PAIRS_FOR_BLOCKS:
            self._made_blocks = Blocks(self._centred, self._factors)
        return self._made_blocks

    def _compared(self, points: Tensor, centred: Tensor) -> Iterator[Scored]:
        """Part after part of points (n, D), each compared with every component; centred: about the mean."""
        k = self.parameters.n_components
        packed = self._packed if k >= _FEWEST_TO_PRUNE else None
        if packed is None:
            for logits in self._every(points):
                yield Scored.of_all(logits)
            return
        for first, rows, components in _candidates(packed, centred):
            count = int(rows[-1]) + 1
            pairs = Pairs.of(rows, components, k)
            scores = pairs.scores(Points(centred[first : first + count]), self._factors)
            found = Scored(rows, components, scores, count)
            yield replace(found, left_out=found.top + math.log(k) - _NEGLIGIBLE)

    @cached_property
    def _centred(self) -> Parameters:
        return self.parameters.moved(1.0, -self._location)

    @cached_property
    def _factors(self) -> Factors:
        return Factors.of(self._centred, torch.float64)

    @cached_property
    def _packed(self) -> DenseScores | None:
        """Packed products in which components are compared, or None where they cannot hold the differences."""
        centred = self._centred
        between = centred.weights @ centred.means.square()
        within = centred.weights @ centred.variances().expand(centred.n_components, -1)
        return DenseScores.safe(centred, within + between)


def _candidates(scores: DenseScores, centred: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(the first point, rows from it on, components): all pairs of some points that are not negligible.

    Both the best component's packed log-density and another's may be off by the bound of rounding.
    """
    collected: list[tuple[Tensor, Tensor]] = []
    first = done = count = 0
    for chunk, _, logits, _ in scores.chunks(Points(centred)):
        margin = _NEGLIGIBLE + 2 * scores.rounding(chunk.x)
        rows, components = (logits >= (logits.amax(1) - margin)[:, None]).nonzero(as_tuple=True)
        collected.append((rows + (done - first), components))
        done, count = done + len(chunk), count + len(rows)
        if count >= _PAIRS_AT_A_TIME or done == len(centred):
            rows, components = (torch.cat(tensors) for tensors in zip(*collected, strict=True))
            yield first, rows, components
            collected, first, count = [], done, 0
