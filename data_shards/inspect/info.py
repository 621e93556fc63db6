"""Prints what a folder of shards holds and how well it is shuffled; draws a contact sheet."""

import argparse
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.inspect.pipe_option import add_pipe_option
from data_shards.io import atomic
from data_shards.io.address import Address, Location
from data_shards.io.errors import InputError, MachineFault, OneLineParser, machine_faults
from data_shards.io.regular_files import require_file_place
from data_shards.manifest import Manifest
from data_shards.storage import shard_files
from data_shards.stream.order import EpochOrder, shuffle_quality
from data_shards.stream.reader import BadSample, Reader

SHEET_FILE = "contact-sheet.png"
_ROWS = _COLUMNS = 10


def add_arguments(parser: OneLineParser) -> None:
    """The options of the command."""
    parser.add_argument("shards", help="folder or address of the shards")
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="PNG",
        help=f"picture of {_ROWS * _COLUMNS} images to write (default: {SHEET_FILE} in the folder, if it is local)",
    )
    add_pipe_option(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the facts and writes the picture."""
    if args.contact_sheet is not None:
        require_file_place(args.contact_sheet, "contact_sheet")
    address = Address(Location(address=args.shards, allow_pipe=args.allow_pipe))
    manifest = Manifest.load(address.location)
    pixels = manifest.pixels
    shape = " x ".join(map(str, pixels.shape))
    print(f"{args.shards}: {manifest.name}, {shape}, {pixels.encoding}")
    if pixels.crop:
        print(f"  centre crop: {pixels.crop}")
    if pixels.resize:
        print(f"  resize: {pixels.filter}; fit: {pixels.fit}")
    if pixels.background:
        print(f"  background: {pixels.background}")
    print(f"  hash {manifest.hash}")
    for split in manifest.splits:
        shards = manifest.shards_of(split)
        size = sum(shard.bytes for shard in shards)
        print(f"  {split}: {manifest.num_samples(split):,} images in {len(shards)} shards, {size / 1e6:,.1f} MB")
        for channel, (mean, variance) in enumerate(pixel_statistics(manifest, split)):
            print(f"    channel {channel}: mean {mean:.6f}, variance {variance:.6f} (pixels in [0, 1])")
        order = EpochOrder(manifest, split=split, seed=0, epoch=0)
        print(f"    shuffle in windows of {manifest.window} shards: {shuffle_quality(order)}")
    for what, images in manifest.converted.items():
        print(f"  {images:,} images {what}")
    for reason, files in manifest.left_out.items():
        print(f"  {files:,} files of the source are no images of it: {reason}")
    if manifest.skipped:
        print(f"  {len(manifest.skipped)} unusable source images were left out:")
        for entry in manifest.skipped:
            print(f"    {entry.split} {entry.key}: {entry.reason}")
    sheet = args.contact_sheet or (address.local / SHEET_FILE if address.local else None)
    if sheet is None:
        return
    picture = _sheet_of(manifest, address)
    try:
        with machine_faults(sheet):
            atomic.write_bytes(sheet, picture)
    except MachineFault as fault:
        if args.contact_sheet is not None:
            raise
        print(f"  no contact sheet: {fault}, or name one by --contact-sheet")  # a folder that is only read
    else:
        print(f"  contact sheet: {sheet}")


def pixel_statistics(manifest: Manifest, split: str) -> list[tuple[float, float]]:
    """Mean and variance of each channel over all images of a split, pixels in [0, 1]; exact, from integer sums."""
    shards = manifest.shards_of(split)
    count = manifest.num_samples(split) * manifest.pixels.height * manifest.pixels.width
    statistics = []
    for channel in range(manifest.pixels.channels):
        total = sum(shard.pixel_sum[channel] for shard in shards)
        squares = sum(shard.pixel_square_sum[channel] for shard in shards)
        # The difference is taken between integers, where nothing cancels.
        statistics.append((total / count / 255, (count * squares - total * total) / count**2 / 255**2))
    return statistics


def _sheet_of(manifest: Manifest, address: Address) -> bytes:
    split = manifest.splits[0]
    count = min(_ROWS * _COLUMNS, manifest.num_samples(split))
    spread = np.linspace(0, manifest.num_samples(split) - 1, count).astype(np.int64)  # (count,)
    reader = Reader(manifest, split, shard_files(address, manifest, split=split))
    try:
        images = reader.read(spread)
    except BadSample as error:
        raise InputError(str(error)) from error
    finally:
        reader.close()
    if images.faults:
        raise InputError(images.faults[0])
    return _contact_sheet(images.pixels, columns=_COLUMNS)


def _contact_sheet(images: NDArray[np.uint8], *, columns: int) -> bytes:
    """A PNG of `images`, shape (N, C, H, W), C of 1 or 3, row after row, with one white pixel between them."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 255, np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + 1) + 1, place % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)  # (H, W, C)
    buffer = io.BytesIO()
    Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet).save(buffer, "PNG")
    return buffer.getvalue()
