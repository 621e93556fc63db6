"""`python -m eval encode`: the posterior q(z|x) of every image of a split, which the mixture is fitted to."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from eval.images.blocks import BLOCK, blocks_of
from eval.images.sources import from_shards
from eval.run import MeasuredRun, open_run
from trainer.process_group import Ranks, process_group
from trainer.run_folder import latents
from trainer.run_folder.checkpoint import fingerprint

_RECORD = "encoding.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval encode`."""
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--weights", default="final", choices=("final", "stage1"), help="which weights encode")
    parser.add_argument(
        "--split", nargs="+", default=["train", "valid"], help="splits to encode; those already done are left alone"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the encoder runs")


def run(args: argparse.Namespace) -> None:
    """Writes RUN/latents/SPLIT[-stage1]/part-....safetensors, one part a process, and encoding.json after the last."""
    with process_group(args.device) as ranks:
        measured = open_run(args.run, args.weights, ranks.device)
        for split in args.split:
            if split not in measured.manifest.splits:
                known = ", ".join(measured.manifest.splits)
                raise InputError(f"--split: {split!r} is not in {measured.config.data.shards}; use one of {known}")
        for split in args.split:
            encode_split(measured, split, ranks)


def encode_split(run: MeasuredRun, split: str, ranks: Ranks) -> None:
    """Encodes one split unless the same weights have done so already. All processes take part."""
    folder = latents.latents_folder(run.folder, split, weights=run.weights)
    n = run.manifest.num_samples(split)
    record = {"checkpoint": f"{fingerprint(run.model.state_dict()):016x}", "data": run.manifest.hash, "n": n}
    if ranks.any(ranks.is_main and _finished(folder, record)):
        if ranks.is_main:
            print(f"{folder}: {n:,} images were encoded before with these weights")
        return
    if ranks.is_main:
        (folder / _RECORD).unlink(missing_ok=True)
        for stale in folder.glob("part-*.safetensors"):
            stale.unlink()
    ranks.barrier()
    codes = encode(run, split, ranks)
    latents.write(run.folder, split, codes, weights=run.weights, part=ranks.rank, parts=ranks.world_size)
    ranks.barrier()
    if ranks.is_main:
        write_json(folder / _RECORD, record | {"parts": ranks.world_size})
        print(f"{folder}: {n:,} images encoded")


@torch.inference_mode()
def encode(run: MeasuredRun, split: str, ranks: Ranks) -> latents.Latents:
    """This process's share of the codes of a split."""
    n, dim = run.manifest.num_samples(split), run.model.latent_dim
    mine = blocks_of(n, ranks)
    source = from_shards(run.config.data.shards, split, n=n)
    means, deviations, indices = [torch.zeros(0, dim)], [torch.zeros(0, dim)], [torch.zeros(0, dtype=torch.int64)]
    with Progress(f"encoding {split}, {run.weights} weights", n, show=ranks.is_main) as bar:
        for done, (ids, images) in enumerate(source(mine), start=1):
            posterior = run.model.encode(images.to(ranks.device).float() / 255)
            means.append(posterior.mean.cpu())
            deviations.append(posterior.std.cpu())
            indices.append(ids)
            bar.update(min(n, done * BLOCK * ranks.world_size))
    return latents.Latents(mean=torch.cat(means), std=torch.cat(deviations), index=torch.cat(indices))


def _finished(folder: Path, record: dict[str, Any]) -> bool:
    """True where a whole encoding by the same weights of the same data lies in `folder`."""
    try:
        found = json.loads((folder / _RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return found == record | {"parts": len(list(folder.glob("part-*.safetensors")))}
