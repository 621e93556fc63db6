"""Files in a folder that may be local, remote (whatever fsspec opens: http, https, s3, gs, ...) or behind a command.

shards/celeba                       a folder
s3://bucket/celeba                  fsspec; credentials and endpoint as s3fs finds them in the environment
pipe:ssh host cat shards/{}         webdataset's form, with {} for the file name; runs a shell, so only if allowed
"""

import errno
import os
import re
import shutil
from pathlib import Path

import fsspec

from data_shards.io.errors import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


class Unreachable(Exception):
    """A file cannot be read from its address; the message says why."""


class Address:
    """A folder of files, read by name.

    address      path or URL of the folder, or of the manifest.json in it
    allow_pipe   whether `pipe:` may run its command

    Raises InputError for a `pipe:` that is not allowed or has no {}.
    """

    def __init__(self, address: str | Path, *, allow_pipe: bool = False) -> None:
        text = os.fspath(address).removeprefix("file://")
        if text == "manifest.json" or text.endswith("/manifest.json"):
            text = text.removesuffix("manifest.json").removesuffix("/") or "."
        scheme = _SCHEME.match(text)
        self.text = text
        self.local: Path | None = None if scheme else Path(text)
        self._pipe = text.startswith("pipe:")
        if self._pipe and not allow_pipe:
            raise InputError(
                f"{text} runs a shell command and is not allowed; allow it or use another address",
                parameter="allow_pipe",
            )
        if self._pipe and "{}" not in text:
            raise InputError(f"{text}: no {{}} where the file name goes, as in 'pipe:ssh host cat shards/{{}}'")

    def of(self, name: str) -> str:
        """The address of a file in the folder."""
        if self._pipe:
            return self.text.replace("{}", name)
        return os.fspath(self.local / name) if self.local is not None else f"{self.text.rstrip('/')}/{name}"

    def read_bytes(self, name: str) -> bytes:
        """The content of a small file. Raises FileNotFoundError where there is none, Unreachable for other causes."""
        if self.local is not None:
            return (self.local / name).read_bytes()
        try:
            if self._pipe:
                with _open_pipe(self.of(name)) as stream:
                    return bytes(stream.read())
            system, path = fsspec.core.url_to_fs(self.of(name))
            return bytes(system.cat_file(path))
        except FileNotFoundError:
            raise
        except Exception as error:  # each protocol has a family of exceptions of its own
            raise Unreachable(f"{self.of(name)}: cannot be read ({type(error).__name__}: {error})") from error

    def download(self, name: str, to: Path) -> None:
        """Writes the content of a large file to `to`. Raises Unreachable, or OSError where the disk is full."""
        try:
            if self._pipe:
                with _open_pipe(self.of(name)) as stream, to.open("wb") as file:
                    shutil.copyfileobj(stream, file, 1 << 20)
                return
            system, path = fsspec.core.url_to_fs(self.of(name))
            system.get_file(path, os.fspath(to))
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Unreachable(f"{self.of(name)}: cannot be read ({type(error).__name__}: {error})") from error


def _open_pipe(address: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    import webdataset  # takes seconds to import, and few need it

    return webdataset.gopen(address)
