"""Parts of one evaluation on disk, made by separate jobs and merged by another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from data_shards.io.errors import InputError
from eval.distance.comparison import Comparison
from eval.distance.statistics import FeatureStatistics
from eval.measured_once import held_result
from eval.protocol import differences
from eval.results import DistanceResult
from trainer.process_group import Ranks


class Recorded(Protocol):
    """What parts need of a protocol."""

    def address(self) -> str:
        """Hexadecimal digits that differ where anything differs that the numbers depend on."""

    def record(self) -> dict[str, Any]:
        """The fields that parts of one evaluation share."""

    @property
    def n(self) -> int:
        """Number of images of the whole set."""


@dataclass(frozen=True, kw_only=True)
class PartFiles:
    """The files of the parts of one evaluation."""

    beside: Path
    """The folder of its result."""
    protocol: Recorded
    """What it depends on."""
    keep_features: bool
    """Whether a part needs feature vectors and not only their sums."""

    def path(self, part: int, parts: int) -> Path:
        """parts/ADDRESS/part-00002-of-00008.safetensors beside the result; the folder exists afterwards."""
        folder = self.beside / "parts" / self.protocol.address()
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"part-{part:05d}-of-{parts:05d}.safetensors"

    def is_finished(self, path: Path) -> bool:
        """True where `path` holds a whole part of this evaluation, with feature vectors if they are needed."""
        try:
            found = FeatureStatistics.load(path)
        except InputError:
            return False  # missing or damaged: it has to be made (again)
        return found.protocol == self.protocol.record() and (found.features is not None or not self.keep_features)

    def missing(self, parts: int) -> list[int]:
        """The parts of an evaluation in `parts` that are still to be made."""
        return [part for part in range(parts) if not self.is_finished(self.path(part, parts))]

    def merged(self, parts: int, *, unreadable: int = 0) -> FeatureStatistics:
        """The statistics of the whole set, see `merge`."""
        return merge([self.path(part, parts) for part in range(parts)], self.protocol, unreadable=unreadable)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A finished part of an evaluation."""

    path: Path
    """Its statistics."""
    images: int | None
    """Images in it; None where it was finished before."""


def part_files(comparison: Comparison) -> PartFiles:
    """The parts of an evaluation of a run, in RUN/eval."""
    return PartFiles(
        beside=comparison.run.folder / "eval", protocol=comparison.protocol, keep_features=comparison.keep_features
    )


def make_part(comparison: Comparison, part: int, parts: int, ranks: Ranks, *, save_images: str | None = None) -> Part:
    """Writes one part's statistics, unless they are there. save_images: one of IMAGE_FORMATS to write its images."""
    files = part_files(comparison)
    path = files.path(part, parts)
    folder = comparison.images_folder(save_images) / path.stem if save_images else None

    def before() -> Part | None:
        done = files.is_finished(path) and (folder is None or folder.exists())
        return Part(path=path, images=None) if ranks.any(ranks.is_main and done) else None

    with held_result(path, ranks, before, question=comparison.protocol.record(), steal=comparison.steal) as place:
        if place.found is not None:
            return place.found
        statistics = comparison.statistics(ranks, part=part, parts=parts, folder=folder, file_format=save_images)
        place.save(statistics)
    return Part(path=path, images=statistics.n)


def merge_parts(comparison: Comparison, parts: int, ranks: Ranks) -> DistanceResult:
    """The result of an evaluation whose parts are all there, see `merge`; the same on every process."""
    files = part_files(comparison)
    with comparison.held(ranks) as place:
        return place.found or comparison.scored(files.merged(parts), place)


def merge(paths: list[Path], protocol: Recorded, *, unreadable: int = 0) -> FeatureStatistics:
    """The statistics of the whole set from all its parts. unreadable: how many images may be in none of them.

    Raises InputError that names the file where one is missing, damaged, of another protocol, or has an image that
    another has too, or where images of the set are in none.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        names = ", ".join(path.name for path in missing)
        raise InputError(f"{missing[0].parent}: {names} missing; make these parts, each as part I/{len(paths)}")
    owner = torch.full((protocol.n,), -1)
    whole: FeatureStatistics | None = None
    for number, path in enumerate(paths):
        part = FeatureStatistics.load(path)
        different = differences(protocol.record(), part.protocol)
        if different:
            raise InputError(f"{path}: of another protocol ({different}); delete it and run this part again")
        outside = part.ids[(part.ids < 0) | (part.ids >= protocol.n)]
        if len(outside):
            raise InputError(f"{path}: has image {int(outside[0])} of {protocol.n}; delete it and run this part again")
        doubled = part.ids[owner[part.ids] >= 0]
        if len(doubled):
            other = paths[int(owner[doubled[0]])]
            raise InputError(f"{path}: has image {int(doubled[0])}, and so has {other.name}; delete and run both again")
        owner[part.ids] = number
        whole = part if whole is None else FeatureStatistics.merge([whole, part])
    absent = (owner < 0).nonzero()[:, 0]
    # Parts of earlier versions do not say which images could not be read.
    if whole is None or len(absent) > max(unreadable, len(whole.decisions.unreadable)):
        raise InputError(
            f"{paths[0].parent}: {len(absent)} images are in no part, such as {int(absent[0])}; delete it all"
        )
    return whole
