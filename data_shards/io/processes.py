"""Which process of which machine this is, and whether another one still runs."""

import os
import shlex
import socket
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process, distinguished from others that had the same number before or have it elsewhere."""

    host: str
    pid: int
    started: int
    """When it started, in ticks since its machine started; 0 where the system does not say."""
    boot: str
    """Changes each time the machine starts; empty where the system does not say."""
    namespace: str
    """Containers of one machine count their processes apart; empty where the system does not say."""
    command: str
    """The command line, cut to 120 characters."""

    def is_of_this_machine(self) -> bool:
        """Whether this process can see it, if it still runs."""
        here = this_process()
        return (self.host, self.boot, self.namespace) == (here.host, here.boot, here.namespace)

    def was_before_a_restart(self) -> bool:
        """Whether a machine of this name has started again since."""
        here = this_process()
        return self.host == here.host and bool(self.boot) and self.boot != here.boot

    def runs(self) -> bool:
        """Whether it still runs. Asked only of a process of this machine."""
        state = _state(self.pid)
        return state is not None and (not self.started or state == self.started)


def this_process() -> Process:
    """The process that calls."""
    return _process(os.getpid())


@cache
def _process(pid: int) -> Process:
    command = shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]) if sys.orig_argv else "python"
    return Process(
        host=socket.gethostname(),
        pid=pid,
        started=_state(pid) or 0,
        boot=_text(_PROC / "sys/kernel/random/boot_id"),
        namespace=_link(_PROC / "self/ns/pid"),
        command=" ".join(command.split())[:120],
    )


def _state(pid: int) -> int | None:
    """The start of a running process in ticks, 0 where the system does not say; None where it has ended."""
    if not (_PROC / "self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass  # of another user
        return 0
    try:
        # "PID (NAME) STATE ..."; the start is the 22nd field. A zombie has ended, and its parent has not looked yet.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
