"""The latent codes of a run as what a fit takes: posteriors, their means, or one sample of each."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from trainer.process_group import Ranks
from trainer.run_folder import latents

FORMS = ("posterior", "mean", "sample")


class Encodings(NamedTuple):
    """x: (n, D); variance: (n, D) where codes are Gaussians q(z|x), else None; sample: (n, D), z ~ q(z|x)."""

    x: Tensor
    variance: Tensor | None
    sample: Tensor


class Split(NamedTuple):
    """Codes to fit to, held-out codes, and the source of the latter."""

    train: Encodings
    held_out: Encodings
    held_out_source: str


# Where a run has no validation split, every tenth image of the training split is held out.
_HELD_OUT_EVERY = 10


def read(run: str | Path, weights: str, form: str, seed: int, ranks: Ranks) -> Split:
    """This process's slice of the codes of split "train", and held-out codes: split "valid" where it is encoded, else
    every tenth image of "train", which is then left out of the fit."""
    train = latents.read(run, "train", weights=weights, part=ranks.rank, parts=ranks.world_size)
    if latents.exists(run, "valid", weights=weights):
        valid = latents.read(run, "valid", weights=weights, part=ranks.rank, parts=ranks.world_size)
        return Split(_encodings(train, form, seed), _encodings(valid, form, seed + 1), "split valid")
    held = train.index % _HELD_OUT_EVERY == 0
    if not ranks.any(bool(held.any())) or not ranks.any(bool((~held).any())):
        raise InputError(f"{run}: too few codes of split 'train' to hold some out; encode more images")
    kept, out = (latents.Latents(*(tensor[mask] for tensor in train)) for mask in (~held, held))
    source = f"every {_HELD_OUT_EVERY}th image of split train, left out of the fit"
    return Split(_encodings(kept, form, seed), _encodings(out, form, seed), source)


def _encodings(codes: latents.Latents, form: str, seed: int) -> Encodings:
    sample = codes.mean + codes.std * _noise(codes, seed)
    if form == "posterior":
        return Encodings(codes.mean, codes.std.square(), sample)
    return Encodings(codes.mean if form == "mean" else sample, None, sample)


def _noise(codes: latents.Latents, seed: int) -> Tensor:
    """(n, D) standard normal numbers that belong to the image, not to the process that reads it."""
    if not len(codes.index):
        return codes.mean.clone()
    generator = torch.Generator().manual_seed(seed)
    rows = int(codes.index.max()) + 1
    return torch.randn(rows, codes.mean.shape[1], generator=generator)[codes.index]
