"""The latent codes of a run that a mixture is fitted to, and those that are held out."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from trainer.process_group import Ranks
from trainer.run_folder import latents
from trainer.run_folder.configurations import own_splits


class Encodings(NamedTuple):
    """x: (n, D); variance: (n, D) where codes are Gaussians q(z|x), else None; sample: (n, D), z ~ q(z|x)."""

    x: Tensor
    variance: Tensor | None
    sample: Tensor


class Codes(NamedTuple):
    """Codes to fit to, held-out codes, and the source of the latter."""

    train: Encodings
    held_out: Encodings
    held_out_source: str


# Where a run has no validation split, every tenth image of the training split is held out.
_HELD_OUT_EVERY = 10


def read_codes(run: str | Path, weights: str, form: str, seed: int, ranks: Ranks) -> Codes:
    """This process's slice of the codes of the run's training split, and held-out codes: its held-out split where that
    is encoded, else every tenth image of the training split, which is then left out of the fit.

    Raises InputError where the processes see others.
    """
    train_split, valid_split = ranks.agree(lambda: own_splits(run))
    of_train = ranks.agree(lambda: latents.read(run, train_split, weights=weights))
    of_valid = ranks.agree(
        lambda: (
            latents.read(run, valid_split, weights=weights)
            if latents.exists(run, valid_split, weights=weights)
            else None
        )
    )
    facts = {
        f"codes of split {split}": "none" if codes is None else latents.digest(codes)
        for split, codes in ((train_split, of_train), (valid_split, of_valid))
    }
    ranks.refuse_differences(facts, "use a run folder on a disk that all machines share")
    train = _part(of_train, ranks)
    if of_valid is not None:
        valid = _part(of_valid, ranks)
        return Codes(_encodings(train, form, seed), _encodings(valid, form, seed + 1), f"split {valid_split}")
    held = train.index % _HELD_OUT_EVERY == 0
    if not ranks.any(bool(held.any())) or not ranks.any(bool((~held).any())):
        raise InputError(f"{run}: too few codes of split {train_split!r} to hold some out; encode more images")
    kept, out = (latents.Latents(*(tensor[mask] for tensor in train)) for mask in (~held, held))
    source = f"every {_HELD_OUT_EVERY}th image of split {train_split}, left out of the fit"
    return Codes(_encodings(kept, form, seed), _encodings(out, form, seed), source)


def _part(codes: latents.Latents, ranks: Ranks) -> latents.Latents:
    """This process's part of all codes."""
    own = ranks.partition(len(codes.index))
    return latents.Latents(*(tensor[own.start : own.stop] for tensor in codes))


def _encodings(codes: latents.Latents, form: str, seed: int) -> Encodings:
    sample = codes.mean + codes.std * _noise(codes, seed)
    if form == "posterior":
        return Encodings(codes.mean, codes.std.square(), sample)
    return Encodings(codes.mean if form == "mean" else sample, None, sample)


def _noise(codes: latents.Latents, seed: int) -> Tensor:
    """(n, D) standard normal numbers that depend on the image only, not on the process that reads it."""
    if not len(codes.index):
        return codes.mean.clone()
    generator = torch.Generator().manual_seed(seed)
    rows = int(codes.index.max()) + 1
    return torch.randn(rows, codes.mean.shape[1], generator=generator)[codes.index]
