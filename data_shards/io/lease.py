"""A lease on a folder: one process at a time works in it, also where machines share the disk.

The lease is the file .lease.json (or .lease-NAME.json) in the folder. It names the process that holds it, which touches
the file every 10 seconds. It is stale, and the next process takes it over,

    at once               where its holder ran on this machine and has ended
    after 30 seconds      without a touch where this machine has restarted since
    after 120 seconds     without a touch where the holder runs on another machine, or on this one in another folder

The last is a lease that was copied with its folder while its holder worked there. That folders differ is seen by the
numbers that the file system gives them; some file systems give one folder several, so the holder is waited for.

A lease file is created exclusively, which shared file systems do atomically, and it is removed or replaced only by the
process that first made the mark .lease.json.TOKEN.end1: by its holder, or by one that takes it over. So two processes
that find the same stale lease cannot both get it. Who takes over renames its mark to the lease file, so that the former
holder at no moment finds no lease and reads who has it now. Ages are differences of times that the file system itself
gives, so the clocks of machines may differ.
"""

import contextlib
import hashlib
import json
import os
import secrets
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from data_shards.io.errors import InputError, machine_faults
from data_shards.io.processes import Process, this_process

HEARTBEAT_SECONDS, RESTARTED_SECONDS, STALE_SECONDS = 10.0, 30.0, 120.0
_SECONDS_BETWEEN_LOOKS = 0.4


class LeaseHeld(InputError):
    """Another process works in the folder."""


class LeaseLost(InputError):
    """The folder is no longer ours: this process must write nothing more."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A lease file, or a mark, as it was read."""

    token: str
    """Differs from that of any other lease on the same path."""
    holder: Process | None
    """None where the content cannot be read: it is being written, or was damaged."""
    in_folder: str
    """What `_numbers` gave for the folder where the lease was made; empty where an earlier version made it."""
    since: str
    touched: int
    """Time of the last touch by the file system, ns."""

    def is_local(self, folder: Path) -> bool:
        """Whether the holder is of this machine, where its end can be seen, and of this folder."""
        here = self.holder is not None and self.holder.is_of_this_machine()
        return here and self.in_folder in ("", _numbers(folder))

    def is_stale(self, folder: Path) -> bool:
        """Whether the next process may take it over."""
        if self.holder is not None and self.holder.is_of_this_machine():
            if not self.holder.runs():
                return True
            if self.is_local(folder):
                return False
        restarted = self.holder is not None and self.holder.was_before_a_restart()
        return (_now(folder) - self.touched) / 1e9 >= (RESTARTED_SECONDS if restarted else STALE_SECONDS)

    def __str__(self) -> str:
        if self.holder is None:
            return "a process that its damaged lease file does not name"
        return f"process {self.holder.pid} on {self.holder.host} (`{self.holder.command}`) since {self.since}"


class Lease:
    """A lease that this process holds; made by `lease`."""

    def __init__(self, path: Path, token: str) -> None:
        self.path, self._token = path, token
        self._process, self._ended = os.getpid(), threading.Event()
        self._lost = ""
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    @property
    def is_lost(self) -> bool:
        """Whether the lease was found lost at the last heartbeat; reads no file."""
        return bool(self._lost)

    def check(self) -> None:
        """Raises LeaseLost where the folder is no longer ours; reads the file, so it is called before a write."""
        self._look()
        if self._lost:
            raise LeaseLost(self._lost)

    def _look(self) -> None:
        with contextlib.suppress(OSError):  # the disk does not answer now
            try:
                found = _read(self.path)
            except InputError as error:
                self._lost = str(error)
                return
            if found is None:
                self._lost = f"{self.path.parent}: the lease file {self.path.name} was removed while this process ran"
            elif found.token != self._token:
                self._lost = f"{self.path.parent}: taken over by {found}; this process stops and writes nothing more"

    def _keep(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS) and not self._lost:
            self._look()
            if not self._lost and not self._ended.is_set():
                with contextlib.suppress(OSError):
                    os.utime(self.path)

    def release(self) -> None:
        """Removes the lease file, where it is still ours."""
        self._ended.set()
        if os.getpid() == self._process and not self._lost:  # a forked process has a copy that is not its own
            with contextlib.suppress(OSError):
                _end(self.path, self._token)


@contextlib.contextmanager
def lease(folder: Path, name: str = "", *, steal: bool = False) -> Iterator[Lease]:
    """Holds the lease on an existing folder, or on the one thing `name` in it, for the length of the block.

    steal: takes it from the process that holds it now, which stops when it finds out. Waits up to STALE_SECONDS where
    the holder is on another machine and may have ended, and says so on stderr; where it is seen to work, raises
    LeaseHeld. Raises OSError where the folder cannot be written.
    """
    held = _acquire(folder / (f".lease-{name}.json" if name else ".lease.json"), steal)
    try:
        yield held
    finally:
        held.release()


def is_held(folder: Path) -> bool:
    """Whether there is a lease on the folder, stale or not."""
    return (folder / ".lease.json").exists()


def leased_names(folder: Path) -> list[str]:
    """The names of which there are leases in the folder, stale or not; "" is that of the folder itself."""
    files = sorted(path.name for path in folder.glob(".lease*.json"))
    return [file.removeprefix(".lease").removesuffix(".json").removeprefix("-") for file in files]


def _acquire(path: Path, steal: bool) -> Lease:
    folder, token = path.parent, secrets.token_hex(8)
    first = _read(path)
    watched: _Found | None = None
    said, since = False, 0.0
    while not _create(path, token):
        found = _read(path)
        if found is None:
            continue  # it has ended in between
        # The clock of the disk may have been set back since: its holder is silent as long as it was watched in vain.
        silent = watched == found and time.monotonic() - since >= STALE_SECONDS
        if (steal and first is not None and found.token == first.token) or silent or found.is_stale(folder):
            if _end(path, found.token, successor=token):
                if steal or not found.is_local(folder):
                    print(f"{folder}: taken over from {found}", file=sys.stderr, flush=True)
                break
        elif watched is None or watched.token != found.token:
            watched, said, since = found, False, time.monotonic()
        elif found.is_local(folder) or watched.touched != found.touched:  # at a second look: it may have been ending
            raise LeaseHeld(f"{folder}: in use by {found}; wait for it, stop it, or take the folder over: --steal-lock")
        elif not said:
            said = True
            print(
                f"{folder}: in use by {found}; waiting for a sign of life, at most {STALE_SECONDS:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return Lease(path, token)


def _create(path: Path, token: str) -> bool:
    """Makes a lease file or a mark; False where it exists."""
    content = {"token": token, "since": time.strftime("%Y-%m-%d %H:%M:%S %z"), "folder": _numbers(path.parent)}
    content |= asdict(this_process())
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with machine_faults(path), os.fdopen(handle, "w") as file:
            file.write(json.dumps(content, indent=1) + "\n")
    except OSError:  # the disk is full
        path.unlink(missing_ok=True)
        raise
    return True


def _read(path: Path) -> _Found | None:
    """A lease file or a mark; None where there is none. Raises InputError where it is no file."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise InputError(f"{path}: is no file, but a lease file is written here; rename it")
        with path.open("rb") as file:
            content, status = file.read(), os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    record = _parsed(content)
    if record is None:
        token = hashlib.sha256(content + str(status.st_ino).encode()).hexdigest()[:16]
        return _Found(token=token, holder=None, in_folder="", since="", touched=status.st_mtime_ns)
    holder = Process(**{field.name: record[field.name] for field in fields(Process)})
    return _Found(
        token=record["token"],
        holder=holder,
        in_folder=str(record.get("folder", "")),
        since=record["since"],
        touched=status.st_mtime_ns,
    )


def _numbers(folder: Path) -> str:
    """The numbers of a folder and of its file system here, which differ from those of any other folder."""
    status = folder.stat()
    return f"{status.st_dev}:{status.st_ino}"


def _now(folder: Path) -> int:
    """The time by the file system of `folder`, ns: machines that share it may have other clocks."""
    with machine_faults(folder), tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"1")
        probe.flush()
        return os.fstat(probe.fileno()).st_mtime_ns


def _parsed(content: bytes) -> dict[str, Any] | None:
    kinds = {"host": str, "pid": int, "started": int, "boot": str, "namespace": str, "command": str}
    kinds |= {"token": str, "since": str}
    try:
        record = json.loads(content)
    except ValueError:
        return None
    if not isinstance(record, dict) or any(type(record.get(name)) is not kind for name, kind in kinds.items()):
        return None
    return record if record["token"].isalnum() else None  # it becomes part of a file's name


def _end(path: Path, token: str, successor: str = "") -> bool:
    """Removes the lease with this token, or puts one of this process with the token `successor` in its place.

    False where another process is removing it, or has removed it.
    """
    for number in range(1, 100):
        mark = path.with_name(f"{path.name}.{token}.end{number}")
        if _create(mark, successor or secrets.token_hex(8)):
            break
        other = _read(mark)
        if other is None or not other.is_stale(path.parent):
            return False
        # Its maker died between the mark and the removal, so the next mark decides.
    else:
        return False
    found = _read(path)
    mine = found is not None and found.token == token
    if mine and successor:
        mark.replace(path)
    elif mine:
        path.unlink(missing_ok=True)
    # Whoever makes one of these marks again finds another lease, or none, and removes nothing.
    for made in range(number, 0, -1):
        path.with_name(f"{path.name}.{token}.end{made}").unlink(missing_ok=True)
    return mine
