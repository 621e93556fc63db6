"""A trained run for notebooks and programs: sample, encode, decode, log-likelihoods, and the distance from real images.

    run = open_run("runs/demo")
    z, x = run.sample(64)

The same numbers as the commands of `python -m eval`, with the same seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from data_shards.io.errors import InputError, at_least
from eval.distance.comparison import measure_distance
from eval.images.blocks import BLOCK
from eval.images.densities import BY_OPTION, DENSITIES
from eval.images.sources import LoadedDensity, block_latents
from eval.measurements.posterior_samples import log_mean_exp, sample_many
from eval.questions import DEFAULT_COMPONENTS, DistanceQuestion
from eval.results import DistanceResult
from eval.run import MeasuredRun, load_run
from trainer.config.config import Config
from trainer.mixture.density import MixtureDensity
from trainer.networks.model import Likelihood, Posterior
from trainer.process_group import single


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """One set of weights of a run. Tensors are on the run's device; images have values in [0, 1]."""

    measured: MeasuredRun
    """The run as measurements see it: configuration, shards and model."""
    device: torch.device
    """Where the networks are."""
    components: int | None
    """Components of the mixture to use; None for the one that is fitted."""
    covariance: str
    """Covariance type of that mixture."""

    @property
    def config(self) -> Config:
        """The configuration of the training."""
        return self.measured.config

    @cached_property
    def mixture(self) -> MixtureDensity:
        """The mixture fitted to the codes of these weights. Raises InputError where none is, or it is not clear which.

        Where no number of components was given to `open_run`, it is the only mixture, or the default one of several.
        """
        return self.measured.mixture(self._components, self.covariance, self.device)

    @torch.inference_mode()
    def sample(self, n: int, *, density: str = "mixture", seed: int = 0) -> tuple[Tensor, Tensor]:
        """n latents (n, D) and their mean images (n, C, H, W).

        density: "mixture", "prior", "flow", "transported", which is the mixture's latents with transported images, or
        another name of `eval.images.densities.DENSITIES`. Image i is a function of (seed, i): those of
        `python -m eval fid` before they are rounded to 8 bits.
        """
        at_least(1, n=n)
        drawn_from = self._loaded(density)
        latents, images = [], []
        for block in range(-(-n // BLOCK)):
            z = block_latents(drawn_from.sampler, seed, block).to(self.device)
            x = self.measured.model.decode(z).mean
            latents.append(z)
            images.append(drawn_from.finish(z, x).clamp(0, 1) if drawn_from.finish else x)
        return torch.cat(latents)[:n], torch.cat(images)[:n]

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Posterior:
        """q(z|x) of images (B, C, H, W): `mean` and `std`, (B, D) each."""
        return self.measured.model.encode(self._images(x))

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Likelihood:
        """p(x|z) of latents (B, D): `mean` and `variance`, (B, C, H, W) each, in squared pixel units."""
        dim = self.measured.model.latent_dim
        if z.ndim != 2 or z.shape[1] != dim:
            raise InputError(f"shape {tuple(z.shape)} is not (B, {dim})", parameter="z")
        decoded = self.measured.model.decode(z.to(self.device, torch.float32))
        return decoded._replace(variance=decoded.variance.expand_as(decoded.mean))

    @torch.inference_mode()
    def log_likelihood(
        self,
        x: Tensor,
        *,
        samples: int = 20,
        density: str = "mixture",
        seed: int = 0,
    ) -> Tensor:
        """The importance-weighted bound on log p(x) of images (B, C, H, W), in nats: (B,) float64.

        samples: of q(z|x) for each image, at least 1; density: "mixture", "prior" or "flow", which takes the place of
        the prior. The noise of image i is a function of (seed, i). Memory does not grow with the number of samples.
        """
        at_least(1, samples=samples)
        prior, model = self._log_density(density), self.measured.model
        bounds = []
        for start, images in zip(range(0, len(x), BLOCK), self._images(x).split(BLOCK), strict=True):
            indices = range(start, start + len(images))
            drawn = sample_many(model, images, [prior], seed=seed, indices=indices, num_samples=samples)
            bounds.append(log_mean_exp(drawn.log_likelihood + drawn.prior_terms(prior) - drawn.log_posterior))
        return torch.cat(bounds) if bounds else torch.zeros(0, dtype=torch.float64, device=self.device)

    def distance(
        self,
        *,
        to: str = "test",
        n: int | None = None,
        density: str = "mixture",
        seed: int = 0,
        extractor: str = "efficientnet-lite0",
        also: Sequence[str] = (),
    ) -> DistanceResult:
        """The Frechet distance of n samples from the real images of split `to`, with its protocol.

        n: 10,000 where none is given, 50,000 against the training split; density: as for `sample`, or one of the other
        sources of `python -m eval fid`; extractor, also: see `DistanceQuestion`. The result is stored in RUN/eval, and
        read from there where the same was measured before.
        """
        source = BY_OPTION.get(density, density)
        if source == "half" and n is not None:
            raise InputError("half takes half of the split, whatever its size; leave it out", parameter="n")
        question = DistanceQuestion(
            source=source,
            n=n,
            split=to,
            seed=seed,
            mixture=self._components_for(source),
            covariance=self.covariance,
            extractor=extractor,
            also=tuple(also),
        )
        return measure_distance(self.measured, question, single(self.device))

    @cached_property
    def _components(self) -> int:
        return self.measured.components(self.covariance, self.components)

    def _components_for(self, source: str) -> int:
        """The components of the mixture where a source depends on it; else any number will do."""
        density = DENSITIES.get(source)
        return self._components if density and density.of_mixture else DEFAULT_COMPONENTS

    @cached_property
    def _densities(self) -> dict[str, LoadedDensity]:
        """Those that were loaded before."""
        return {}

    def _loaded(self, density: str) -> LoadedDensity:
        source = BY_OPTION.get(density, density)
        if source not in DENSITIES:
            raise InputError(f"{density!r} is unknown; use one of {', '.join(BY_OPTION)}", parameter="density")
        if source not in self._densities:
            load = DENSITIES[source].load
            self._densities[source] = load(self.measured, self._components_for(source), self.covariance)
        return self._densities[source]

    def _log_density(self, density: str) -> Callable[[Tensor], Tensor]:
        log_density = self._loaded(density).log_density
        if log_density is None:
            raise InputError(f"{density!r} has no density; use mixture, prior or flow", parameter="density")
        return log_density(self.device)

    def _images(self, x: Tensor) -> Tensor:
        shape = self.measured.model.image_shape
        if x.ndim != 4 or tuple(x.shape[1:]) != shape:
            raise InputError(f"shape {tuple(x.shape)} is not (B, {', '.join(map(str, shape))})", parameter="x")
        if not x.is_floating_point():
            raise InputError(f"pixels are {x.dtype}; give floating-point values in [0, 1]", parameter="x")
        return x.to(self.device, torch.float32)


def open_run(
    run: str | Path,
    *,
    weights: str = "final",
    device: str | torch.device = "cpu",
    mixture: int | None = None,
    covariance: str = "full",
) -> TrainedRun:
    """Loads a run folder.

    weights: "final" (the newest checkpoint), "stage1" (the end of stage 1) or "best" (the largest held-out ELBO of the
    newest stage); mixture: components of the fitted mixture to sample from, needed only where several are fitted;
    covariance: its type. Raises InputError where run, checkpoint or shards are missing.
    """
    measured = load_run(run, weights, device)
    return TrainedRun(measured=measured, device=torch.device(device), components=mixture, covariance=covariance)
