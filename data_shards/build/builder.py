"""Builds a folder of shards: in parallel, resumable, with the same bytes whatever the number of processes.

A shard is a fixed stretch of the source, so that no process depends on another. It is done when its JSON is there and
its tar has the sha256 named in it. The manifest is written when all are done.
"""

import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards import manifest
from data_shards.build.writer import ShardPlan, Written, ensure_shard, is_done
from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from data_shards.manifest import Manifest
from data_shards.pixels import Pixels
from data_shards.sources.sample import Source

RECIPE_FILE = "recipe.json"
_BAD_IMAGES_BEFORE_GIVING_UP = 1000  # beyond those allowed: the source is wrong, not a few of its images
_NAMED_IN_MESSAGE = 3


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What a person chooses about a build, beside source and pixels."""

    num_valid: int | None = None
    """Training images that the source was told to move into the split valid; None where it has its own."""
    shard_images: int = 1000
    """Images a shard; the last of a split has what is left."""
    window: int = manifest.DEFAULT_WINDOW
    """Shards in one shuffling window."""
    skip_bad: int = 0
    """How many unusable source images are left out before the build is refused."""
    processes: int = 1
    """Processes that write shards."""
    part: int = 0
    """Which part of the work this job does, 0..parts-1; shard s belongs to part s modulo parts."""
    parts: int = 1
    """Jobs that share the work."""

    def __post_init__(self) -> None:
        for name in ("shard_images", "window", "processes", "parts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} is not possible; use at least 1")
        if self.skip_bad < 0:
            raise InputError(f"skip_bad: {self.skip_bad} is not possible; use 0 or more")
        if not 0 <= self.part < self.parts:
            raise InputError(f"part: {self.part} of {self.parts} is not possible; parts count from 0")


def plan_shards(source: Source, shard_images: int) -> list[ShardPlan]:
    """Cuts each split into stretches of `shard_images`, in source order."""
    plans = []
    for split, keys in source.keys.items():
        for number, start in enumerate(range(0, len(keys), shard_images)):
            stop = min(start + shard_images, len(keys))
            plans.append(ShardPlan(name=f"{split}-{number:06d}.tar", split=split, start=start, stop=stop))
    return plans


def build(source: Source, pixels: Pixels, out: Path, options: BuildOptions) -> Manifest | None:
    """Writes the shards of `source` into `out`, and the manifest where this job does all the work.

    Goes on with what a former run left. Raises InputError where `out` holds shards of another source or other options,
    where too many images are unusable, or where the disk is too small.
    """
    out.mkdir(parents=True, exist_ok=True)
    _agree_on_recipe(out, recipe(source.name, pixels, options) | {"source": source.fingerprint()})
    plans = plan_shards(source, options.shard_images)
    mine = [plan for number, plan in enumerate(plans) if number % options.parts == options.part]
    done = _write_all(source, pixels, out, options, mine)
    _refuse_bad(done, mine, options.skip_bad)
    return _write_manifest(source, pixels, out, options, plans, done) if options.parts == 1 else None


def merge(source: Source, pixels: Pixels, out: Path, options: BuildOptions) -> Manifest:
    """Checks the shards of all parts and writes the manifest over them.

    Raises InputError for the first shard that is not done, and where too many images of all parts are unusable.
    """
    if not (out / RECIPE_FILE).is_file():
        raise InputError(f"{out}: no part of a build is there; run the parts first")
    _agree_on_recipe(out, recipe(source.name, pixels, options) | {"source": source.fingerprint()})
    plans = plan_shards(source, options.shard_images)
    with ThreadPoolExecutor(options.processes) as pool:
        checked = dict(zip(plans, pool.map(functools.partial(is_done, out), plans), strict=True))
    if missing := [plan.name for plan, written in checked.items() if written is None]:
        raise InputError(
            f"{out / missing[0]}: not done, with {len(missing) - 1} more of {len(plans)}; run the parts of the build "
            "again, which goes on where they stopped, then merge"
        )
    done = {plan.name: written for plan, written in checked.items() if written is not None}
    _refuse_bad(done, plans, options.skip_bad)
    return _write_manifest(source, pixels, out, options, plans, done)


def _write_manifest(
    source: Source, pixels: Pixels, out: Path, options: BuildOptions, plans: list[ShardPlan], done: dict[str, Written]
) -> Manifest:
    shards = tuple(shard for plan in plans if (shard := done[plan.name].shard) is not None)
    filled = {shard.split for shard in shards}
    if not shards:
        raise InputError(f"{out}: no usable image at all; mend the source")
    made = Manifest(
        name=source.name,
        pixels=pixels,
        splits=tuple(split for split in source.keys if split in filled),
        shards=shards,
        window=options.window,
        skipped=tuple(entry for plan in plans for entry in done[plan.name].skipped),
    )
    atomic.write_json(out / manifest.FILE, made.to_json())
    for ruin in out.glob(".*.partial"):  # left by processes that were killed
        ruin.unlink(missing_ok=True)
    return made


def recipe(name: str, pixels: Pixels, options: BuildOptions) -> dict[str, Any]:
    """What must be equal for two runs to give the same shards, as far as options tell."""
    return {
        "name": name,
        "pixels": pixels.to_json(),
        "valid": options.num_valid,
        "shard_images": options.shard_images,
        "window": options.window,
    }


def finished(out: Path, wanted: dict[str, Any]) -> Manifest | None:
    """The manifest in `out`, if a build by the same recipe has ended there and no shard was lost since; else None."""
    if not (out / manifest.FILE).is_file() or not (out / RECIPE_FILE).is_file():
        return None
    kept = json.loads((out / RECIPE_FILE).read_text())
    if any(kept.get(field) != value for field, value in wanted.items()):
        return None
    made = Manifest.load(out)
    whole = all(
        (out / shard.name).is_file() and (out / shard.name).stat().st_size == shard.bytes for shard in made.shards
    )
    return made if whole else None


def _agree_on_recipe(out: Path, wanted: dict[str, Any]) -> None:
    path = out / RECIPE_FILE
    if not path.is_file():
        atomic.write_json(path, wanted)
        return
    kept = json.loads(path.read_text())
    differing = [field for field, value in wanted.items() if kept.get(field) != json.loads(json.dumps(value))]
    if differing:
        raise InputError(
            f"{out}: holds shards built with another {' and '.join(differing)}; choose another --out or remove it"
        )


def _write_all(
    source: Source, pixels: Pixels, out: Path, options: BuildOptions, plans: list[ShardPlan]
) -> dict[str, Written]:
    done: dict[str, Written] = {}
    total = sum(plan.stop - plan.start for plan in plans)
    images = bad = 0
    with Progress(f"shards of {source.name}", total) as bar:
        for plan, written in _outcomes(source, pixels, out, options.processes, plans):
            done[plan.name] = written
            images += plan.stop - plan.start
            bad += len(written.skipped)
            bar.update(images, bad=bad) if bad else bar.update(images)
            if bad > options.skip_bad + _BAD_IMAGES_BEFORE_GIVING_UP:
                break
    return done


def _outcomes(
    source: Source, pixels: Pixels, out: Path, processes: int, plans: list[ShardPlan]
) -> Iterator[tuple[ShardPlan, Written]]:
    """Finished plans as they come."""
    new = [plan for plan in plans if not (out / plan.index_name).is_file()]
    _refuse_small_disk(out, pixels, sum(plan.stop - plan.start for plan in new))
    write = functools.partial(ensure_shard, out, source, pixels)
    if processes == 1 or len(plans) < 2:
        for plan in plans:
            yield plan, write(plan)
        return
    pool = ProcessPoolExecutor(min(processes, len(plans)), multiprocessing.get_context("spawn"), _begin, (write,))
    try:
        futures = {pool.submit(_write, plan): plan for plan in plans}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise InputError(
            f"{out}: a process of the build was killed, perhaps for memory; use fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_write_in_this_process: Callable[[ShardPlan], Written]  # set once a worker, as the listing of the source is large


def _write(plan: ShardPlan) -> Written:
    return _write_in_this_process(plan)


def _begin(write: Callable[[ShardPlan], Written]) -> None:
    global _write_in_this_process
    _write_in_this_process = write
    _die_with_parent()


def _die_with_parent() -> None:
    """Workers wait for work on a pipe that they hold open themselves, so a killed parent would leave them for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _refuse_small_disk(out: Path, pixels: Pixels, images: int) -> None:
    if pixels.encoding != "raw":
        return  # how far the images compress is not known before
    needed = images * (pixels.num_bytes + 1024)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise InputError(
            f"{out}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; choose another --out or free some"
        )


def _refuse_bad(done: dict[str, Written], plans: list[ShardPlan], allowed: int) -> None:
    bad = [entry for plan in plans if plan.name in done for entry in done[plan.name].skipped]
    if len(bad) <= allowed:
        return
    named = "; ".join(f"{entry['key']}: {entry['reason']}" for entry in bad[:_NAMED_IN_MESSAGE])
    more = f"; and {len(bad) - _NAMED_IN_MESSAGE} more" if len(bad) > _NAMED_IN_MESSAGE else ""
    raise InputError(
        f"{len(bad)} unusable images where {allowed} are allowed ({named}{more}); "
        f"mend the source, or leave them out by --skip-bad {len(bad)}"
    )
