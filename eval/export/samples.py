"""Samples of a run in files, with their latents beside them."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from eval.export.output_folder import made_before, output_folder
from eval.image_sets.run_samples import Drawn, Sampling, drawn_from
from eval.images.blocks import BLOCK
from eval.images.files import BLOCKS_A_SHARD, write_pngs, write_tars
from eval.images.sources import block_latents
from eval.report.gallery import enlargement, grid, png, to_rgb
from eval.run import MeasuredRun
from trainer.process_group import Ranks


def write_samples(
    run: MeasuredRun, sampling: Sampling, out: Path, ranks: Ranks, *, n: int, file_format: str, steal: bool = False
) -> bool:
    """Writes n images and latents.safetensors, z (n, D), into the folder `out`; False where they are there already.

    The same files on any number of processes. steal: takes `out` from another job. Raises InputError where it
    holds anything that was not made here.
    """
    _require_memory(run, n, file_format)
    drawn = drawn_from(run, sampling)
    question: dict[str, Any] = {"format": file_format, **drawn.identity(run, sampling, n)}
    if ranks.any(ranks.agree(lambda: ranks.is_main and made_before(out, question) is not None)):
        return False
    with output_folder(out, question, ranks, steal=steal) as folder:
        whole = _written(drawn.images(run, sampling, ranks, n), folder, run, ranks, n, file_format)
        if ranks.is_main:
            z = _latents(drawn, sampling.seed, n)
            atomic.write_bytes(folder / "latents.safetensors", save({"z": z}))
            if whole is not None and file_format == "npz":
                with atomic.replacing(folder / "samples.npz") as file:
                    np.savez(file, whole.permute(0, 2, 3, 1).contiguous().numpy())
            elif whole is not None:
                rows = list(to_rgb(whole.float() / 255).split(math.ceil(n**0.5)))
                atomic.write_bytes(folder / "grid.png", png(grid(_filled(rows), enlarge=enlargement(whole.shape[-1]))))
    return True


def _require_memory(run: MeasuredRun, n: int, file_format: str) -> None:
    """Raises InputError where one file of n images does not fit into the memory of this machine."""
    if file_format not in ("npz", "grid"):
        return
    channels, height, width = run.model.image_shape
    # A grid is in colour and enlarged, and is held once more while it is encoded.
    each = channels * height * width if file_format == "npz" else 6 * height * width * enlargement(width) ** 2
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if n * each > memory:
        raise InputError(
            f"{n:,} images in one file take {n * each / 1e9:,.0f} GB of memory, and this machine has "
            f"{memory / 1e9:,.0f}; use --format png or shards",
            parameter="n",
        )


def _written(source: Any, folder: Path, run: MeasuredRun, ranks: Ranks, n: int, file_format: str) -> Tensor | None:
    """Writes this process's images as files, or returns all images, (n, C, H, W) uint8, where one file holds them."""
    kept = torch.zeros(n, *run.model.image_shape, dtype=torch.uint8) if file_format in ("npz", "grid") else None
    # A tar is written by one process, so that the tars do not depend on how many there are.
    together, blocks = BLOCKS_A_SHARD if file_format == "shards" else 1, -(-n // BLOCK)
    groups = ranks.partition(-(-blocks // together))
    mine = range(groups.start * together, min(groups.stop * together, blocks))

    def shown() -> Iterator[tuple[Tensor, Tensor]]:
        with Progress("samples", n, show=ranks.is_main) as bar:
            for done, (ids, images) in enumerate(source(mine), start=1):
                yield ids, images
                bar.update(min(n, done * BLOCK * ranks.world_size))

    if kept is None:
        for _ in (write_pngs if file_format == "png" else write_tars)(shown(), folder):
            pass
        return None
    for ids, images in shown():
        kept[ids] = images
    # Each image is on one process and zero on the others.
    return ranks.sum_(kept.to(ranks.device)).cpu()


def _latents(drawn: Drawn, seed: int, n: int) -> Tensor:
    return torch.cat([block_latents(drawn.sampler, seed, block) for block in range(-(-n // BLOCK))])[:n].contiguous()


def _filled(rows: list[Tensor]) -> list[Tensor]:
    """Rows of one length: white images fill the last."""
    missing = len(rows[0]) - len(rows[-1])
    white = rows[-1].new_full((missing, *rows[-1].shape[1:]), 255)
    return [*rows[:-1], torch.cat([rows[-1], white])]
