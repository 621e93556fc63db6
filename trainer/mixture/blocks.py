"""Blocks of neighbouring components, of which most can be left out of a point's density, by a proven bound.

In coordinates where the pooled covariance is the identity, let m be the centre of a block, r the largest distance of
one of its means from m, and s the largest eigenvalue of one of its covariances. By the triangle inequality a point at
distance d from m has from each of its components a Mahalanobis distance of at least (d - r) / sqrt(s), so that all of
them together add at most

    log sum_k w_k |2 pi Sigma_k|^-1/2 - max(0, d - r)^2 / (2 s)

to the density. That leaves out nearly all blocks where clusters lie apart, and few where components overlap, as in
uniform data or in many dimensions of broad components: there every component is compared.
"""

import math

import torch
from torch import Tensor

from trainer.mixture.em.pairs import Factors
from trainer.mixture.kmeans import kmeans
from trainer.mixture.packed import unpack
from trainer.mixture.parameters import Parameters, log_constants
from trainer.mixture.points import Points
from trainer.mixture.scored import Scored
from trainer.mixture.working_memory import numbers_at_a_time
from trainer.process_group import single

# What all blocks that are left out may add to a density, relative to it.
_TOLERANCE = 1e-9
# Blocks are so many times the root of the number of components: then a block costs about as much as the search for it.
_BLOCKS_PER_ROOT = 4
# Above this part of the components, comparing all of them by packed products is faster.
_LARGEST_SHARE = 0.03
# Squared distances are differences of float64 products; they are off by less than this part of the factors' squares.
_ROUNDING = 1e-12
# Distances of a part of the points from all blocks.
_PART_NUMBERS = 8_000_000
# A power of 2, to which matrices are raised for a bound of their largest eigenvalue: it is D^(1 / 32) times it at most.
_SQUARINGS = 5


class Blocks:
    """The blocks of a mixture. parameters: of any covariance type; factors: of them, in float64."""

    def __init__(self, parameters: Parameters, factors: Factors) -> None:
        self._white, self._factors = _whitening(parameters), factors
        means = parameters.means @ self._white.mT
        count = max(1, round(_BLOCKS_PER_ROOT * parameters.n_components**0.5))
        generator = torch.Generator().manual_seed(0)
        ranks = single(means.device)
        centres, labels = kmeans(means, count, iterations=10, init="random", generator=generator, ranks=ranks)
        self._sizes = torch.bincount(labels, minlength=count)
        kept = self._sizes > 0
        self._sizes, self._centres = self._sizes[kept], centres[kept]
        labels = (kept.cumsum(0) - 1)[labels]
        self._members = labels.argsort(stable=True).split(self._sizes.tolist())
        nothing = means.new_zeros(len(self._centres))
        distances = (means - self._centres[labels]).square().sum(1).sqrt()
        self._radii = nothing.scatter_reduce(0, labels, distances, "amax")
        self._spreads = nothing.scatter_reduce(0, labels, _largest_eigenvalues(parameters, self._white), "amax")
        constants = log_constants(parameters)
        self._constants = torch.stack([constants[members].logsumexp(0) for members in self._members])

    @property
    def points_at_a_time(self) -> int:
        """Points of one call of `scored`."""
        return max(1, numbers_at_a_time(_PART_NUMBERS, self._centres.device) // len(self._centres))

    def bounds(self, x: Tensor) -> Tensor:
        """Upper bounds (n, blocks) of the log of what the components of a block add to the density of points (n, D)."""
        white = x @ self._white.mT
        own, theirs = white.square().sum(1, keepdim=True), self._centres.square().sum(1)
        squares = torch.addmm(theirs, white, self._centres.t(), alpha=-2).add_(own)
        squares -= _ROUNDING * (own + theirs.max())
        gaps = squares.clamp_(min=0).sqrt_().sub_(self._radii).clamp_(min=0)
        return gaps.square_().mul_(-0.5 / self._spreads).add_(self._constants)

    def scored(self, x: Tensor) -> Scored | None:
        """Points (n, D) float64 with all components of the blocks that matter to them.

        None where so many matter that comparing all components is faster.
        """
        bounds = self.bounds(x)
        first = bounds.argmax(1)
        nearest = self._of_blocks(x, torch.zeros_like(bounds, dtype=torch.bool).scatter_(1, first[:, None], True))
        least = nearest.log_density + math.log(_TOLERANCE / bounds.shape[1])
        wanted = (bounds > least[:, None]).scatter_(1, first[:, None], False)
        compared = int((wanted.sum(0) * self._sizes).sum())
        if compared > _LARGEST_SHARE * len(x) * len(self._factors.constants):
            return None
        further = self._of_blocks(x, wanted)
        left = bounds.masked_fill_(wanted.scatter_(1, first[:, None], True), -torch.inf).logsumexp(1)
        return Scored(
            torch.cat([nearest.rows, further.rows]),
            torch.cat([nearest.components, further.components]),
            torch.cat([nearest.scores, further.scores]),
            len(x),
            left,
        )

    def _of_blocks(self, x: Tensor, wanted: Tensor) -> Scored:
        """Points with the components of the blocks that wanted (n, blocks) flags."""
        block, row = wanted.t().nonzero(as_tuple=True)
        rows, components, scores = [], [], []
        for members, mine in zip(self._members, row.split(wanted.sum(0).tolist()), strict=True):
            for some in mine.split(max(1, _PART_NUMBERS // (len(members) * x.shape[1]))) if len(mine) else ():
                points = Points(x[some].expand(len(members), -1, -1))
                squares = self._factors.squares(members, points)  # (b, m)
                scores.append((self._factors.constants[members, None] - 0.5 * squares).flatten())
                rows.append(some.expand(len(members), -1).flatten())
                components.append(members[:, None].expand(-1, len(some)).flatten())
        if not rows:
            return Scored(row, block, x.new_zeros(0), len(x))
        return Scored(torch.cat(rows), torch.cat(components), torch.cat(scores), len(x))


def _whitening(parameters: Parameters) -> Tensor:
    """(D, D): W with W Sigma W^T = I for the pooled covariance Sigma."""
    pooled = parameters.weights @ parameters.covariances.expand(parameters.n_components, -1)
    if parameters.covariance_type in ("full", "tied"):
        return torch.linalg.inv(torch.linalg.cholesky(unpack(pooled, parameters.dim)))
    return pooled.expand(parameters.dim).rsqrt().diag()


def _largest_eigenvalues(parameters: Parameters, white: Tensor) -> Tensor:
    """Upper bounds (K,) of the largest eigenvalue of each whitened covariance.

    That of a matrix A of trace 1 is at most the m-th root of the trace of A^m.
    """
    k, kind = parameters.n_components, parameters.covariance_type
    if kind in ("diag", "spherical"):
        return (parameters.covariances * white.diagonal().square()).amax(1)
    found = []
    for block in parameters.blocks() if kind == "full" else [slice(0, 1)]:
        matrices = white @ parameters.matrices(block) @ white.mT
        logs = matrices.new_zeros(len(matrices))
        for squaring in range(_SQUARINGS + 1):
            traces = matrices.diagonal(dim1=1, dim2=2).sum(1)
            logs += traces.log() / 2**squaring
            matrices = matrices / traces[:, None, None]
            if squaring < _SQUARINGS:
                matrices = matrices @ matrices
        found.append(logs.exp() * (1 + _ROUNDING))
    return torch.cat(found).expand(k)
