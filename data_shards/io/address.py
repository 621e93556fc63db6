"""Files in a folder that may be local, remote (whatever fsspec opens: http, https, s3, gs, ...) or behind a command.

shards/celeba                       a folder
s3://bucket/celeba                  fsspec; credentials, endpoint, proxy: as s3fs finds them, or in fsspec's settings
                                    (~/.config/fsspec/*.json, or FSSPEC_S3_ENDPOINT_URL=..., FSSPEC_HTTPS_PROXY=...)
pipe:ssh host cat shards/{}         webdataset's form, with {} for the file name; runs a shell, so only if allowed

A call that brings no byte for a while is ended from outside, whatever the protocol's own timeouts are.
"""

import asyncio
import contextlib
import errno
import os
import re
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import fsspec.asyn
import fsspec.callbacks

from data_shards.io.errors import InputError, MachineFault, machine_fault
from data_shards.io.regular_files import read_regular

T = TypeVar("T")
_SCHEME = re.compile(r"pipe:|[A-Za-z][A-Za-z0-9+.-]+:(//|:)")  # the names of folders may hold colons too
QUIET_SECONDS = 60.0
DEFAULT_PATIENCE_SECONDS = 600.0
DEFAULT_CACHE_BYTES = 64 * 10**9
_SHOW_BYTES = {"http", "https", "gs", "gcs"}  # protocols that tell of each piece of a file, beside S3
_UNSEEN_SECONDS = 300.0  # for the others a whole file may arrive at once
_VERSION_FIELDS = (
    "size",
    "ETag",
    "etag",
    "Content-MD5",
    "md5Hash",
    "Last-Modified",
    "LastModified",
    "updated",
    "mtime",
)
_OF_THIS_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_PASSING_CLIENT_ERRORS = {408, 425, 429}  # timeout, too early, too many requests
_SETTINGS_AT_FAULT = {"NoCredentialsError", "InvalidURL", "InvalidUrlClientError", "ParamValidationError"}


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where shards are, and how they are read from there. For a local folder only `address` matters."""

    address: str
    """A folder: its path, or an address as above."""
    patience_seconds: float = DEFAULT_PATIENCE_SECONDS
    """How long a fault of a server or of the network is waited out, each time one begins; 0 waits for none."""
    cache_bytes: int = DEFAULT_CACHE_BYTES
    """Most bytes of the local copies of remote shards, for all processes of the node and all data sets together."""
    cache_dir: str = ""
    """Folder of these copies; empty: `shards` in the user's cache folder (see `io/disk.py`)."""
    allow_pipe: bool = False
    """Whether the address may be a shell command."""

    @classmethod
    def of(cls, place: "str | Path | Location") -> "Location":
        """`place` itself, or the location of a path or URL with the values above."""
        return place if isinstance(place, Location) else cls(address=os.fspath(place))


class Unreachable(Exception):
    """A file cannot be read from its address at the moment; the message says why. It may pass."""


class Refused(Unreachable):
    """The server does not give the file, or the address or the credentials are wrong: hardly anything that passes."""


class Damaged(Unreachable):
    """What arrived is not what the manifest says."""


class Address:
    """A folder of files, read by name.

    place: path or URL of the folder, or of the manifest.json in it. Raises InputError for a `pipe:` that is not allowed
    or has no {}.
    """

    def __init__(self, place: str | Path | Location) -> None:
        self.location = Location.of(place)
        text = self.location.address.removeprefix("file://")
        if text == "manifest.json" or text.endswith("/manifest.json"):
            text = text.removesuffix("manifest.json").removesuffix("/") or "."
        scheme = _SCHEME.match(text)
        self.text = text
        self.local: Path | None = None if scheme else Path(text)
        self._pipe = text.startswith("pipe:")
        if self._pipe and not self.location.allow_pipe:
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

    def read_bytes(self, name: str, *, quiet_seconds: float = QUIET_SECONDS) -> bytes:
        """The content of a small file, which must be there within `quiet_seconds`.

        Raises FileNotFoundError where there is none, Unreachable for other causes, MachineFault for those of this
        machine.
        """
        if self.local is not None:
            return read_regular(self.local / name)
        with _explained(self.of(name)):
            if self._pipe:
                return _watched(_in_thread(lambda: _read_pipe(self.of(name))), lambda: 0, quiet_seconds)
            system, path = _file_system(self.of(name))
            if isinstance(system, fsspec.asyn.AsyncFileSystem):
                return bytes(_watched(_in_loop(system, system._cat_file(path)), lambda: 0, quiet_seconds))
            return bytes(_watched(_in_thread(lambda: system.cat_file(path)), lambda: 0, quiet_seconds))

    def version(self, name: str, *, quiet_seconds: float = QUIET_SECONDS) -> dict[str, str]:
        """What the server says of the version of a file: its size, ETag, time. May be empty.

        Raises as `read_bytes`.
        """
        if self._pipe:
            return {}
        with _explained(self.of(name)):
            system, path = _file_system(self.of(name))
            if isinstance(system, fsspec.asyn.AsyncFileSystem):
                told = _watched(_in_loop(system, system._info(path)), lambda: 0, quiet_seconds)
            else:
                told = _watched(_in_thread(lambda: system.info(path)), lambda: 0, quiet_seconds)
        return {field: str(told[field]) for field in _VERSION_FIELDS if told.get(field) is not None}

    def download(self, name: str, to: Path, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        """Writes the content of a large file to `to`; ends where no byte arrives for `quiet_seconds`.

        Raises as `read_bytes`.
        """
        with _explained(self.of(name), to):
            # A call that was given up may still write: into the file that it opened, which is no longer `to`.
            fresh = to.with_name(f"{to.name}.new")
            fresh.touch()
            os.replace(fresh, to)
            arrived = fsspec.callbacks.Callback()
            if self._pipe:
                call: Future[Any] = _in_thread(lambda: _save_pipe(self.of(name), to))
            else:
                system, path = _file_system(self.of(name))
                options: dict[str, Any] = {"callback": arrived}
                protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
                if "s3" in protocols:
                    options["max_concurrency"] = 1  # else large parts arrive unseen
                elif not _SHOW_BYTES & protocols:
                    quiet_seconds = max(quiet_seconds, _UNSEEN_SECONDS)
                if isinstance(system, fsspec.asyn.AsyncFileSystem):
                    call = _in_loop(system, system._get_file(path, os.fspath(to), **options))
                else:
                    call = _in_thread(lambda: system.get_file(path, os.fspath(to), **options))
            _watched(call, lambda: arrived.value + _size(to), quiet_seconds)


def _file_system(url: str) -> tuple[Any, str]:
    protocol = url.partition(":")[0]
    options: dict[str, Any] = {}
    if protocol in ("http", "https") and "client_kwargs" not in fsspec.config.conf.get(protocol, {}):
        import aiohttp

        # aiohttp ends each request after five minutes, however well it runs; `_watched` ends those that do not run.
        options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=None)}
    try:
        system, path = fsspec.core.url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise InputError(f"{url}: cannot be opened ({error}); use a path, http(s):// or s3://") from error
    return system, path


def _in_loop(system: Any, coroutine: Any) -> "Future[Any]":
    return asyncio.run_coroutine_threadsafe(coroutine, system.loop)


def _in_thread(action: Callable[[], T]) -> "Future[T]":
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # else one that is given up would not take its late result

    def work() -> None:
        try:
            result = action()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=work, daemon=True).start()
    return future


def _watched(call: "Future[T]", progress: Callable[[], int], quiet_seconds: float) -> T:
    """The result of `call`, which is given up where `progress` stays the same for `quiet_seconds`."""
    seen, since = progress(), time.monotonic()
    while not wait([call], timeout=max(0.05, min(1.0, since + quiet_seconds - time.monotonic()))).done:
        now = time.monotonic()
        if (done := progress()) != seen:
            seen, since = done, now
        elif now - since >= quiet_seconds:
            call.cancel()
            raise TimeoutError(f"nothing arrived for {quiet_seconds:.0f} s")
    return call.result()


@contextlib.contextmanager
def _explained(url: str, to: Path | None = None) -> Iterator[None]:
    """Turns what a protocol raises into FileNotFoundError, MachineFault, Refused or Unreachable that names the file."""
    try:
        yield
    except (InputError, MachineFault):
        raise
    except Exception as error:  # each protocol has a family of exceptions of its own
        causes = list(_causes(error))
        for cause in causes:
            here = isinstance(cause, OSError) and (
                cause.errno in _OF_THIS_MACHINE or (to is not None and cause.filename == os.fspath(to))
            )
            if here and (fault := machine_fault(cause, to or url)) is not None:
                raise fault from error
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, "no such file", url) from error
        text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        reason = Refused if any(map(_is_refusal, causes)) else Unreachable
        raise reason(f"{url}: cannot be read ({text})") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, as far as each protocol names them."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        now = waiting.pop()
        if now is not None and now not in seen:
            seen.append(now)
            yield now
            os_error = getattr(now, "os_error", None)
            waiting += [now.__cause__, now.__context__, os_error if isinstance(os_error, OSError) else None]


def _is_refusal(error: BaseException) -> bool:
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status not in _PASSING_CLIENT_ERRORS
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_NONAME
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        # s3fs reports refusals by these numbers.
        return isinstance(error, PermissionError | ssl.SSLCertVerificationError) or error.errno == errno.EINVAL
    return type(error).__name__ in _SETTINGS_AT_FAULT


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_pipe(address: str) -> bytes:
    with _open_pipe(address) as stream:
        return bytes(stream.read())


def _save_pipe(address: str, to: Path) -> None:
    with _open_pipe(address) as stream, to.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)


def _open_pipe(address: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    import webdataset  # takes seconds to import, and few need it

    return webdataset.gopen(address)
