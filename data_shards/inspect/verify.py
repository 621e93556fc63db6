"""Checks shards thoroughly: sha256, counts, index, every member."""

import argparse
import functools
import os
import tarfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from data_shards.build.workers import for_each
from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.formats import member_extensions
from data_shards.inspect.pipe_option import add_pipe_option
from data_shards.io.address import Address, Location, Unreachable
from data_shards.io.disk import sha256_of_file
from data_shards.io.errors import InputError, OneLineParser, at_least, raise_machine_fault
from data_shards.io.options import add_workers_option
from data_shards.io.progress import Progress
from data_shards.manifest import Manifest, Shard
from data_shards.pixels import Pixels
from data_shards.shard_index import ShardIndex, parse_index
from data_shards.storage import ShardFiles, shard_files

_REMEDY = "; build the shards again"
_EXTRAS = {"cls", "json"}  # extensions of members that are no images


def add_arguments(parser: OneLineParser) -> None:
    """The options of the command."""
    parser.add_argument("shards", help="folder or address of the shards")
    add_workers_option(parser)
    add_pipe_option(parser)


def run(args: argparse.Namespace) -> None:
    """Prints each fault. Raises InputError where there are any."""
    at_least(1, processes=args.processes)
    address = Address(Location(address=args.shards, allow_pipe=args.allow_pipe))
    manifest = Manifest.load(address.location)
    found: dict[str, list[str]] = {}
    images = 0
    with (
        Progress("verify", sum(shard.count for shard in manifest.shards)) as bar,
        closing(verify(manifest, address, processes=args.processes)) as results,
    ):
        for shard, faults_of_it in results:
            images += shard.count
            bar.update(images)
            found[shard.name] = faults_of_it
    faults = [fault for shard in manifest.shards for fault in found[shard.name]]
    for fault in faults:
        print(fault)
    if faults:
        first = faults[0].removesuffix(_REMEDY)
        raise InputError(f"{args.shards}: {len(faults)} faults, the first: {first}{_REMEDY}")
    print(f"{args.shards}: {len(manifest.shards)} shards with {images:,} images agree with the manifest")


def verify(manifest: Manifest, address: Address, *, processes: int) -> Generator[tuple[Shard, list[str]], None, None]:
    """Each shard, in the order in which they are finished, with what is wrong with it, one line a fault."""
    check = functools.partial(_faults_at, manifest, address)
    return for_each(check, iter(manifest.shards), len(manifest.shards), processes)


def _faults_at(manifest: Manifest, address: Address, shard: Shard) -> list[str]:
    files = shard_files(address, manifest, split=shard.split)
    return list(faults_of(shard, manifest.pixels, files))


def faults_of(shard: Shard, pixels: Pixels, files: ShardFiles) -> Iterator[str]:
    """What is wrong with one shard, one line a fault."""
    try:
        files.renew(shard)  # copies that a training has made say nothing of what lies at the address
        index = parse_index(files.index(shard), shard=files.address_of(shard), sha256=shard.index_sha256)
        handle = files.open(shard)
    except (Unreachable, InputError) as error:
        yield str(error)
        return
    except OSError as error:
        raise_machine_fault(error, files.address_of(shard))
        yield f"{files.address_of(shard)}: cannot be opened ({error.strerror})"
        return
    with os.fdopen(handle, "rb"):
        path = Path(f"/proc/self/fd/{handle}")
        if sha256_of_file(path) != shard.sha256:
            yield f"{files.address_of(shard)}: does not have the sha256 of the manifest"
        if len(index) != shard.count:
            yield f"{files.address_of(shard)}: {len(index)} samples in the index, {shard.count} in the manifest"
        for fault in _member_faults(path, shard, index, pixels):
            yield f"{files.address_of(shard)}: {fault}"


def _member_faults(path: Path, shard: Shard, index: ShardIndex, pixels: Pixels) -> Iterable[str]:
    rows = {
        f"{key}.{extension}": row for row, (key, extension) in enumerate(zip(index.keys, index.extensions, strict=True))
    }
    seen = 0
    total = np.zeros(pixels.channels, np.int64)
    squares = np.zeros(pixels.channels, np.int64)
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.name.rpartition(".")[2] not in member_extensions() | _EXTRAS:
                    yield f"{member.name} is of a kind that is refused"
                    continue
                if (row := rows.pop(member.name, None)) is None:
                    continue
                if (member.offset_data, member.size) != (index.offsets[row], index.sizes[row]):
                    yield f"{member.name} is not where the index says"
                    continue
                data = _content(tar, member)
                if index.checksum(data[pixels.header_bytes :]) != index.checksums[row]:
                    yield f"{member.name} does not have its checksum"
                    continue
                try:
                    image = pixels.decode_member(data).astype(np.int64)
                except BadImage as error:
                    yield f"{member.name}: {error}"
                    continue
                seen += 1
                total += image.sum((1, 2))
                squares += (image * image).sum((1, 2))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise_machine_fault(error, shard.name)
        yield f"not a whole tar: {error}"
    for name in rows:
        yield f"{name} is missing"
    whole = not rows and seen == shard.count
    if whole and (tuple(total.tolist()), tuple(squares.tolist())) != (shard.pixel_sum, shard.pixel_square_sum):
        yield "the sums of the pixels are not those of the manifest"


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file is not None else b""
