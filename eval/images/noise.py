"""Noise that belongs to an image and not to the process that measures it."""

from collections.abc import Iterable

import torch
from torch import Tensor

from trainer.noise import derived_seed


def seeded_generator(seed: int, purpose: str, item: int) -> torch.Generator:
    """A CPU generator whose stream is a function of (seed, purpose, item) alone."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, item))


def image_noise(seed: int, indices: Iterable[int], num_samples: int, latent_dim: int) -> Tensor:
    """Standard normal noise for the images `indices`, (K, B, D); image i's is a function of (seed, i) alone."""
    generators = [seeded_generator(seed, "posterior samples of an image", int(i)) for i in indices]
    return torch.stack([torch.randn(num_samples, latent_dim, generator=g) for g in generators], dim=1)
