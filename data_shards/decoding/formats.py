"""Which files are images: the formats that the installed Pillow decodes, and those of its plugins."""

import contextlib
import functools
import importlib
import logging

from PIL import Image, ImageFile

PLUGINS = {"heic": "pillow-heif", "heif": "pillow-heif", "hif": "pillow-heif", "jxl": "pillow-jxl-plugin"}
"""Extensions of photographs that Pillow reads with a plugin, and the package that it is in."""
_PLUGIN_MODULES = {"pillow-heif": "pillow_heif", "pillow-jxl-plugin": "pillow_jxl"}
# Pillow hands EPS to Ghostscript, which runs a program from the file, and knows MPEG videos by name only.
_NOT_DECODED = {"EPS", "MPEG"}
# Formats whose first bytes cannot be those of anything else, and the extension to use where a file has none.
_KNOWN_BY_CONTENT = {
    "JPEG": "jpg",
    "PNG": "png",
    "GIF": "gif",
    "WEBP": "webp",
    "AVIF": "avif",
    "JPEG2000": "jp2",
    "HEIF": "heic",
    "JXL": "jxl",
}
# By their first bytes, whatever a file is called: the brands of HEIC (ISO 14496-12), and the two beginnings of JPEG XL.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_JXL_BEGINNINGS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
PREFIX_BYTES = 16  # what Pillow itself looks at


@functools.cache
def formats() -> tuple[str, ...]:
    """The names of the formats that Pillow decodes here, its optional plugins included where they are installed."""
    # What is wrong with a file is in the error that is raised; Pillow's log would repeat it on the terminal.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    for module in _PLUGIN_MODULES.values():
        with contextlib.suppress(ImportError):  # not installed, or not for this version of Pillow
            plugin = importlib.import_module(module)
            getattr(plugin, "register_heif_opener", lambda: None)()
    Image.init()
    return tuple(name for name, (reader, _) in Image.OPEN.items() if name not in _NOT_DECODED and not _is_stub(reader))


def _is_stub(reader: object) -> bool:
    # Pillow knows some formats without a decoder for them.
    return isinstance(reader, type) and issubclass(reader, ImageFile.StubImageFile)


@functools.cache
def extensions() -> frozenset[str]:
    """The extensions of those formats, lower case, without the dot."""
    known = formats()
    return frozenset(extension[1:] for extension, name in Image.registered_extensions().items() if name in known)


def missing_plugin(extension: str) -> str | None:
    """The package that would read files of an extension (lower case, without the dot), where it is not installed."""
    return PLUGINS.get(extension) if extension not in extensions() else None


def missing_plugin_by_content(data: bytes) -> str | None:
    """The same by the first bytes of a file that may have any name."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return missing_plugin("heic")
    return missing_plugin("jxl") if data.startswith(_JXL_BEGINNINGS) else None


@functools.cache
def member_extensions() -> frozenset[str]:
    """The extensions that the image members of a shard may have, wherever it was built.

    Formats that run code when they are read (.pyd, .pickle, .pth) are refused everywhere.
    """
    return extensions() | PLUGINS.keys() | {"npy"}


def extension_by_content(data: bytes) -> str | None:
    """The extension that fits a file's first bytes where they are of a common format beyond doubt, else None.

    data: at least `PREFIX_BYTES` of them, where the file has so many
    """
    prefix = data[:PREFIX_BYTES]
    known = formats()
    for name, extension in _KNOWN_BY_CONTENT.items():
        # Accept functions return True, or a text where the format is known but not supported here.
        if name in known and (accept := Image.OPEN[name][1]) is not None and accept(prefix) is True:
            return extension
    return None
