"""What encoding a run's images and fitting mixtures to the codes will cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.manifest import Manifest
from trainer.dry_run import forward_operations
from trainer.run_folder.configurations import trained_configuration
from trainer.run_folder.restore import load_model

# EM iterations, annealed ones included, and k-means before them, which costs as much again.
_ITERATIONS = 120


def fit_operations(codes: int, dim: int, components: int) -> float:
    """Floating-point operations of a fit of full covariances to that many codes (N, dim)."""
    return 2.0 * codes * components * dim**2 * _ITERATIONS


@dataclass(frozen=True, kw_only=True)
class MixtureCost:
    """An estimate, before the start, of encoding the images of a run and fitting mixtures to the codes."""

    weights: int
    """Weights of the run's model."""
    shards: str
    """Where its images are."""
    codes: int
    """Images that are encoded: of the training split, and of the held-out split where there is one."""
    dim: int
    """Latent dimensions of a code."""
    operations: float
    """Floating-point operations of the whole job."""
    disk: float
    """Bytes of codes and mixtures."""


def estimate_cost(run: str | Path, components: Sequence[int]) -> MixtureCost:
    """The cost of one fit for each number of components. Raises InputError where run or shards are missing."""
    config = trained_configuration(run)
    model, manifest = load_model(run), Manifest.load(config.data.location)
    encoded = {config.data.train_split, config.data.valid_split} & set(manifest.splits)
    codes = sum(manifest.num_samples(split) for split in encoded)
    dim = model.latent_dim
    fits = sum(fit_operations(codes, dim, k) for k in components)
    return MixtureCost(
        weights=sum(weight.numel() for weight in model.parameters()),
        shards=config.data.shards,
        codes=codes,
        dim=dim,
        operations=codes * forward_operations(model) / 2 + fits,
        disk=codes * (8 * dim + 8) + sum(k * dim * (dim + 3) * 8 for k in components),
    )
