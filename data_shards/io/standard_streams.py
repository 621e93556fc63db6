"""Standard input, output and error as commands find them: closed, a pipe whose reader has gone, or any encoding."""

import functools
import io
import os
import sys
from typing import Any


def prepare_standard_streams() -> None:
    """Makes the streams usable for the whole of a command.

    A stream that is closed becomes empty, so that no file of ours gets its number and other output with it. Where the
    reader of a pipe goes, as `head` does, the rest of the output is dropped and the work goes on. Names of files may
    hold bytes that are no text, and are written with escapes.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    _nowhere()
    sys.stdout = _prepared(sys.stdout, 1)
    sys.stderr = _prepared(sys.stderr, 2)


def drop_output() -> None:
    """Sends what is still to be written on stdout nowhere, so that Python's end does not fail by it."""
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(sys.stdout.buffer, io.BufferedWriter):
        _send_nowhere(sys.stdout.fileno())


def _prepared(stream: Any, number: int) -> Any:
    if stream is None:
        return io.TextIOWrapper(_writer(number), errors="backslashreplace")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)  # unbuffered by PYTHONUNBUFFERED
    if type(raw) is not io.FileIO or raw.fileno() != number:  # of a program around ours, or prepared before
        stream.reconfigure(errors="backslashreplace")
        return stream
    stream.flush()
    return io.TextIOWrapper(
        _writer(number),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _writer(number: int) -> io.BufferedWriter:
    return io.BufferedWriter(_Pipe(number, "w", closefd=False))


class _Pipe(io.FileIO):
    """A file that takes everything once nobody reads it."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            _send_nowhere(self.fileno())
            return len(memoryview(data))


def _send_nowhere(number: int) -> None:
    os.dup2(_nowhere(), number)


@functools.cache
def _nowhere() -> int:
    """A file that takes everything, opened at the start: later the process may have no descriptor left."""
    return os.open(os.devnull, os.O_WRONLY)
