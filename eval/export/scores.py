"""A score for each image of a set: how likely it is under a run, alone and against a general image coder.

Likelihoods are highest for smooth images, whatever the model was trained on. The ratio to the probability that a coder
for any image gives them, 2^-bits of their PNG file, takes that away (Serra et al. 2020).
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor

from data_shards.io.progress import Progress
from eval.export.own_images import ChosenDensity, names_of
from eval.image_sets.image_set import ImageSet
from eval.images.blocks import BLOCK, blocks_of, gathered
from eval.images.files import png_bytes
from eval.measurements.annealed import Annealing, annealed_bound, joint_density
from eval.measurements.posterior_samples import effective_samples, log_mean_exp, sample_many
from eval.protocol import fingerprint
from eval.run import MeasuredRun
from trainer.process_group import Ranks

COLUMNS = ("log_likelihood", "log_likelihood_ratio", "effective_samples", "mean_square_error")
"""Nats per image of pixels in [0, 1]; nats; samples; squared pixel units."""
ANNEALED = ("annealed_log_likelihood", "acceptance")
"""The tighter bound in nats, and what part of its trajectories was accepted."""
_VERSION = 1  # of these definitions
_DIRECTIONS = {"log_likelihood": "likelihood", "log_likelihood_ratio": "likelihood ratio to PNG"}


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How the images of a set are scored."""

    density: ChosenDensity
    """The density of the latents."""
    samples: int
    """Samples of q(z|x) for each image."""
    seed: int
    """Of their noise."""
    annealing: Annealing | None
    """What the tighter bound costs; None leaves its columns out."""


@torch.no_grad()
def scores(run: MeasuredRun, images: ImageSet, scoring: Scoring, ranks: Ranks) -> Tensor:
    """(n, 4) float64 by COLUMNS, (n, 6) with ANNEALED; NaN for images that cannot be read; the same on every process.

    images: made by the run's recipe.
    """
    prior, seed, annealing = scoring.density.log_density, scoring.seed, scoring.annealing
    columns = 1 + len(COLUMNS) + (len(ANNEALED) if annealing else 0)
    table = torch.zeros(images.n, columns, dtype=torch.float64)  # the first column: whether it was read
    with Progress(f"scores of {images.name}", images.n, show=ranks.is_main) as bar:
        for done, (ids, found) in enumerate(images.images(blocks_of(images.n, ranks)), start=1):
            pixels = found if isinstance(found, Tensor) else torch.stack(list(found))
            x = pixels.to(ranks.device).float() / 255  # (B, C, H, W)
            drawn = sample_many(run.model, x, [prior], seed=seed, indices=ids.tolist(), num_samples=scoring.samples)
            log_ratio = drawn.prior_terms(prior) - drawn.log_posterior  # (K, B)
            log_weights = drawn.log_likelihood + log_ratio
            values = [
                torch.ones(len(ids), dtype=torch.float64),
                log_mean_exp(log_weights),
                log_mean_exp(drawn.log_discretised + log_ratio) + _png_nats(pixels).to(ranks.device),
                effective_samples(log_weights),
                drawn.square_error.mean(0),
            ]
            if annealing is not None:
                joint = joint_density(run.model.decode, x, prior)
                found_bound = annealed_bound(run.model.encode(x), joint, ids.tolist(), annealing, seed=seed)
                values += [found_bound.bound, found_bound.acceptance]
            table[ids] = torch.stack([value.cpu() for value in values], dim=1)
            bar.update(min(images.n, done * BLOCK * ranks.world_size))
    table = gathered(table, ranks)
    return torch.where(table[:, :1] > 0, table[:, 1:], torch.nan)


def _png_nats(images: Tensor) -> Tensor:
    """-log of the probability that a PNG coder gives images (B, C, H, W) uint8: (B,) float64."""
    return torch.tensor([8 * math.log(2) * len(png_bytes(image.cpu())) for image in images], dtype=torch.float64)


def score_question(run: MeasuredRun, images: ImageSet, scoring: Scoring) -> dict[str, Any]:
    """Everything that the table of a set's scores depends on, as JSON."""
    return {
        "scores": dict(images.identity),
        "names": fingerprint({"names": names_of(images)}),
        "checkpoint": run.checkpoint,
        **scoring.density.identity,
        "samples": scoring.samples,
        "seed": scoring.seed,
        "annealing": None if scoring.annealing is None else asdict(scoring.annealing),
        "precision": torch.get_float32_matmul_precision(),
        "version": _VERSION,
    }


def to_csv(names: Sequence[str], table: Tensor) -> str:
    """The table with the images' names; images that could not be read are left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *COLUMNS, *ANNEALED][: 1 + table.shape[1]])
    for name, row in zip(names, table.tolist(), strict=True):
        if not math.isnan(row[0]):
            writer.writerow([name, *row])
    return text.getvalue()


def from_csv(text: str) -> Tensor:
    """The numbers of a table that `to_csv` wrote."""
    rows = list(csv.reader(io.StringIO(text)))[1:]
    return torch.tensor([[float(value) for value in row[1:]] for row in rows], dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """How well a score separates the images of two sets."""

    score: str
    """Which."""
    auroc: float
    """Chance that an image of the first set has the larger score than one of the second; ties count half."""


def detections(inside: Tensor, outside: Tensor) -> list[Detection]:
    """The AUROC of each score between images of the run's kind (n, 4) and others (m, 4), see `scores`."""
    return [
        Detection(score=title, auroc=auroc(_read(inside[:, column]), _read(outside[:, column])))
        for column, title in ((COLUMNS.index(name), title) for name, title in _DIRECTIONS.items())
    ]


def _read(column: Tensor) -> list[float]:
    return [value for value in column.tolist() if not math.isnan(value)]


def auroc(larger: Iterable[float], smaller: Iterable[float]) -> float:
    """The area under the ROC curve of a score that should be larger for the first values than for the second."""
    first, second = list(larger), list(smaller)
    ranks = rankdata([*first, *second])[: len(first)]
    return float((ranks.sum() - len(first) * (len(first) + 1) / 2) / (len(first) * len(second)))
