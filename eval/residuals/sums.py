"""Sums over the standardised residuals of a split, from which covariances are estimated; added over processes.

Of small images the second moments are kept whole. Of large ones a sketch of them is (Halko, Martinsson and Tropp 2011),
then the second moments in the directions that it found: two passes, O(d r) memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eval.images.blocks import image_noise, own_places, subset_blocks
from eval.run import MeasuredRun
from trainer.mixture.density import MixtureDensity
from trainer.process_group import Ranks

# Residuals that are sorted by component at a time: 4,096, or fewer of large images.
_CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """The residuals of some images of a split, one code z ~ q(z|x) an image."""

    run: MeasuredRun
    """Whose residuals."""
    split: str
    """Split of the images."""
    indices: np.ndarray
    """Their indices, increasing, (N,)."""
    mixture: MixtureDensity | None
    """Residuals are grouped by its components; None: one group."""
    seed: int
    """Seed of the codes; image i's is a function of (seed, i)."""
    ranks: Ranks
    """The processes that share the images."""

    @property
    def components(self) -> int:
        """K, 1 without a mixture."""
        return self.mixture.parameters.n_components if self.mixture else 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's residuals (n, d) float64 and their components (n,) int64, some at a time."""
        waiting: list[tuple[Tensor, Tensor]] = []
        most = max(1, _CHUNK_NUMBERS // self.run.model.pixels)
        for u, component in self._blocks():
            waiting.append((u, component))
            if sum(len(part) for part, _ in waiting) >= most:
                yield torch.cat([part for part, _ in waiting]), torch.cat([part for _, part in waiting])
                waiting = []
        if waiting:
            yield torch.cat([part for part, _ in waiting]), torch.cat([part for _, part in waiting])

    @torch.no_grad()
    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        model, location = self.run.model, self.run.config.data.location
        for _, index, x in subset_blocks(location, self.split, self.indices, self.ranks):
            posterior = model.encode(x)
            noise = image_noise(self.seed, index.tolist(), 1, model.latent_dim)[0].to(x.device)
            z = posterior.mean + posterior.std * noise  # (B, D)
            output = model.decode(z)
            u = ((x - output.mean).double() / output.variance.double().sqrt()).flatten(1)  # (B, d)
            component = self.mixture.predict(z) if self.mixture else torch.zeros(len(z), dtype=torch.int64)
            yield u, component.to(u.device)

    @property
    def own(self) -> int:
        """How many images this process handles."""
        return len(own_places(len(self.indices), self.ranks))


@dataclass(frozen=True, kw_only=True)
class SecondMoments:
    """Second moments about 0 of residuals in P directions."""

    count: Tensor
    """Residuals of each component, (K,)."""
    products: Tensor
    """Sums of u u^T of each component, (K, P, P)."""
    squares: Tensor
    """Sum of u^2 over all, (d,)."""

    @property
    def pooled(self) -> Tensor:
        """The second moment of all residuals, (P, P)."""
        return self.products.sum(0) / self.count.sum()

    @property
    def variance(self) -> Tensor:
        """Of each pixel, (d,)."""
        return self.squares / self.count.sum()


def moments(residuals: Residuals, basis: Tensor | None, progress: Callable[[int], None]) -> SecondMoments:
    """The second moments of all processes' residuals, in all pixels or in the columns of `basis`, (d, P).

    progress: called with the number of images of each chunk.
    """
    d, device = residuals.run.model.pixels, residuals.ranks.device
    P, K = d if basis is None else basis.shape[1], residuals.components
    count = torch.zeros(K, dtype=torch.float64, device=device)
    products = torch.zeros(K, P, P, dtype=torch.float64, device=device)
    squares = torch.zeros(d, dtype=torch.float64, device=device)
    for u, component in residuals:
        squares += u.square().sum(0)
        points = u if basis is None else u @ basis
        count += torch.bincount(component, minlength=K)
        for k in component.unique().tolist():
            own = points[component == k]
            products[k] += own.mT @ own
        progress(len(u))
    for total in (count, products, squares):
        total.copy_(residuals.ranks.sum_(total))
    return SecondMoments(count=count, products=products, squares=squares)


def directions(residuals: Residuals, width: int, seed: int, progress: Callable[[int], None]) -> Tensor:
    """`width` orthonormal directions that hold most of the residuals' variance, (d, width), from one pass.

    The second moment C is applied to random directions Omega; the eigenvectors of its Nystrom approximation
    C Omega (Omega^T C Omega)^-1 (C Omega)^T are the directions, the largest eigenvalue first (Tropp et al. 2017).
    """
    d, device = residuals.run.model.pixels, residuals.ranks.device
    random = torch.randn(d, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    omega = torch.linalg.qr(random)[0].to(device)  # (d, width)
    sketch = torch.zeros_like(omega)
    for u, _ in residuals:
        sketch += u.mT @ (u @ omega)
        progress(len(u))
    sketch = residuals.ranks.sum_(sketch) / len(residuals.indices)
    # A shift of the size of rounding keeps the Cholesky factor real; it moves no direction.
    shift = torch.finfo(torch.float64).eps * float(sketch.norm()) * d**0.5
    sketch = sketch + shift * omega
    inner = omega.mT @ sketch
    cholesky = torch.linalg.cholesky((inner + inner.mT) / 2)
    root = torch.linalg.solve_triangular(cholesky, sketch.mT, upper=False).mT  # (d, width)
    return torch.linalg.svd(root, full_matrices=False)[0]
