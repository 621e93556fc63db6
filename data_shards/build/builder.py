"""Builds a folder of shards: in parallel, resumable, with the same bytes for any number of processes.

A shard is a fixed range of the source, so that no process depends on another. It is done when its JSON is there and
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
from pathlib import Path
from typing import Any

from data_shards import manifest
from data_shards.build.writer import ShardRange, Written, ensure_shard, is_done
from data_shards.io import atomic
from data_shards.io.configuration import NonNegativeInt, PositiveInt, configuration
from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from data_shards.manifest import Manifest
from data_shards.pixels import Pixels
from data_shards.sources.source import Source

RECIPE_FILE = "recipe.json"
DEFAULT_SHARD_IMAGES = 1000
_BAD_IMAGES_BEFORE_GIVING_UP = 1000  # beyond those allowed: the source is wrong, not a few of its images
_NAMED_IN_MESSAGE = 3


@configuration
class BuildOptions:
    """How a source is cut into shards, and by how many processes."""

    num_valid: NonNegativeInt | None = None
    """Training images that the source moves into the split valid; None where it has its own."""
    shard_images: PositiveInt = DEFAULT_SHARD_IMAGES
    """Images a shard; the last of a split has the rest."""
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

    def __post_init__(self) -> None:
        if self.part >= self.parts:
            raise InputError(f"{self.part} of {self.parts} is not possible; parts count from 0", parameter="part")


def shard_ranges(source: Source, shard_images: int) -> list[ShardRange]:
    """Cuts each split into ranges of `shard_images`, in source order."""
    return [
        ShardRange(
            name=f"{split}-{number:06d}.tar", split=split, start=start, stop=min(start + shard_images, len(keys))
        )
        for split, keys in source.keys.items()
        for number, start in enumerate(range(0, len(keys), shard_images))
    ]


def build(source: Source, pixels: Pixels, out: Path, options: BuildOptions) -> Manifest | None:
    """Writes the shards of `source` into `out`, and the manifest where this job does all the work.

    Continues an interrupted build. Raises InputError where `out` holds shards of another source or other options,
    where too many images are unusable, or where the disk is too small.
    """
    out.mkdir(parents=True, exist_ok=True)
    _agree_on_recipe(out, recipe(source.name, pixels, options) | {"source": source.fingerprint()})
    ranges = shard_ranges(source, options.shard_images)
    mine = [piece for number, piece in enumerate(ranges) if number % options.parts == options.part]
    done = _write_all(source, pixels, out, options, mine)
    _refuse_bad(done, mine, options.skip_bad)
    return _write_manifest(source, pixels, out, options, ranges, done) if options.parts == 1 else None


def merge(source: Source, pixels: Pixels, out: Path, options: BuildOptions) -> Manifest:
    """Checks the shards of all parts and writes the manifest over them.

    Raises InputError for the first shard that is not done, and where too many images of all parts are unusable.
    """
    if not (out / RECIPE_FILE).is_file():
        raise InputError(f"{out}: no part of a build is there; run the parts first")
    _agree_on_recipe(out, recipe(source.name, pixels, options) | {"source": source.fingerprint()})
    ranges = shard_ranges(source, options.shard_images)
    with ThreadPoolExecutor(options.processes) as pool:
        checked = dict(zip(ranges, pool.map(functools.partial(is_done, out), ranges), strict=True))
    if missing := [piece.name for piece, written in checked.items() if written is None]:
        raise InputError(
            f"{out / missing[0]}: not done, with {len(missing) - 1} more of {len(ranges)}; run the parts of the build "
            "again, which continues where they stopped, then merge"
        )
    done = {piece.name: written for piece, written in checked.items() if written is not None}
    _refuse_bad(done, ranges, options.skip_bad)
    return _write_manifest(source, pixels, out, options, ranges, done)


def _write_manifest(
    source: Source, pixels: Pixels, out: Path, options: BuildOptions, ranges: list[ShardRange], done: dict[str, Written]
) -> Manifest:
    shards = tuple(shard for piece in ranges if (shard := done[piece.name].shard) is not None)
    filled = {shard.split for shard in shards}
    if not shards:
        raise InputError(f"{out}: no usable image at all; check the source")
    made = Manifest(
        name=source.name,
        pixels=pixels,
        splits=tuple(split for split in source.keys if split in filled),
        shards=shards,
        window=options.window,
        skipped=tuple(entry for piece in ranges for entry in done[piece.name].skipped),
    )
    atomic.write_json(out / manifest.FILE, made.to_json())
    for partial in out.glob(".*.partial"):  # left by processes that were killed
        partial.unlink(missing_ok=True)
    return made


def recipe(name: str, pixels: Pixels, options: BuildOptions) -> dict[str, Any]:
    """The options that must be equal for two runs to give the same shards."""
    return {
        "name": name,
        "pixels": pixels.to_json(),
        "valid": options.num_valid,
        "shard_images": options.shard_images,
        "window": options.window,
    }


def finished(out: Path, wanted: dict[str, Any]) -> Manifest | None:
    """The manifest in `out`, if a build with this recipe was finished there and no shard is missing; else None."""
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
            f"{out} holds shards built with another {' and '.join(differing)}; choose another folder or remove it",
            parameter="out",
        )


def _write_all(
    source: Source, pixels: Pixels, out: Path, options: BuildOptions, ranges: list[ShardRange]
) -> dict[str, Written]:
    done: dict[str, Written] = {}
    total = sum(piece.stop - piece.start for piece in ranges)
    images = bad = 0
    with Progress(f"shards of {source.name}", total) as bar:
        for piece, written in _outcomes(source, pixels, out, options.processes, ranges):
            done[piece.name] = written
            images += piece.stop - piece.start
            bad += len(written.skipped)
            bar.update(images, bad=bad) if bad else bar.update(images)
            if bad > options.skip_bad + _BAD_IMAGES_BEFORE_GIVING_UP:
                break
    return done


def _outcomes(
    source: Source, pixels: Pixels, out: Path, processes: int, ranges: list[ShardRange]
) -> Iterator[tuple[ShardRange, Written]]:
    """Finished ranges as they come."""
    new = [piece for piece in ranges if not (out / piece.index_name).is_file()]
    _refuse_small_disk(out, pixels, sum(piece.stop - piece.start for piece in new))
    write = functools.partial(ensure_shard, out, source, pixels)
    if processes == 1 or len(ranges) < 2:
        for piece in ranges:
            yield piece, write(piece)
        return
    pool = ProcessPoolExecutor(min(processes, len(ranges)), multiprocessing.get_context("spawn"), _begin, (write,))
    try:
        futures = {pool.submit(_write, piece): piece for piece in ranges}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process of the build was killed, perhaps for memory; use fewer", parameter="processes"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_write_in_this_process: Callable[[ShardRange], Written]  # set once a worker, as the listing of the source is large


def _write(piece: ShardRange) -> Written:
    return _write_in_this_process(piece)


def _begin(write: Callable[[ShardRange], Written]) -> None:
    global _write_in_this_process
    _write_in_this_process = write
    _die_with_parent()


def _die_with_parent() -> None:
    """Ends a worker whose parent was killed: it waits on a pipe that it holds open itself, so it would never end."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _refuse_small_disk(out: Path, pixels: Pixels, images: int) -> None:
    if pixels.encoding != "raw":
        return  # how well the images compress is not known before
    needed = images * pixels.member_bytes
    free = shutil.disk_usage(out).free
    if needed > free:
        raise InputError(
            f"{needed / 1e9:.1f} GB are needed in {out}, {free / 1e9:.1f} GB are free; choose another folder",
            parameter="out",
        )


def _refuse_bad(done: dict[str, Written], ranges: list[ShardRange], allowed: int) -> None:
    bad = [entry for piece in ranges if piece.name in done for entry in done[piece.name].skipped]
    if len(bad) <= allowed:
        return
    named = "; ".join(f"{entry.key}: {entry.reason}" for entry in bad[:_NAMED_IN_MESSAGE])
    more = f"; and {len(bad) - _NAMED_IN_MESSAGE} more" if len(bad) > _NAMED_IN_MESSAGE else ""
    raise InputError(
        f"{len(bad)} unusable images where {allowed} are allowed ({named}{more}); "
        f"fix the source, or leave out up to {len(bad)}",
        parameter="skip_bad",
    )
