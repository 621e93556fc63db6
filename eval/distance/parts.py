"""Parts of one evaluation on disk, made by separate jobs and merged by another."""

from pathlib import Path

import torch

from data_shards.io.errors import InputError
from eval.distance.statistics import FeatureStatistics
from eval.protocol import Protocol, differences


def part_path(run: Path, protocol: Protocol, part: int, parts: int) -> Path:
    """RUN/eval/parts/PROTOCOL/part-00002-of-00008.safetensors; the folder exists afterwards."""
    folder = run / "eval" / "parts" / protocol.fingerprint()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"part-{part:05d}-of-{parts:05d}.safetensors"


def finished(path: Path, protocol: Protocol, *, with_features: bool) -> bool:
    """True where `path` holds a whole part of this protocol, with feature vectors if they are asked for."""
    try:
        found = FeatureStatistics.load(path)
    except InputError:
        return False  # missing or damaged: it has to be made (again)
    return found.protocol == protocol.record() and (found.features is not None or not with_features)


def merge(paths: list[Path], protocol: Protocol) -> FeatureStatistics:
    """The statistics of the whole set from all its parts.

    Raises InputError that names the file where one is missing, damaged, of another protocol, or has an image that
    another has too, or where images of the set are in none.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        names = ", ".join(path.name for path in missing)
        raise InputError(f"{missing[0].parent}: {names} missing; run these parts, each with --part I/{len(paths)}")
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
    if whole is None or len(absent):
        raise InputError(
            f"{paths[0].parent}: {len(absent)} images are in no part, such as {int(absent[0])}; delete it all"
        )
    return whole
