"""Pausing a sweep: its running trials save and wait, before the sweep ends and is continued later.

A trial saves where a file STOP lies in its run folder. Those that a pausing sweep writes hold one line, which
distinguishes them from one that a person made.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from data_shards.io.atomic import write_text
from data_shards.io.errors import InputError
from data_shards.io.regular_files import read_regular
from tune.trial.folder import trial_folders

EXIT_CODE = 128 + signal.SIGUSR2
"""Of a sweep that was paused: as if the signal had ended it, which batch scripts take for a request to start again."""
SECONDS: dict[int, float] = {signal.SIGUSR2: 60.0, signal.SIGINT: 20.0, signal.SIGTERM: 20.0}
"""In which running trials have to save, by the signal that asks for it. Schedulers send SIGKILL 30 s after SIGTERM."""
_SAME_SECONDS = 1.0
"""Within which a further signal is the first one again: `timeout` sends it to its command, and to the process group."""
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
        return read_regular(trial / "STOP") == _TEXT.encode()
    except (OSError, InputError):  # none, or what is no file
        return False


def resume(folder: Path) -> None:
    """Removes what `pause` has written, before the sweep goes on."""
    for trial in trial_folders(folder):
        if is_paused(trial):
            (trial / "STOP").unlink()


@contextlib.contextmanager
def saving_at_signals(folder: Path) -> Iterator[None]:
    """A block that signals end only once the running trials below `folder` have saved, or their time is over.

    SIGUSR2 then ends it with SystemExit(EXIT_CODE); SIGINT (Ctrl-C) and SIGTERM with KeyboardInterrupt, which a second
    one of these, not within `_SAME_SECONDS`, raises at once. Trials save in another thread: the main one must go on
    serving them meanwhile. Signals are left as they are where this is called in another thread than the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    saved: list[int] = []
    first = 0.0

    def save() -> None:
        saved.append(pause(folder, SECONDS[asked[0]]))
        os.kill(os.getpid(), asked[0])

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if saved or (asked and number != signal.SIGUSR2 and now - first > _SAME_SECONDS):
            # Ray passes on no other exception of a signal handler: at SystemExit it ends the process with code 1.
            raise KeyboardInterrupt
        if not asked:
            asked.append(number)
            first = now
            again = "" if number == signal.SIGUSR2 else "; a second signal ends the sweep at once"
            print(
                f"{signal.Signals(number).name}: running trials save, for at most {SECONDS[number]:g} s{again}",
                file=sys.stderr,
                flush=True,
            )
            threading.Thread(target=save, name="pause", daemon=True).start()

    former = {number: signal.signal(number, on_signal) for number in SECONDS}
    try:
        yield
    except KeyboardInterrupt:
        if saved:
            print(f"{saved[0]} running trials have saved; the same command continues", flush=True)
        if asked == [signal.SIGUSR2]:
            raise SystemExit(EXIT_CODE) from None
        raise
    finally:
        for number, handler in former.items():
            # SIGUSR2 would end a process that knows nothing of it, and the thread may still send it.
            signal.signal(number, signal.SIG_IGN if asked == [number] == [signal.SIGUSR2] else handler)
