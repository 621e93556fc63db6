"""Mistakes of the user, reported in one line.

A command ends with exit code 2 and one line on stderr where the input is wrong: the parameter or file, what is wrong
with it, what would be right. Everything else is a defect of ours and keeps its traceback.
"""

import argparse
import errno
import sys
from collections.abc import Callable
from typing import Any


class InputError(ValueError):
    """The input is wrong: a parameter, a field of a configuration, or a file.

    message    one line: what is wrong and what would be right; names the file where a file is wrong
    parameter  the parameter or field that is wrong, by its name in Python; `str(error)` begins with it
    """

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter

    def __str__(self) -> str:
        return self.named(self.parameter)

    def named(self, name: str | None) -> str:
        """The message after `name`, which is the parameter's name where the reader is (its option, for instance)."""
        message = super().__str__()
        return message if name is None else f"{name}: {message}"


def at_least(least: int, **values: int) -> None:
    """Raises InputError for the first of the named values that is below `least`."""
    for name, value in values.items():
        if value < least:
            raise InputError(f"{value} is not a whole number of at least {least}", parameter=name)


# Faults of the machine that a user can remedy, so they read better as one line than as a traceback.
_MACHINE_FAULTS = {
    errno.ENOSPC: "the disk is full: free some space and start the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and start the same command again",
    errno.EROFS: "the folder is read-only: choose one that can be written",
    errno.EACCES: "permission is denied: choose a file or folder that this user may use",
    errno.EADDRINUSE: "the port is in use: choose another one",
}

_options: dict[str, str] = {}  # of the command line that was parsed last: parameter -> option


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError instead of printing its usage.

    `command` names the option whose `dest` is the parameter of an InputError.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # the parsers of subcommands too
        options = {action.dest: action.option_strings for action in self._actions if action.option_strings}
        _options.update({dest: max(strings, key=len) for dest, strings in options.items()})
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"{message}; see {self.prog} --help")


def command(main: Callable[[], None]) -> int:
    """Runs `main` and returns the exit code of the process: 0, or 2 with one line on stderr for an `InputError`."""
    _options.clear()
    try:
        main()
    except InputError as error:
        name = _options.get(error.parameter, error.parameter) if error.parameter else None
        print(f"error: {' '.join(error.named(name).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _MACHINE_FAULTS:
            raise
        print(f"error: {error.filename or 'output'}: {_MACHINE_FAULTS[error.errno]}", file=sys.stderr)
        return 2
    return 0
