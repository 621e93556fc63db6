"""Takes images out of the training images of finished shards as the split valid or test, without their source.

A hash of each image's key decides, as `build folder` decides by file names. Members are copied as they are. Runs that
were trained on the undivided shards cannot go on with the divided ones.
"""

import argparse
import functools
import tarfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_shards import manifest
from data_shards.build import leftovers
from data_shards.build.layout import ShardTask
from data_shards.build.recipe import read_recipe, write_recipe
from data_shards.build.workers import for_each
from data_shards.build.writer import Member, write_shard
from data_shards.io import atomic
from data_shards.io.errors import InputError, OneLineParser, at_least
from data_shards.io.lease import lease
from data_shards.io.options import add_lock_option, add_workers_option
from data_shards.io.progress import Progress
from data_shards.io.regular_files import open_regular, read_regular
from data_shards.manifest import Manifest, Shard
from data_shards.pixels import Pixels
from data_shards.shard_index import ShardIndex, parse_index
from data_shards.sources.division import Rule, hash_ranges, name_hash
from data_shards.sources.portion import Portion, portion
from data_shards.sources.source import Sample

_TRAIN = "train"


def add_arguments(parser: OneLineParser) -> None:
    """The options of the command."""
    parser.add_argument("shards", type=Path, help="folder of the shards, which are divided in place")
    for name in ("valid", "test"):
        parser.add_argument(f"--{name}", metavar="N|P%", help=f"a number or percentage of images for the split {name}")
    add_workers_option(parser)
    add_lock_option(parser, "the folder")


def run(args: argparse.Namespace) -> None:
    """Divides the shards and prints the counts."""
    at_least(1, processes=args.processes)
    wanted = {name: portion(text, name) for name in ("test", "valid") if (text := getattr(args, name)) is not None}
    made = split_shards(args.shards, wanted, processes=args.processes, steal_lock=args.steal_lock)
    counts = ", ".join(f"{split} {made.num_samples(split):,}" for split in made.splits)
    print(f"{args.shards}: {counts}, {len(made.shards)} shards, hash {made.hash[:16]}")


def split_shards(out: Path, wanted: Mapping[str, Portion], *, processes: int = 1, steal_lock: bool = False) -> Manifest:
    """Divides the shards in the folder `out`; returns their new manifest.

    wanted: how much of the split train becomes valid or test. The new shards lie beside the old ones, which are removed
    when the new manifest is there, with what a division that was interrupted has left. One that was interrupted after
    its manifest is finished. Raises InputError where a split exists, or no image would be left for training.
    """
    if all(one.is_none for one in wanted.values()):
        raise InputError("nothing is to be taken out; give a number or a percentage, such as 5%", parameter="valid")
    if not out.is_dir():
        raise InputError(f"{out}: no folder of shards here; copy the shards to this machine first", parameter="shards")
    former = Manifest.load(out)
    asked = {name: str(one) for name, one in wanted.items()}
    taken = {name for name, one in wanted.items() if not one.is_none}
    if taken <= set(former.splits) and _was_interrupted_at_its_end(out, former, asked):
        with lease(out, steal=steal_lock):
            leftovers.remove_shards(out, _shards_beside(out, Manifest.load(out)))
        return former
    for name in wanted:
        if name in former.splits:
            raise InputError(f"{out} has a split {name} of {former.num_samples(name):,} images already", parameter=name)
    indexes = {shard.name: _index_of(out, shard) for shard in former.shards_of(_TRAIN)}
    hashes = {name: np.array([name_hash(key) for key in index.keys], np.uint64) for name, index in indexes.items()}
    ranges = hash_ranges(np.concatenate(list(hashes.values())), wanted)
    tasks = _tasks(out, former, indexes, hashes, ranges)
    files = [name for task in tasks for name in leftovers.files_of(task.name)]
    with lease(out, steal=steal_lock) as held:
        leftovers.end_other_builds(out, "", steal=steal_lock)
        if Manifest.load(out) != former:
            raise InputError(f"{out}: another process has changed these shards meanwhile; start the same command again")
        leftovers.remove_partial_files(out, files)
        done: dict[str, Shard] = {}
        work = functools.partial(write_shard, out, pixels=former.pixels, member_of=_stored)
        total = sum(len(task.keys) for task in tasks)
        try:
            with (
                Progress(f"split of {former.name}", total) as bar,
                closing(for_each(work, iter(tasks), len(tasks), processes)) as results,
            ):
                images = 0
                for task, written in results:
                    assert written.shard is not None
                    done[task.name] = written.shard
                    images += len(task.keys)
                    bar.update(images)
        finally:
            leftovers.remove_partial_files(out, files)
        order = list(dict.fromkeys((_TRAIN, *sorted(ranges, reverse=True), *former.splits)))  # valid before test
        kept = [shard for shard in former.shards if shard.split != _TRAIN]
        shards = [*(done[task.name] for task in tasks), *kept]
        made = replace(
            former,
            splits=tuple(order),
            shards=tuple(shard for split in order for shard in shards if shard.split == split),
            build={**former.build, "division": Rule(by="names", ranges=ranges).to_json()},
        )
        held.check()
        if (recipe := read_recipe(out)) is not None:  # before the manifest, which a build would take for one of its own
            write_recipe(out, {**recipe, "divided": asked})
        atomic.write_json(out / manifest.FILE, made.to_json())
        leftovers.remove_shards(out, {*indexes, *_shards_beside(out, made)})
    return made


def _was_interrupted_at_its_end(out: Path, made: Manifest, asked: Mapping[str, str]) -> bool:
    """Whether `asked` is the division that was made last, and shards of before still lie beside its own."""
    recipe = read_recipe(out)
    return recipe is not None and recipe.get("divided") == asked and any(_shards_beside(out, made))


def _shards_beside(out: Path, made: Manifest) -> list[str]:
    return leftovers.shards_beside(out, {shard.name for shard in made.shards})


def _index_of(out: Path, shard: Shard) -> ShardIndex:
    try:
        data = read_regular(out / shard.index_name)
    except FileNotFoundError as error:
        raise InputError(f"{out / shard.index_name}: missing; build the shards again") from error
    return parse_index(data, shard=str(out / shard.name), sha256=shard.index_sha256)


def _tasks(
    out: Path,
    former: Manifest,
    indexes: Mapping[str, ShardIndex],
    hashes: Mapping[str, NDArray[np.uint64]],
    ranges: Mapping[str, tuple[int, int]],
) -> list[ShardTask]:
    """Each training shard with what is left of it, and shards of the same size with what is taken out."""
    generation = 1
    while any(shard.name.startswith(f"{_TRAIN}-{generation}-") for shard in former.shards):
        generation += 1
    left: list[list[tuple[str, int]]] = []  # shards of (former shard, row)
    taken: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, values in hashes.items():
        left.append([])
        for row, value in enumerate(values.tolist()):
            split = next((one for one, (first, stop) in ranges.items() if first <= value < stop), None)
            (left[-1] if split is None else taken[split]).append((name, row))
    size = max(len(index) for index in indexes.values())
    contents = {_TRAIN: [part for part in left if part]}
    contents |= {split: [taken[split][at : at + size] for at in range(0, len(taken[split]), size)] for split in ranges}
    shards = {shard.name: shard for shard in former.shards}
    return [
        ShardTask(
            name=f"{split}-{generation}-{number:06d}.tar",
            split=split,
            keys=tuple(indexes[name].keys[row] for name, row in part),
            stamps=np.zeros(len(part), np.uint64),
            read=functools.partial(
                _read, out, {name: shards[name] for name, _ in part}, former.pixels.header_bytes, part
            ),
        )
        for split, parts in contents.items()
        for number, part in enumerate(parts)
    ]


def _read(
    out: Path, shards: Mapping[str, Shard], header_bytes: int, members: Sequence[tuple[str, int]], place: int
) -> Sample:
    name, row = members[place]
    index, extras = _opened(out, shards[name])
    with open(out / name, "rb", opener=open_regular) as file:
        file.seek(int(index.offsets[row]))
        data = file.read(int(index.sizes[row]))
    if index.checksum(data[header_bytes:]) != index.checksums[row]:
        raise InputError(f"{out / name}: {index.keys[row]} does not have its checksum; build the shards again")
    label = index.labels[row] if index.labels is not None else ""
    return Sample(image=data, extension=index.extensions[row], label=label, extras=extras[index.keys[row]])


@functools.lru_cache(maxsize=2)
def _opened(out: Path, shard: Shard) -> tuple[ShardIndex, Mapping[str, Mapping[str, bytes]]]:
    """The index of a shard, and the members of each sample that are no images by extension."""
    index = _index_of(out, shard)
    images = {f"{key}.{extension}" for key, extension in zip(index.keys, index.extensions, strict=True)}
    extras: dict[str, dict[str, bytes]] = defaultdict(dict)
    try:
        with open(out / shard.name, "rb", opener=open_regular) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.name not in images and (content := tar.extractfile(member)) is not None:
                    key, _, extension = member.name.rpartition(".")
                    extras[key][extension] = content.read()
    except (tarfile.TarError, EOFError, FileNotFoundError) as error:
        raise InputError(f"{out / shard.name}: not a whole tar ({error}); build the shards again") from error
    return index, extras


def _stored(sample: Sample, pixels: Pixels) -> Member:
    assert isinstance(sample.image, bytes)
    return Member(extension=sample.extension, data=sample.image, image=pixels.decode_member(sample.image))
