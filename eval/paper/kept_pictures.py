"""Pictures of trained weights that are kept after their run folder is gone."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.io.atomic import write_bytes
from eval.paper.drawings import picture_path
from eval.paper.jobs import Job, Training
from eval.paper.record import Record
from eval.report.document import Picture


@dataclass(frozen=True, kw_only=True)
class KeptPictures:
    """The pictures of one data set, and whose they may be."""

    folder: Path
    """Where they lie."""
    trainings: Collection[str]
    """Names of the trainings of which something is known. A picture of another is of a former plan."""

    def of(self, training: Training, name: str, caption: str, *, pixels: bool = True) -> list[Picture]:
        """The picture of that name of a training; empty where it was not drawn."""
        path = self.folder / picture_path(Path(training.name), name).name
        if training.name not in self.trainings or not path.exists():
            return []
        return [Picture(name=path.stem, caption=caption, data=path.read_bytes(), pixels=pixels)]


def keep_pictures(
    folder: Path, jobs: Sequence[Job], runs: Path, records: Mapping[str, Record], kept: Mapping[str, Record]
) -> None:
    """Copies the pictures of the jobs' run folders into `folder`.

    Those of former runs stay where there is no new one and the training is the same: `records` is what is known, `kept`
    what was kept with the pictures.
    """
    for job in jobs:
        training = job.training.name
        for name in job.pictures:
            drawn = picture_path(runs / training, name)
            if training in records and drawn.exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_bytes(folder / drawn.name, drawn.read_bytes())
            elif not _same(records.get(training), kept.get(training)):
                (folder / drawn.name).unlink(missing_ok=True)


def _same(known: Record | None, kept: Record | None) -> bool:
    """Whether two records are of one configuration on the same images."""
    if known is None or kept is None:
        return False
    return (known.configuration, known.data) == (kept.configuration, kept.data)
