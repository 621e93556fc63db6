"""Where shards are: a local folder or any address that fsspec opens (http, https, s3, gs, ...)."""

import os
import re
from pathlib import Path

import fsspec

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


class Address:
    """A folder of files, read by name."""

    def __init__(self, address: str | Path) -> None:
        text = os.fspath(address).removesuffix("/manifest.json").removesuffix("manifest.json")
        text = text.removeprefix("file://")
        scheme = _SCHEME.match(text)
        self.text = text or "."
        self.local: Path | None = None if scheme else Path(self.text)

    def of(self, name: str) -> str:
        """The address of a file in the folder."""
        return os.fspath(self.local / name) if self.local is not None else f"{self.text.rstrip('/')}/{name}"

    def read_bytes(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError where there is none."""
        if self.local is not None:
            return (self.local / name).read_bytes()
        with fsspec.open(self.of(name), "rb") as file:
            return file.read()
