"""Reads one encoded image of a source."""

from pathlib import Path

from data_shards.build.tar_member import IMAGE_EXTENSIONS
from data_shards.pixels import BadImage
from data_shards.sources.sample import Sample

# .npy is what shards hold, not what image folders do.
ENCODED_EXTENSIONS = IMAGE_EXTENSIONS - {"npy"}


def read_file(path: Path) -> bytes:
    """The bytes of an image file. Raises BadImage where it is missing, empty or unreadable."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BadImage("missing") from error
    except OSError as error:
        raise BadImage(f"unreadable: {error.strerror}") from error
    return data


def encoded_sample(data: bytes, extension: str, extras: dict[str, bytes]) -> Sample:
    """A sample of encoded bytes. Raises BadImage where there are none."""
    if not data:
        raise BadImage("empty")
    return Sample(image=data, extension=extension, extras=extras)
