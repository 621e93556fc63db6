"""A user's code that an extractor runs: what it raises is reported in one line with its place, not as a traceback."""

import contextlib
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from data_shards.io.errors import InputError, raise_machine_fault

_ROOT = Path(__file__).parents[3]
_OURS = tuple(str(_ROOT / package) for package in ("data_shards", "trainer", "eval", "tune"))
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_MOST_LETTERS = 300


@contextlib.contextmanager
def reported_as_of(name: str, file: str | None = None) -> Iterator[None]:
    """A block that runs code of the extractor `name`. Raises InputError for what it raises, a call of exit included.

    file: where the code lies, named where the place cannot be seen. Faults of the machine stay what they are.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise_machine_fault(error)
        said = " ".join(f"{type(error).__name__}: {error}".split())[:_MOST_LETTERS]
        raise InputError(f"{name} raised {said} ({_place(error, file)})", parameter="extractor") from error


def _place(error: BaseException, file: str | None) -> str:
    """The innermost line of the user's own file; without one, of what is not installed; else any but this project's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    own = [frame for frame in frames if frame.filename == file]
    if file is None:
        # A package may stand between: one that the module calls, or that has put its own function in place of exit.
        own = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)] or frames
    if own:
        frame = own[-1]
        return f"{frame.filename}, line {frame.lineno}"
    return file or "its place is not known"


def _is_ours(filename: str) -> bool:
    # Python's own import machinery calls the user's module; contextlib stands between where a block is entered.
    return filename.startswith((*_OURS, "<frozen importlib", contextlib.__file__)) or "/importlib/" in filename
