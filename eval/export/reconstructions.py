"""A run's reconstructions of images, each beside its image with maps of its error and of its predicted deviation."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.errors import InputError, machine_faults
from data_shards.io.progress import Progress
from eval.export.output_folder import made_before, output_folder
from eval.export.own_images import names_of
from eval.image_sets.image_set import ImageSet
from eval.image_sets.remarks import remarks_of
from eval.images.blocks import BLOCK, blocks_of, gathered
from eval.protocol import fingerprint
from eval.report.gallery import deviation, enlargement, grid, heat, png, scale_of, to_rgb
from eval.run import MeasuredRun
from trainer.process_group import Ranks

COLUMNS = ("mean_square_error", "mean_deviation", "mean_square_of_error_in_deviations")
"""Squared pixel units; pixel units; 1 where the predicted deviations are right on average."""


@dataclass(frozen=True, kw_only=True)
class Reconstructions:
    """What was written."""

    images: int
    """Images that could be read."""
    remarks: tuple[str, ...] = ()
    """What was decided about them."""
    made_before: bool
    """Whether it was there already."""


def write_reconstructions(
    run: MeasuredRun, images: ImageSet, out: Path, ranks: Ranks, *, skip_bad: int, steal: bool = False
) -> Reconstructions:
    """Writes into `out` a PNG for each image, sigma.safetensors, and reconstructions.csv, unless they are there.

    Each PNG has four pictures: the image, g(mu(x)), |x - g|, and sigma of each pixel; the two maps have one scale over
    all images, which made.json has. images: made by the run's recipe. Raises
    InputError where more than `skip_bad` images cannot be read, or `out` holds anything that was not made here.
    """
    question: dict[str, Any] = {
        "reconstructions": dict(images.identity),
        "names": fingerprint({"names": names_of(images)}),
        "checkpoint": run.checkpoint,
    }
    known = ranks.agree(lambda: made_before(out, question) if ranks.is_main else None)
    if ranks.any(known is not None):
        left_out = 0 if known is None else known.get("left_out", 0)
        if ranks.any(left_out > skip_bad):
            raise InputError(f"{out} leaves out {left_out} images that cannot be read; add --skip-bad {left_out}")
        return Reconstructions(images=images.n - left_out, made_before=True)
    sigma, error, table = _measured(run, images, ranks)
    remarks = remarks_of(images, ranks, skip_bad=skip_bad)
    read = table[:, 0] > 0
    scale = scale_of(sigma[read], error[read])
    facts = {"darkest": scale[0], "brightest": scale[1], "left_out": int((~read).sum())}
    with output_folder(out, question, ranks, facts, steal=steal) as folder:
        for ids, x, g in _decoded(run, images, ranks):
            rows = (to_rgb(x), to_rgb(g), heat(error[ids], scale), heat(sigma[ids], scale))
            for place, image_id in enumerate(ids.tolist()):
                strip = grid([torch.stack([row[place].cpu() for row in rows])], enlarge=enlargement(x.shape[-1]))
                path = folder / f"{image_id:08d}.png"
                with machine_faults(path):
                    path.write_bytes(png(strip))
        if ranks.is_main:
            atomic.write_bytes(folder / "sigma.safetensors", save({"sigma": sigma}))
            atomic.write_text(folder / "reconstructions.csv", _csv(names_of(images), table))
    return Reconstructions(images=int(read.sum()), remarks=tuple(remarks), made_before=False)


@torch.inference_mode()
def _decoded(run: MeasuredRun, images: ImageSet, ranks: Ranks) -> Any:
    """This process's (ids, images, mean images), (B, C, H, W) in [0, 1]."""
    for ids, found in images.images(blocks_of(images.n, ranks)):
        pixels = found if isinstance(found, Tensor) else torch.stack(list(found))
        x = pixels.to(ranks.device).float() / 255
        yield ids, x, run.model.decode(run.model.encode(x).mean).mean


@torch.inference_mode()
def _measured(run: MeasuredRun, images: ImageSet, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """sigma and |x - g|, (n, C, H, W) float32, and a row an image: read or not, then COLUMNS; on every process."""
    sigma = torch.zeros(images.n, *run.model.image_shape)
    error = torch.zeros_like(sigma)
    table = torch.zeros(images.n, 1 + len(COLUMNS), dtype=torch.float64)
    with Progress(f"reconstructions of {images.name}", images.n, show=ranks.is_main) as bar:
        for done, (ids, found) in enumerate(images.images(blocks_of(images.n, ranks)), start=1):
            pixels = found if isinstance(found, Tensor) else torch.stack(list(found))
            x = pixels.to(ranks.device).float() / 255
            decoded = run.model.decode(run.model.encode(x).mean)
            spread, away = deviation(decoded).cpu(), (x - decoded.mean).abs().cpu()
            sigma[ids], error[ids] = spread, away
            square, variance = away.double().square(), spread.double().square()
            columns = (square, spread.double(), square / variance)
            table[ids, 1:] = torch.stack([column.flatten(1).mean(1) for column in columns], dim=1)
            table[ids, 0] = 1
            bar.update(min(images.n, done * BLOCK * ranks.world_size))
    return gathered(sigma, ranks), gathered(error, ranks), gathered(table, ranks)


def _csv(names: Any, table: Tensor) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "image", *COLUMNS])
    for number, (name, row) in enumerate(zip(names, table.tolist(), strict=True)):
        if row[0]:
            writer.writerow([f"{number:08d}.png", name, *row[1:]])
    return text.getvalue()
