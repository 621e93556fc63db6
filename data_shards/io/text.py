"""Text files as programs of all systems write them."""

import codecs
import os
from pathlib import Path

from data_shards.io.errors import InputError
from data_shards.io.regular_files import open_regular, read_regular

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Of what a person writes by hand: a configuration, a file of DeepSpeed.
_MOST_BYTES = 1_000_000
# What a shell puts in the place of a file, for `<(command)` or a pipe into the command; it ends when that ends.
_OF_THE_SHELL = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")


def in_utf8(text: str) -> str:
    """Text as UTF-8 can hold it: bytes of file names that are no UTF-8, which Python's paths have as surrogates, become
    escapes such as \\xff."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def read_settings(path: str | Path) -> str:
    """The text of a file of settings, in UTF-8 with or without a byte order mark.

    Raises InputError where the path is a pipe or a device, which might never end, or holds more than a person writes;
    UnicodeDecodeError and OSError as usual.
    """
    with open(path, "rb", opener=_regular_file) as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: has more than {_MOST_BYTES // 10**6} MB; use a file of settings")
    return data.decode("utf-8-sig")


def _regular_file(path: str, flags: int) -> int:
    if str(path).startswith(_OF_THE_SHELL):
        return os.open(path, flags)
    return open_regular(path, flags)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, or in UTF-16 or UTF-32 with or without a byte order mark.

    Lines end as on any system. Raises InputError where the file is anything else, or a pipe or a device.
    """
    data = read_regular(path)
    try:
        return data.decode(_encoding(data)).splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text in UTF-8 or UTF-16 ({error.reason}); get the file again") from error


def _encoding(data: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding
    # Without a mark: a letter of ASCII in UTF-16 has a zero beside it.
    if data[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if data[:1] == b"\0" else "utf-8"
