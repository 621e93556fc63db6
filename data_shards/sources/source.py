"""What a source of images is: keys per split, the samples behind them, and what is done to its images by default."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from data_shards.decoding.bad_image import BadImage
from data_shards.io.errors import InputError, at_least, machine_fault
from data_shards.pixels import Encoding, Fit, Pixels, colour

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
    extras: Mapping[str, bytes] = field(default_factory=dict)
    """Other members of the sample by extension: a class as "cls", attributes as "json"."""


class Source(Protocol):
    """A data set as its authors distribute it. Sent to worker processes, so it opens its files when first read."""

    name: str
    keys: Mapping[str, Sequence[str]]
    """WebDataset keys of each split, in source order."""

    def read(self, split: str, index: int) -> Sample:
        """The sample `index` of a split. Raises pixels.BadImage, saying why, where it is missing or unreadable."""

    def fingerprint(self) -> str:
        """A hash of the listing, by which a build finds that the source has changed since it was interrupted."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An entry of `SOURCES`: how a kind of source is opened, and the defaults for its images."""

    name: str
    open: Callable[[Path, int], Source]
    """Opens the folder of its files; the number is how many training images become the split valid."""
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
    num_valid: int | None = 0
    """How many training images become the split valid unless the user chooses; None: the splits are official."""
    encoded: bool = True
    """Whether the source holds encoded files, whose bytes shards of encoding `original` keep."""

    def open_source(self, folder: Path | None, num_valid: int | None) -> Source:
        """The source in `folder`, which may be None where it can be found. Raises InputError."""
        if folder is None and self.find is not None:
            folder = self.find()
        if folder is None:
            raise InputError(f"needed for {self.name}; give the folder of its files", parameter="source")
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; give the folder of the files of {self.name}", parameter="source")
        return self.open(folder, num_valid or 0)

    def checked_num_valid(self, num_valid: int | None) -> int | None:
        """The chosen number of validation images, or the default for None. Raises InputError."""
        if num_valid is None:
            return self.num_valid
        if self.num_valid is None:
            raise InputError(f"{self.name} has its official splits; leave the option out", parameter="num_valid")
        at_least(0, num_valid=num_valid)
        return num_valid

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
            background=colour(background or WHITE) if self.encoded or padded else None,
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


def fingerprint_of_keys(keys: Mapping[str, Sequence[str]]) -> str:
    """sha256 over the names of the splits and their keys."""
    digest = hashlib.sha256()
    for split, names in keys.items():
        digest.update(f"{split} {len(names)}\n".encode())
        for name in names:
            digest.update(name.encode(errors="surrogateescape") + b"\n")  # paths may hold any bytes
    return digest.hexdigest()


def read_file(path: Path) -> bytes:
    """The bytes of an image file. Raises BadImage where it is missing or unreadable, MachineFault for the machine."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadImage("missing") from error
    except OSError as error:
        if (fault := machine_fault(error, path)) is not None:
            raise fault from error
        raise BadImage(f"unreadable: {error.strerror}") from error


def encoded_sample(data: bytes, extension: str, extras: Mapping[str, bytes]) -> Sample:
    """A sample of encoded bytes. Raises BadImage where there are none."""
    if not data:
        raise BadImage("empty")
    return Sample(image=data, extension=extension, extras=extras)
