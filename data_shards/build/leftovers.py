"""Files of former builds that are no longer needed. Only what a build has written is removed."""

import re
from collections.abc import Iterable
from pathlib import Path

from data_shards.build import record
from data_shards.io.errors import InputError
from data_shards.io.lease import lease, leased_names
from data_shards.manifest import Manifest, index_name

_PARTIAL = re.compile(r"\.(?P<name>[A-Za-z0-9_-]+\.(?:tar|json))\.\d+\.partial")
_OF_BUILDS = re.compile(r"|part-\d+-of-\d+")  # names of leases


def files_of(shard: str) -> tuple[str, str]:
    """The tar and its index."""
    return shard, index_name(shard)


def readable_manifest(out: Path) -> Manifest | None:
    """The manifest in `out`; None where there is none, or it is damaged."""
    try:
        return Manifest.load(out)
    except InputError:
        return None


def shards_beside(out: Path, planned: set[str]) -> list[str]:
    """The tars that a record or the manifest in `out` names, and that are not planned."""
    former = readable_manifest(out)
    known = {*record.recorded_shards(out), *(shard.name for shard in (former.shards if former else ()))}
    return sorted(known - planned)


def remove_shards(out: Path, shards: Iterable[str]) -> None:
    """Removes these tars with their indexes and records."""
    for shard in shards:
        for name in files_of(shard):
            (out / name).unlink(missing_ok=True)
        record.path_of(out, shard).unlink(missing_ok=True)


def end_other_builds(out: Path, alike: str, *, steal: bool) -> None:
    """Raises LeaseHeld where another build or division works in `out`: each removes the unfinished files of the others.

    alike: the names of the leases of this build's parts, a regular expression; steal: takes the folder from the others,
    which stop
    """
    for name in leased_names(out):
        if _OF_BUILDS.fullmatch(name) and not re.fullmatch(alike, name):
            with lease(out, name, steal=steal):
                pass  # of a process that has ended


def remove_partial_files(out: Path, names: Iterable[str]) -> None:
    """Removes what killed processes have left of the files `names`, and of their records, before it was complete."""
    wanted = set(names)
    for folder in (out, out / record.FOLDER):
        for path in folder.glob(".*.partial"):
            if (found := _PARTIAL.fullmatch(path.name)) and found["name"] in wanted:
                path.unlink(missing_ok=True)
