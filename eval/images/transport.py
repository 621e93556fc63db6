"""The transport of a run's mean images to the distribution of real images, fitted in one pass over the training images.

A mean image is the best guess under square error, and is therefore smoother than any real image. The map of least
change that gives such guesses the distribution of real images is an optimal transport (Freirich et al. 2021), and
between Gaussians it has a closed form. Here each component of the mixture has its own: from the mean and covariance of
its samples' g(z) to those of the training images x whose codes, drawn from q(z|x), belong to it.

No network is trained and no extractor is used. The two choices follow from the model. A direction in which mean images
vary by less than half the square error of a pixel, the floor of Algorithm 1, is noise to them, so that much is added to
the variance that is divided by. A component whose weight amounts to fewer images than half the directions has no
covariance of its own; all such components share a map, each around its own means. Rounds of monotone maps of single
coefficients may follow (`eval.images.marginals`).

`eval.images.stored_transport` writes and reads it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from eval.images.blocks import BLOCK, block_ids, blocks_of
from eval.images.marginals import Marginals, fit_marginals
from eval.images.optimal_map import MomentSums, optimal_maps
from eval.images.sources import from_shards, mixture_sampler
from eval.run import MeasuredRun
from trainer.full_precision import full_precision
from trainer.mixture.density import MixtureDensity
from trainer.noise import seeded_generator
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import fingerprint

MOST_DIRECTIONS = 1024
"""P: pixels where an image has no more, else this many principal directions of training images."""
_IMAGES_FOR_BASIS = 8192
# Blocks whose images are sorted by component at a time.
_CHUNK_BLOCKS = 64
_PIXELS_FOR_MARGINALS = 100_000_000
TENSORS = ("source", "target", "maps", "group", "basis")
"""The tensors of a linear transport, by their names here and in its file."""


@dataclass(frozen=True, kw_only=True)
class Transport:
    """Moves the mean image g(z), for z of component k, to A_k (g(z) - source_k) + target_k, and on by `marginals`.

    Images are transported in P directions, the columns of `basis`; their parts outside of these stay as they are. A
    transported pixel may leave [0, 1], and is cut to 0 or 1 where an image is written, shown or compared.
    """

    mixture: MixtureDensity
    """Whose components latents belong to."""
    source: Tensor
    """(K, P) float32, the mean of mean images of each component."""
    target: Tensor
    """(K, P) float32, the mean of its real images."""
    maps: Tensor
    """(M, P, P) float32, the different A_k."""
    group: Tensor
    """(K,) int64, which of them is A_k."""
    basis: Tensor | None
    """(d, P) float32 with orthonormal columns; None where P = d, for pixels themselves."""
    marginals: Marginals | None = None
    """Rounds of monotone maps, in all pixels."""

    @cached_property
    def _elsewhere(self) -> dict[torch.device, "Transport"]:
        """The same on other devices."""
        return {}

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that differ between different transports."""
        tensors = {"source": self.source, "target": self.target, "maps": self.maps, "group": self.group}
        tensors |= {"weights": self.mixture.weights, "means": self.mixture.means}
        if self.marginals is not None:
            tensors |= vars(self.marginals)
        return f"{fingerprint(tensors):016x}"

    @full_precision()
    @torch.inference_mode()
    def apply(self, z: Tensor, images: Tensor) -> Tensor:
        """Transports samples by the map of the most responsible component, on the device of the images.

        images: (B, C, H, W), the g(z) of latents z, (B, D). Returns (B, C, H, W), not cut to [0, 1].
        """
        there = self._on(images.device)
        return there._moved(images, partial(there._by_component, z.to(images.device)))

    @full_precision()
    @torch.inference_mode()
    def walk(self, z: Tensor, images: Tensor) -> Tensor:
        """Transports the images of a walk: the maps of all components, each weighed by its responsibility for z.

        Continuous in z, where `apply` jumps as the most responsible component changes. Shapes as there.
        """
        there = self._on(images.device)
        return there._moved(images, partial(there._by_responsibility, z.to(images.device)))

    def _by_component(self, z: Tensor, points: Tensor) -> Tensor:
        component = self.mixture.predict(z)
        moved = torch.empty_like(points)
        for k in component.unique().tolist():
            own = component == k
            moved[own] = (points[own] - self.source[k]) @ self.maps[self.group[k]].mT + self.target[k]
        return moved

    def _by_responsibility(self, z: Tensor, points: Tensor) -> Tensor:
        # sum_k r_k (A_k (g - source_k) + target_k), with one product for each different map.
        weights = self.mixture.predict_proba(z).to(points)  # (B, K)
        moved = weights @ self.target  # (B, P)
        for group in range(len(self.maps)):
            of_group = weights * (self.group == group)
            centred = of_group.sum(1, keepdim=True) * points - of_group @ self.source
            moved += centred @ self.maps[group].mT
        return moved

    def _on(self, device: torch.device) -> "Transport":
        """The same on a device, kept for the next images."""
        if self.maps.device == device:
            return self
        if device not in self._elsewhere:
            tensors = {name: t.to(device) for name in TENSORS if (t := getattr(self, name)) is not None}
            mixture = MixtureDensity(self.mixture.parameters.to(device))
            rounds = self.marginals
            if rounds is not None:
                rounds = Marginals(source=rounds.source.to(device), target=rounds.target.to(device))
            self._elsewhere[device] = dataclasses.replace(self, mixture=mixture, marginals=rounds, **tensors)
        return self._elsewhere[device]

    def _moved(self, images: Tensor, transported: Callable[[Tensor], Tensor]) -> Tensor:
        """Images whose coordinates in the P directions, (B, P), were moved by a function, then by the marginals."""
        flat = images.flatten(1)  # (B, d)
        points = flat if self.basis is None else flat @ self.basis  # (B, P)
        new = transported(points)
        moved = new if self.basis is None else flat + (new - points) @ self.basis.mT
        linear = moved.view(images.shape)
        return linear if self.marginals is None else self.marginals.apply(linear)


@dataclass(frozen=True, kw_only=True)
class FittedTransport:
    """A transport and what its fit found."""

    transport: Transport
    """The maps."""
    square_error: float
    """Mean over training images and pixels of (g(z) - x)^2, z from q(z|x): equation 9."""
    shared: int
    """Components that share one map."""
    images: tuple[int, int]
    """The fewest and the most training images of a component."""


@torch.inference_mode()
def fit_transport(
    run: MeasuredRun,
    mixture: MixtureDensity,
    ranks: Ranks,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda images: None,
) -> FittedTransport:
    """The transport of a run's mean images, the same on every process.

    progress: called with the number of images seen. Holds 2 M P^2 numbers of 8 bytes for M different maps.
    """
    split, pixels = run.config.data.train_split, run.model.pixels
    n = run.manifest.num_samples(split)
    basis = None if pixels <= MOST_DIRECTIONS else principal_directions(run, seed).to(ranks.device)
    dim = pixels if basis is None else basis.shape[1]
    there = MixtureDensity(mixture.parameters.to(ranks.device))
    own = there.weights * n >= dim / 2  # (K,)
    # Group 0 is that of all components without a covariance of their own; it is left out where every one has.
    group = torch.where(own, own.cumsum(0) - int(own.all()), 0)
    real, mean_images = MomentSums(group, dim), MomentSums(group, dim)
    error = torch.zeros(1, dtype=torch.float64, device=ranks.device)
    mine = blocks_of(n, ranks)
    for start in range(0, len(mine), _CHUNK_BLOCKS):
        blocks = mine[start : start + _CHUNK_BLOCKS]
        x, code, square = _real(run, blocks, n, seed, ranks)
        error += square
        z, g = _samples(run, mixture, blocks, n, seed, ranks)
        with full_precision():
            for sums, images, latents in ((real, x, code), (mean_images, g, z)):
                sums.add((images if basis is None else images @ basis).double(), there.predict(latents))
        progress(min(n, (start + _CHUNK_BLOCKS) * BLOCK * ranks.world_size))
    square_error = float(ranks.sum_(error)) / (n * pixels)
    target, source = real.moments(ranks), mean_images.moments(ranks)
    ridge = square_error / 2 * torch.eye(dim, dtype=torch.float64, device=ranks.device)
    transport = Transport(
        mixture=mixture,
        source=source.mean.float().cpu(),
        target=target.mean.float().cpu(),
        maps=optimal_maps(source.covariance + ridge, target.covariance).cpu(),
        group=group.cpu(),
        basis=None if basis is None else basis.cpu(),
    )
    counts = target.count.int()
    return FittedTransport(
        transport=transport,
        square_error=square_error,
        shared=int((~own).sum()),
        images=(int(counts.min()), int(counts.max())),
    )


def _real(run: MeasuredRun, blocks: range, n: int, seed: int, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Training images, (m, d) in [0, 1], a code of each, (m, D), and the summed square error of their mean images.

    On the processes' devices, as all of a fit.
    """
    source = from_shards(run.config.data.location, run.config.data.train_split, n=n)
    images, codes, square = [], [], torch.zeros((), dtype=torch.float64, device=ranks.device)
    for block, (_, found) in zip(blocks, source(blocks), strict=True):
        x = found.to(ranks.device).float() / 255  # (B, C, H, W)
        posterior = run.model.encode(x)
        noise = torch.randn(BLOCK, run.model.latent_dim, generator=seeded_generator(seed, "transport codes", block))
        z = posterior.mean + posterior.std * noise[: len(x)].to(ranks.device)  # (B, D)
        square += (run.model.decode(z).mean - x).double().square().sum()
        images.append(x.flatten(1))
        codes.append(z)
    return torch.cat(images), torch.cat(codes), square


def _samples(
    run: MeasuredRun, mixture: MixtureDensity, blocks: range, n: int, seed: int, ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """As many latents drawn from the mixture, (m, D), and their mean images, (m, d)."""
    sampler = mixture_sampler(mixture.parameters)
    latents, images = [], []
    for block in blocks:
        z = sampler(seeded_generator(seed, "transport samples", block))[: len(block_ids(block, n))].to(ranks.device)
        latents.append(z)
        images.append(run.model.decode(z).mean.flatten(1))
    return torch.cat(latents), torch.cat(images)


@full_precision()
@torch.inference_mode()
def marginals_after(run: MeasuredRun, transport: Transport, rounds: int, ranks: Ranks, *, seed: int = 0) -> Marginals:
    """The rounds of monotone maps that follow a linear transport, from training images and as many samples."""
    split = run.config.data.train_split
    n = min(run.manifest.num_samples(split), max(1, _PIXELS_FOR_MARGINALS // run.model.pixels))
    blocks = range(-(-n // BLOCK))
    source = from_shards(run.config.data.location, split, n=n, shuffle=True, seed=seed)
    real = torch.cat([images for _, images in source(blocks)]).to(ranks.device).float() / 255
    z, g = _samples(run, transport.mixture, blocks, n, seed, ranks)
    parts = zip(z.split(1024), g.view(real.shape).split(1024), strict=True)
    return fit_marginals(real, torch.cat([transport.apply(*part) for part in parts]), rounds)


@full_precision()
def principal_directions(run: MeasuredRun, seed: int) -> Tensor:
    """The directions in which training images vary most, (d, P) with orthonormal columns."""
    split = run.config.data.train_split
    n = min(_IMAGES_FOR_BASIS, run.manifest.num_samples(split))
    source = from_shards(run.config.data.location, split, n=n, shuffle=True, seed=seed)
    blocks = range(-(-n // BLOCK))
    x = torch.cat([images.flatten(1).float() / 255 for _, images in source(blocks)])  # (n, d)
    directions = min(MOST_DIRECTIONS, n, x.shape[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.pca_lowrank(x, q=directions)[2].contiguous()
