"""Pausing a sweep: its running trials save and wait, before the sweep ends and is continued later.

A trial saves where a file STOP lies in its run folder. Those that a pausing sweep writes hold one line, by which they
are told apart from one that a person made.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from data_shards.io.atomic import write_text
from tune.trial.folder import trial_folders

EXIT_CODE = 128 + signal.SIGUSR2
"""Of a sweep that was paused: as if the signal had ended it, which batch scripts take for a request to start again."""
_TEXT = "the sweep is paused; the same command continues it\n"


def pause(folder: Path, seconds: float) -> int:
    """Lets the trials below `folder` that train save, for at most that many seconds. Returns how many have done so."""
    asked = [trial for trial in trial_folders(folder) if _trains(trial) and not (trial / "STOP").exists()]
    for trial in asked:
        write_text(trial / "STOP", _TEXT)
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(_trains, asked)):
        time.sleep(0.2)
    return sum(not _trains(trial) for trial in asked)


def _trains(trial: Path) -> bool:
    """Whether a training holds its run folder; it lets go of it after its last checkpoint."""
    return (trial / ".lease.json").exists()


def wait_while_paused(trial: Path) -> None:
    """In a process of a trial: does not return while its sweep is paused, which ends the process."""
    while is_paused(trial):
        time.sleep(0.5)


def is_paused(trial: Path) -> bool:
    """Whether the sweep of this trial is paused."""
    try:
        return (trial / "STOP").read_text() == _TEXT
    except (OSError, UnicodeDecodeError):
        return False


def resume(folder: Path) -> None:
    """Removes what `pause` has written, before the sweep goes on."""
    for trial in trial_folders(folder):
        if is_paused(trial):
            (trial / "STOP").unlink()


@contextlib.contextmanager
def pausing_at_usr2(folder: Path, seconds: float = 60.0) -> Iterator[None]:
    """A block that SIGUSR2 ends with SystemExit(EXIT_CODE), once the running trials below `folder` have saved.

    They save in another thread: the main one must go on serving them meanwhile.
    """
    saved: list[int] = []
    threads: list[threading.Thread] = []

    def save() -> None:
        saved.append(pause(folder, seconds))
        os.kill(os.getpid(), signal.SIGUSR2)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if saved:
            # Ray passes on no other exception of a signal handler: at SystemExit it ends the process with code 1.
            raise KeyboardInterrupt
        if not threads:
            threads.append(threading.Thread(target=save, name="pause", daemon=True))
            threads[0].start()

    former = signal.signal(signal.SIGUSR2, on_signal)
    try:
        yield
    except KeyboardInterrupt:
        if not saved:
            raise
        print(f"paused by SIGUSR2: {saved[0]} running trials have saved; the same command continues", flush=True)
        raise SystemExit(EXIT_CODE) from None
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN if threads else former)
