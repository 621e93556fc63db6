"""Builds a folder of shards: in parallel, resumable, with the same bytes for any number of processes.

Which images go into a shard depends on the listing of the source alone (`layout.py`), so that no process depends on
another. A shard is done when its tar has the sha256 in its index and its record (`record.py`) says that it was made
from the images that the source holds now. The manifest is written when all are done.

So the same command continues an interrupted build and writes damaged shards again. Where the source has changed since
the manifest was written, it asks for an update, which writes the shards that change and removes those that are left.
"""

import functools
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from data_shards import manifest
from data_shards.build import leftovers
from data_shards.build.check import CheckedShard, check_shard, ensure_shard
from data_shards.build.layout import ShardPlan, key_hash, shard_plans, task_of
from data_shards.build.recipe import FILE as RECIPE_FILE
from data_shards.build.recipe import agree_on_recipe, was_finished, write_recipe
from data_shards.build.record import read_record
from data_shards.build.source_change import SourceChange
from data_shards.build.workers import for_each
from data_shards.build.writer import Written
from data_shards.decoding import decode
from data_shards.io import atomic
from data_shards.io.configuration import NonNegativeInt, PositiveInt, configuration
from data_shards.io.disk import free_bytes, sha256_of_file
from data_shards.io.errors import InputError
from data_shards.io.lease import Lease, lease
from data_shards.io.progress import Progress
from data_shards.manifest import Manifest
from data_shards.pixels import Pixels
from data_shards.sources.source import Source

DEFAULT_SHARD_IMAGES = 1000
_BAD_IMAGES_BEFORE_GIVING_UP = 1000  # beyond those allowed: the source is wrong, not a few of its images
_NAMED_IN_MESSAGE = 3


@configuration
class BuildOptions:
    """How a source is cut into shards, and by how many processes."""

    valid: NonNegativeInt | str | None = None
    """What was asked for as the split valid, to be recorded; None where the source has its own."""
    test: NonNegativeInt | str | None = None
    """As `valid`."""
    shard_images: PositiveInt = DEFAULT_SHARD_IMAGES
    """Images a shard; see `shard_plans`."""
    window: PositiveInt = manifest.DEFAULT_WINDOW
    """Shards in one shuffling window."""
    skip_bad: NonNegativeInt = 0
    """How many unusable source images are left out before the build is refused."""
    processes: PositiveInt = 1
    """Processes that write shards."""
    part: NonNegativeInt = 0
    """Which part of the work this job does, 0..parts-1; shard s belongs to part s modulo parts."""
    parts: PositiveInt = 1
    """Jobs that share the work."""
    update: bool = False
    """Whether finished shards are brought up to date where their source has changed."""
    check_content: bool = False
    """Whether all images are compared by content, not only those whose size or time has changed."""
    steal_lock: bool = False
    """Whether the folder is taken over from a build that holds it."""

    def __post_init__(self) -> None:
        if self.part >= self.parts:
            raise InputError(f"{self.part} of {self.parts} is not possible; parts count from 0", parameter="part")


def build(
    source: Source, pixels: Pixels, out: Path, options: BuildOptions, *, folder: Path | None = None
) -> Manifest | None:
    """Writes the shards of `source` into `out`, and the manifest where this job does all the work.

    folder: where the source lies, to be recorded. Raises InputError where `out` holds shards of another source or with
    other options, where too many images are unusable, or where the disk is too small.
    """
    work = _Work(source, pixels, out, options, folder)
    wanted = recipe(source.name, pixels, options)
    kept = agree_on_recipe(out, wanted, work.planned_files())
    finished = kept is not None and was_finished(out, kept)
    done: dict[str, Written] = {}
    changed = False
    if finished:
        checked = work.check(work.mine)
        done = {name: one.written for name, one in checked.items() if one.written is not None}
        changed = any(one.is_changed for one in checked.values()) or bool(work.leftover_shards())
        if changed and not options.update:
            raise InputError(work.change_since(kept or {}).message(), parameter="out")
        former = leftovers.readable_manifest(out)
        if len(done) == len(work.mine) and not changed and former is not None and work.is_manifest_of(done, former):
            work.refuse_bad(done)
            return former if options.parts == 1 else None
    elif kept is not None and not options.update and (change := work.change_since(kept)).is_another_source():
        raise InputError(change.message(), parameter="out")
    todo = [plan for plan in work.mine if plan.name not in done]
    work.decodings = _decodings(kept, len(todo) / max(len(work.plans), 1))
    work.refuse_small_disk(todo)
    out.mkdir(parents=True, exist_ok=True)
    name = f"part-{options.part}-of-{options.parts}" if options.parts > 1 else ""
    with lease(out, name, steal=options.steal_lock) as held:
        alike = rf"part-\d+-of-{options.parts}" if name else ""
        leftovers.end_other_builds(out, alike, steal=options.steal_lock)
        agree_on_recipe(out, wanted, work.planned_files())  # another build may have held the folder until now
        write_recipe(out, work.recipe() | ({"finished": True} if finished else {}))
        if changed:
            leftovers.remove_shards(out, work.leftover_shards())  # while the manifest still names them
            (out / manifest.FILE).unlink(missing_ok=True)  # until all shards are those of one source again
        done |= work.write(todo, held)
        work.refuse_bad(done)
        return work.write_manifest(done, held) if options.parts == 1 else None


def merge(source: Source, pixels: Pixels, out: Path, options: BuildOptions, *, folder: Path | None = None) -> Manifest:
    """Checks the shards of all parts and writes the manifest over them.

    Raises InputError for the first shard that is not done, and where too many images of all parts are unusable.
    """
    work = _Work(source, pixels, out, options, folder)
    kept = agree_on_recipe(out, recipe(source.name, pixels, options), work.planned_files())
    if kept is None:
        raise InputError(f"{out}: no part of a build is there; run the parts first")
    work.decodings = _decodings(kept, 0)
    checked = work.check(work.plans)
    if missing := [name for name, one in checked.items() if one.written is None]:
        raise InputError(
            f"{out / missing[0]}: not done, with {len(missing) - 1} more of {len(work.plans)}; run the parts of the "
            "build again, which continues where they stopped, then merge"
        )
    done = {name: one.written for name, one in checked.items() if one.written is not None}
    work.refuse_bad(done)
    with lease(out, steal=options.steal_lock) as held:
        return work.write_manifest(done, held)


def recipe(name: str, pixels: Pixels, options: BuildOptions) -> dict[str, Any]:
    """The options that must be equal for two runs to give the same shards of the same source."""
    asked = {"valid": options.valid} | ({} if options.test is None else {"test": options.test})
    return {
        "name": name,
        "pixels": pixels.to_json(),
        **asked,
        "shard_images": options.shard_images,
        "window": options.window,
    }


def _decodings(kept: Mapping[str, Any] | None, written: float) -> list[int]:
    """Versions of the decoder that made the shards, after a build that writes `written`, 0 to 1, of all of them.

    kept: the recipe of those that are there.
    """
    former = set() if kept is None or written == 1 else {*kept.get("decodings", [1])}
    return sorted(former | ({decode.VERSION} if written else set()))


def finished_without_source(out: Path, options: Mapping[str, Any], processes: int) -> Manifest | None:
    """The manifest in `out`, if shards with these options were finished there and all are whole; else None."""
    if not (out / manifest.FILE).is_file() or agree_on_recipe(out, options, ()) is None:
        return None
    made = Manifest.load(out)

    def is_whole(shard: manifest.Shard) -> bool:
        files = ((shard.name, shard.sha256), (shard.index_name, shard.index_sha256))
        return all((out / name).is_file() and sha256_of_file(out / name) == digest for name, digest in files)

    with ThreadPoolExecutor(processes) as pool:
        return made if all(pool.map(is_whole, made.shards)) else None


class _Work:
    """One build of a source as it is now."""

    def __init__(self, source: Source, pixels: Pixels, out: Path, options: BuildOptions, folder: Path | None) -> None:
        self._source, self._pixels, self._out, self._options, self._folder = source, pixels, out, options, folder
        self._stamps = {split: source.stamps(split) for split in source.keys}
        self.plans = shard_plans(source, options.shard_images)
        """All shards."""
        self.mine = [plan for number, plan in enumerate(self.plans) if number % options.parts == options.part]
        """Those of this part."""
        self.decodings = [decode.VERSION]
        """Versions of the decoder that the shards are of."""

    def planned_files(self) -> list[str]:
        """Names of the files of all shards."""
        return [name for plan in self.plans for name in leftovers.files_of(plan.name)]

    def recipe(self) -> dict[str, Any]:
        """What is written beside the shards."""
        options = recipe(self._source.name, self._pixels, self._options)
        folder = None if self._folder is None else str(self._folder.resolve())
        division = dict(self._source.division())
        return {**options, "folder": folder, "division": division, "decodings": self.decodings}

    def leftover_shards(self) -> list[str]:
        """Tars of former builds that are not among today's."""
        return leftovers.shards_beside(self._out, {plan.name for plan in self.plans})

    def check(self, plans: list[ShardPlan]) -> dict[str, CheckedShard]:
        """What is on the disk, by shard."""

        def check(plan: ShardPlan) -> CheckedShard:
            task = task_of(self._source, plan, self._stamps[plan.split])
            return check_shard(self._out, task, check_content=self._options.check_content)

        checked: dict[str, CheckedShard] = {}
        with ThreadPoolExecutor(self._options.processes) as pool, self._progress("check", plans) as bar:
            images = 0
            for plan, one in zip(plans, pool.map(check, plans), strict=True):
                checked[plan.name] = one
                images += len(plan.rows)
                bar.update(images)
        return checked

    def is_manifest_of(self, done: Mapping[str, Written], made: Manifest) -> bool:
        """Whether `made` describes these shards as they are: another one may have been copied into the folder."""
        named = {shard.name: shard for shard in made.shards}
        same_shards = all(named.get(name) == written.shard for name, written in done.items())
        return same_shards and (made.pixels, made.window) == (self._pixels, self._options.window)

    def write(self, plans: list[ShardPlan], held: Lease) -> dict[str, Written]:
        """Makes sure of these shards; the result of each."""
        ensure = functools.partial(
            ensure_shard, self._out, pixels=self._pixels, check_content=self._options.check_content
        )
        tasks = (task_of(self._source, plan, self._stamps[plan.split]) for plan in plans)
        done: dict[str, Written] = {}
        images = bad = 0
        files = [name for plan in plans for name in leftovers.files_of(plan.name)]
        leftovers.remove_partial_files(self._out, files)
        try:
            with (
                self._progress("shards", plans) as bar,
                closing(for_each(ensure, tasks, len(plans), self._options.processes)) as results,
            ):
                for task, written in results:
                    done[task.name] = written
                    images += len(task.keys)
                    bad += len(written.skipped)
                    bar.update(images, bad=bad) if bad else bar.update(images)
                    if bad > self._options.skip_bad + _BAD_IMAGES_BEFORE_GIVING_UP:
                        break
                    if held.is_lost:
                        held.check()
        finally:
            leftovers.remove_partial_files(self._out, files)
        return done

    def _progress(self, title: str, plans: list[ShardPlan]) -> Progress:
        return Progress(f"{title} of {self._source.name}", sum(len(plan.rows) for plan in plans))

    def refuse_small_disk(self, plans: list[ShardPlan]) -> None:
        """Raises InputError where these shards do not fit, as far as their size is known before."""
        if self._pixels.encoding != "raw":
            return  # how well the images compress is not known before
        new = [plan for plan in plans if not (self._out / leftovers.files_of(plan.name)[1]).is_file()]
        needed = sum(len(plan.rows) for plan in new) * self._pixels.member_bytes
        free = free_bytes(self._out)
        if needed > free:
            raise InputError(
                f"{needed / 1e9:.2g} GB are needed in {self._out}, {free / 1e9:.2g} GB are free; choose another folder",
                parameter="out",
            )

    def refuse_bad(self, done: Mapping[str, Written]) -> None:
        """Raises InputError where more images are unusable than may be left out."""
        allowed = self._options.skip_bad
        bad = [entry for plan in self.plans if plan.name in done for entry in done[plan.name].skipped]
        if len(bad) <= allowed:
            return
        named = "; ".join(f"{entry.key}: {entry.reason}" for entry in bad[:_NAMED_IN_MESSAGE])
        more = f"; and {len(bad) - _NAMED_IN_MESSAGE} more" if len(bad) > _NAMED_IN_MESSAGE else ""
        raise InputError(
            f"{len(bad)} unusable images where {allowed} are allowed ({named}{more}); "
            f"fix the source, or leave out up to {len(bad)}",
            parameter="skip_bad",
        )

    def write_manifest(self, done: Mapping[str, Written], held: Lease) -> Manifest:
        """Writes the manifest of all shards, and removes those of former builds that are not among them."""
        results = [done[plan.name] for plan in self.plans]
        shards = tuple(written.shard for written in results if written.shard is not None)
        if not shards:
            raise InputError(f"{self._out}: no usable image at all; check the source")
        filled = {shard.split for shard in shards}
        converted: Counter[str] = Counter()
        for written in results:
            converted.update(written.converted)
        made = Manifest(
            name=self._source.name,
            pixels=self._pixels,
            splits=tuple(split for split in self._source.keys if split in filled),
            shards=shards,
            window=self._options.window,
            skipped=tuple(entry for written in results for entry in written.skipped),
            converted=dict(sorted(converted.items())),
            left_out=dict(self._source.left_out()),
            build={
                "source": self._content_digest(),
                "division": dict(self._source.division()),
                "decodings": self.decodings,
            },
        )
        held.check()
        atomic.write_json(self._out / manifest.FILE, made.to_json())
        write_recipe(self._out, self.recipe())
        leftovers.remove_shards(self._out, self.leftover_shards())
        leftovers.remove_partial_files(self._out, [*self.planned_files(), manifest.FILE, RECIPE_FILE])
        return made

    def _content_digest(self) -> str:
        """128 bits of the keys and contents of all images of the source."""
        digest = xxhash.xxh3_128()
        for plan in self.plans:
            record = read_record(self._out, plan.name)
            assert record is not None
            digest.update(record.keys.tobytes())
            digest.update(record.contents.tobytes())
        return digest.hexdigest()

    def change_since(self, kept: Mapping[str, Any]) -> SourceChange:
        """The source beside the shards that are there. kept: their recipe."""
        keys = [key_hash(split, key) for split, names in self._source.keys.items() for key in names]
        stamps = np.concatenate([self._stamps[split] for split in self._source.keys])
        return SourceChange(
            out=self._out,
            planned=[plan.name for plan in self.plans],
            now=(np.array(keys, np.uint64), stamps),
            folder=self.recipe()["folder"],
            former_folder=kept.get("folder"),
        )
