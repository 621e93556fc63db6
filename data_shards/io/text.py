"""Text files as programs of all systems write them."""

import codecs
from pathlib import Path

from data_shards.io.errors import InputError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, or in UTF-16 or UTF-32 with or without a byte order mark.

    Lines end as on any system. Raises InputError where the file is anything else.
    """
    data = path.read_bytes()
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
