"""What has changed in a source since shards were made from it, by the records beside the shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_shards.build.record import path_of, read_record, recorded_shards

Listing = tuple[NDArray[np.uint64], NDArray[np.uint64]]
"""`key_hash` and stamp of each image, (n,) each."""
_NOT_COUNTED = "images divided otherwise, or others of the same names, sizes and times,"


@dataclass(frozen=True, kw_only=True)
class SourceChange:
    """A source as it is now, beside the shards in a folder."""

    out: Path
    """The folder."""
    planned: Sequence[str]
    """File names of the tars that a build makes now."""
    now: Listing
    """The images of the source now."""
    folder: str | None
    """Where the source lies; None where it was found without a folder."""
    former_folder: str | None
    """The same of the source that the shards were made from."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether the shards are of a source in another folder."""
        return self.former_folder not in (None, self.folder)

    def is_another_source(self) -> bool:
        """Whether the shards are of a source elsewhere that has no image of this one."""
        if not self.is_elsewhere or (former := self._former()) is None:
            return False
        return not set(zip(*map(np.ndarray.tolist, former), strict=True)).intersection(
            zip(*map(np.ndarray.tolist, self.now), strict=True)
        )

    def message(self) -> str:
        """What has changed since the shards were written, and what to do."""
        remedy = "--update brings the shards up to date, or choose another folder"
        if (former := self._former()) is None:
            return (
                f"{self.out}: what its shards were made from is not recorded, as earlier versions left them; {remedy}"
            )
        there = [name for name in self.planned if (self.out / name).is_file()]
        if lost := [name for name in there if read_record(self.out, name) is None]:
            return (
                f"{path_of(self.out, lost[0])}: missing or damaged, with {len(lost) - 1} more, so that nothing says "
                f"whether {lost[0]} is of the source as it is now; {remedy}"
            )
        keys, stamps = former
        now, now_stamps = self.now
        common, before, after = np.intersect1d(keys, now, return_indices=True)
        counts = {
            "added": len(now) - len(common),
            "removed": len(keys) - len(common),
            "replaced": int((stamps[before] != now_stamps[after]).sum()),
        }
        counted = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count) or _NOT_COUNTED
        other = f"another source, {self.former_folder}, was built here"
        source = other if self.is_elsewhere else "the source has changed since"
        return f"{self.out}: {source} ({counted} of {len(now):,} images); {remedy}"

    def _former(self) -> Listing | None:
        """The images that the shards were made from; None where that is not recorded."""
        records = [record for name in recorded_shards(self.out) if (record := read_record(self.out, name))]
        if not records:
            return None
        return np.concatenate([one.keys for one in records]), np.concatenate([one.stamps for one in records])
