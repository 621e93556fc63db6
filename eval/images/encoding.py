"""The posterior q(z|x) of every image of a split, encoded once for each set of weights."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from data_shards.io.regular_files import read_regular
from eval.images.blocks import BLOCK, blocks_of
from eval.images.sources import from_shards
from eval.run import MeasuredRun
from trainer.process_group import Ranks
from trainer.run_folder import latents
from trainer.run_folder.holding import held_by_main


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Where the codes of a split lie."""

    folder: Path
    """RUN/latents/SPLIT, or RUN/latents/SPLIT-stage1."""
    images: int
    """Images encoded."""
    encoded_before: bool
    """True where the same weights had encoded the same images before."""


def require_splits(run: MeasuredRun, splits: list[str]) -> None:
    """Raises InputError where one of the splits is not in the run's shards."""
    for split in splits:
        if split not in run.manifest.splits:
            known = ", ".join(run.manifest.splits)
            raise InputError(f"{split!r} is not in {run.config.data.shards}; use one of {known}", parameter="split")


def encode_split(run: MeasuredRun, split: str, ranks: Ranks, *, steal: bool = False) -> Encoding:
    """Encodes a split unless the same weights have done so already. All processes take part.

    Writes one part-....safetensors a process, and encoding.json after the last. steal: takes the folder from another
    job that encodes into it. Raises InputError where there is one.
    """
    folder = latents.latents_folder(run.folder, split, weights=run.weights)
    n = run.manifest.num_samples(split)
    before = Encoding(folder=folder, images=n, encoded_before=True)
    if ranks.any(ranks.is_main and _can_be_read(run, split)):
        return before
    with held_by_main(folder, ranks, steal=steal) as lease:
        # Another job may have encoded it meanwhile.
        if ranks.any(ranks.is_main and _can_be_read(run, split)):
            return before
        if ranks.is_main:
            latents.remove(run.folder, split, weights=run.weights)
        ranks.barrier()
        codes = _encode(run, split, ranks)
        latents.write(run.folder, split, codes, weights=run.weights, part=ranks.rank, parts=ranks.world_size)
        ranks.barrier()
        if lease is not None:
            lease.check()
            write_json(folder / latents.RECORD, _record(run, split) | {"parts": ranks.world_size})
    return replace(before, encoded_before=False)


@torch.inference_mode()
def _encode(run: MeasuredRun, split: str, ranks: Ranks) -> latents.Latents:
    """This process's share of the codes of a split."""
    n, dim = run.manifest.num_samples(split), run.model.latent_dim
    mine = blocks_of(n, ranks)
    source = from_shards(run.config.data.location, split, n=n)
    means, deviations, indices = [torch.zeros(0, dim)], [torch.zeros(0, dim)], [torch.zeros(0, dtype=torch.int64)]
    with Progress(f"encoding {split}, {run.weights} weights", n, show=ranks.is_main) as bar:
        for done, (ids, images) in enumerate(source(mine), start=1):
            posterior = run.model.encode(images.to(ranks.device).float() / 255)
            means.append(posterior.mean.cpu())
            deviations.append(posterior.std.cpu())
            indices.append(ids)
            bar.update(min(n, done * BLOCK * ranks.world_size))
    return latents.Latents(mean=torch.cat(means), std=torch.cat(deviations), index=torch.cat(indices))


def is_encoded(run: MeasuredRun, split: str) -> bool:
    """True where a whole encoding of a split by these weights lies in the run folder."""
    folder = latents.latents_folder(run.folder, split, weights=run.weights)
    try:
        found = json.loads(read_regular(folder / latents.RECORD))
    except (FileNotFoundError, ValueError):
        return False
    return bool(found == {**_record(run, split), "parts": len(list(folder.glob("part-?????-of-?????.safetensors")))})


def _can_be_read(run: MeasuredRun, split: str) -> bool:
    """Whether a split is encoded and every part is whole: the messages about damaged codes say to encode again."""
    try:
        return is_encoded(run, split) and len(latents.read(run.folder, split, weights=run.weights).index) > 0
    except InputError:
        return False


def _record(run: MeasuredRun, split: str) -> dict[str, object]:
    """What the codes of a split are made from, see `latents.encoded_from`."""
    return {"checkpoint": run.checkpoint, "data": run.manifest.hash, "n": run.manifest.num_samples(split)}
