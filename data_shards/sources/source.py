"""What a source of images is: keys per split, the samples behind them, and what is done to its images by default."""

import functools
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.decode import MOST_PIXELS
from data_shards.io.errors import InputError, at_least, raise_machine_fault
from data_shards.io.regular_files import read_regular
from data_shards.pixels import Encoding, Fit, Pixels, colour
from data_shards.sources.portion import HeldOutPortions, Portion, portion

WHITE = "#ffffff"
Crop = int | Literal["square", "none"]
"""Side of the centred square that is cut out of an image, in pixels; the largest that there is; nothing."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image of a source, with what is known about it."""

    image: NDArray[np.uint8] | bytes
    """Pixels, H x W x C, where the source holds arrays; else the encoded file."""
    extension: str = ""
    """Extension of the encoded file, lower case, without the dot."""
    label: str = ""
    """Name of its class, which the index of the shard keeps; empty where none is known."""
    extras: Mapping[str, bytes] = field(default_factory=dict)
    """Other members of the sample by extension: a class as "cls", attributes as "json"."""


Read = Callable[[int], Sample]
"""Reads one of some images by its place among them. Raises BadImage, saying why, where it is missing or unreadable."""


class Source(Protocol):
    """A data set as its authors distribute it. What has a default here is inherited by naming it as the base class."""

    name: str
    keys: Mapping[str, Sequence[str]]
    """WebDataset keys of each split, in source order."""

    @abstractmethod
    def read(self, split: str, index: int) -> Sample:
        """The sample `index` of a split. Raises BadImage, saying why, where it is missing or unreadable."""

    @abstractmethod
    def stamps(self, split: str) -> NDArray[np.uint64]:
        """64 bits for each image of a split, which are others when the image is replaced: of the file's size and time,
        as `stamp_of_file` makes them, or of the content. Images whose stamps are as before are not read again.
        """

    def reader(self, split: str, rows: NDArray[np.int64]) -> Read:
        """Reads the images `rows` of a split. It is sent to a worker, so a large source sends less than itself."""
        return functools.partial(_read_row, self, split, rows)

    def hashes(self, split: str) -> NDArray[np.uint64] | None:
        """64 bits for each image of a split, of its name alone, by which the images are spread over the shards, so that
        few shards change when images are added or removed. None keeps the order of the source instead."""
        return None

    def division(self) -> Mapping[str, Any]:
        """What decides the split of an image, as JSON; empty where the splits are those of the authors."""
        return {}

    def left_out(self) -> Mapping[str, int]:
        """How many files of the source are not taken for images, by reason."""
        return {}

    def notes(self) -> Sequence[str]:
        """What was found and decided, a line each, for the person who builds."""
        return ()


def _read_row(source: Source, split: str, rows: NDArray[np.int64], place: int) -> Sample:
    return source.read(split, int(rows[place]))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An entry of `SOURCES`: how a kind of source is opened, and the defaults for its images."""

    name: str
    open: Callable[[Path, HeldOutPortions], Source]
    """Opens the folder of its files, with what is to be held out of the training images."""
    files: str
    """What the folder holds, for the help."""
    find: Callable[[], Path] | None = None
    """Finds or downloads the folder where the user gives none."""
    channels: Literal[1, 3] | None = None
    """1 (grey) or 3 (RGB); None: the user chooses, RGB by default."""
    size: int = 64
    """Side of the images in pixels unless the user chooses another."""
    resize: bool = True
    """Whether the images are resized to that side; otherwise they have it."""
    crop: Crop = "none"
    """What is cut out first unless the user chooses otherwise."""
    valid: Portion | None = None
    """What becomes the split valid unless the user chooses; None: the source has its own splits, and no other."""
    test: Portion | None = None
    """What becomes the split test, in the same way."""
    takes_every_image: bool = False
    """Whether every image below the folder belongs to the source, so that no shards may be written there."""
    encoded: bool = True
    """Whether the source holds encoded files, whose bytes shards of encoding `original` keep."""

    def open_source(self, folder: Path | None, held_out: HeldOutPortions) -> Source:
        """The source in `folder`, which may be None where it can be found. Raises InputError."""
        if folder is None and self.find is not None:
            folder = self.find()
        if folder is None:
            raise InputError(f"needed for {self.name}; give the folder of its files", parameter="source")
        if folder.is_file():
            raise InputError(f"{folder} is a file; unpack an archive, and give the folder", parameter="source")
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; {self.name} needs {self.files}", parameter="source")
        return self.open(folder, held_out)

    def checked_portion(self, name: str, chosen: str | int | None) -> Portion | None:
        """What is to be held out as the split `name`, valid or test; None: the default. Raises InputError where the
        source has its own splits, so that nothing can be chosen.
        """
        if chosen is None:
            return None
        if getattr(self, name) is None:
            raise InputError(f"{self.name} has its own splits; leave the option out", parameter=name)
        return portion(chosen, name)

    def pixels(
        self,
        *,
        size: int | None,
        crop: Crop | None,
        fit: Fit | None,
        background: str | None,
        channels: int | None,
        encoding: Encoding,
    ) -> Pixels:
        """The chosen pixels, with the defaults for None. Raises InputError."""
        if channels is not None and self.channels is not None:
            colours = "grey" if self.channels == 1 else "RGB"
            raise InputError(f"{self.name} is {colours}; leave the option out", parameter="channels")
        if encoding == "original" and not self.encoded:
            raise InputError(f"{self.name} holds no encoded images; use raw, png or jpeg", parameter="encoding")
        side = self.size if size is None else size
        at_least(1, size=side)
        if side**2 > MOST_PIXELS:
            raise InputError(f"{side} is too large; use at most {math.isqrt(MOST_PIXELS)}", parameter="size")
        resize = self.resize or size is not None
        crop = self._checked_crop(crop, fit)
        if fit is not None and not resize:
            raise InputError("nothing is resized; give a size, or leave the option out", parameter="fit")
        padded = resize and crop == "none" and fit != "stretch"
        if background is not None and not self.encoded and not padded:
            raise InputError(f"{self.name} holds no transparent images; leave the option out", parameter="background")
        return Pixels(
            channels=self.channels or cast(Literal[1, 3], 3 if channels is None else channels),  # checked by Pixels
            height=side,
            width=side,
            crop=None if crop == "none" else crop,
            resize=resize,
            fit=fit or ("pad" if padded else "stretch"),
            background=colour(WHITE if background is None else background) if self.encoded or padded else None,
            encoding=encoding,
        )

    def _checked_crop(self, crop: Crop | None, fit: Fit | None) -> Crop:
        if crop is None:
            return self.crop if fit is None else "none"  # whoever says how the whole image is to fit wants the whole
        if crop not in ("square", "none"):
            if not isinstance(crop, int):
                raise InputError(f"{crop!r} is not a number of pixels, square or none", parameter="crop")
            at_least(1, crop=crop)
        if crop != "none" and fit is not None:
            raise InputError("a square needs none; leave the option out, or cut nothing", parameter="fit")
        return crop


def stamp_of_file(path: str | Path) -> int:
    """64 bits of a file's size and time; 0 where it cannot be found."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return xxhash.xxh3_64_intdigest(b"%d %d" % (status.st_size, status.st_mtime_ns))


def content_stamp(read: Read, place: int) -> int:
    """64 bits of what `read` gives for an image."""
    try:
        return content_of(read(place))
    except BadImage as error:
        return content_of_bad(error)


def content_of(sample: Sample) -> int:
    """64 bits of the bytes of an image and of what else is known about it."""
    digest = xxhash.xxh3_64(
        sample.image if isinstance(sample.image, bytes) else np.ascontiguousarray(sample.image).data
    )
    for name, content in sample.extras.items():
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.intdigest()


def content_of_bad(error: BadImage) -> int:
    """64 bits of what is wrong with an image that cannot be read."""
    return xxhash.xxh3_64_intdigest(f"bad: {error}".encode(errors="surrogateescape"))


def read_file(path: Path) -> bytes:
    """The bytes of an image file. Raises BadImage where it is missing or unreadable, MachineFault for the machine."""
    try:
        return read_regular(path)
    except FileNotFoundError as error:
        raise BadImage("missing") from error
    except InputError as error:
        raise BadImage("a pipe or a device") from error
    except OSError as error:
        raise_machine_fault(error, path)
        raise BadImage(f"unreadable: {error.strerror}") from error


def encoded_sample(data: bytes, extension: str, extras: Mapping[str, bytes]) -> Sample:
    """A sample of encoded bytes. Raises BadImage where there are none."""
    if not data:
        raise BadImage("empty")
    return Sample(image=data, extension=extension, extras=extras)
