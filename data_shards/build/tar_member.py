"""Bytes of tar members that depend on nothing but their name and content: no time, no user, no machine."""

import tarfile

BLOCK = 512
END = bytes(2 * BLOCK)

# What a shard may hold. Formats that run code when they are read (.pyd, .pickle, .pth) are refused everywhere.
IMAGE_EXTENSIONS = frozenset({"npy", "png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif"})
EXTENSIONS = IMAGE_EXTENSIONS | {"cls", "json"}


def header(name: str, size: int) -> bytes:
    """The header of a regular file, in POSIX pax form, which for short ASCII names is plain ustar."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """What follows a member of `size` bytes, up to the next block."""
    return bytes(-size % BLOCK)
