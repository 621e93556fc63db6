"""Mistakes of the user and faults of the machine, reported in one line.

A command ends with exit code 2 and one line on stderr where the input is wrong: the parameter or file, what is wrong
with it, what would be right. It ends with exit code 1 and one line where the machine fails: the file and the fault. It
ends with exit code 130 and one line after Ctrl-C. Everything else is a defect of ours and keeps its traceback.
"""

import argparse
import contextlib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_shards.io import working_folder
from data_shards.io.interruption import INTERRUPTED, interrupt_as_usual
from data_shards.io.likeness import nearest
from data_shards.io.standard_streams import drop_output, prepare_standard_streams


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


def at_least(least: int, **values: int | None) -> None:
    """Raises InputError for the first of the named values that is below `least`; None stands for one not given."""
    for name, value in values.items():
        if value is not None and value < least:
            raise InputError(f"{value} is not a whole number of at least {least}", parameter=name)


_SAME_COMMAND = "start the same command again"
# Never the fault of the data: an image, a shard or a server that is read while one of these happens is not to blame.
_MACHINE_FAULTS = {
    errno.ENOSPC: f"the disk is full: free some space and {_SAME_COMMAND}",
    errno.EDQUOT: f"the disk quota is used up: free some space and {_SAME_COMMAND}",
    errno.EFBIG: "the file would be larger than the file system or `ulimit -f` allows: choose another disk",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "permission is denied: choose a file or folder that this user may use",
    errno.EPERM: "the system does not permit it: choose a file or folder that this user may use",
    errno.EMFILE: "too many open files in this process: raise `ulimit -n`",
    errno.ENFILE: "too many open files on this machine: close some programs or raise fs.file-max",
    errno.ENOMEM: f"the memory is used up: free some and {_SAME_COMMAND}",
    errno.EIO: f"the disk does not read or write (input/output error): check it and {_SAME_COMMAND}",
    errno.ESTALE: f"the file was lost by the network file system: mount it anew and {_SAME_COMMAND}",
    errno.EADDRINUSE: "the port is in use: choose another one",
}
# Where files can be read, but not written.
ONLY_READABLE = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "the system does not permit it",
}
# What a path that the user gave may be, and what would be right.
_WRONG_PATHS = {
    errno.ENOENT: "no such file or folder: check the path",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another path",
    errno.EISDIR: "a folder stands where a file is needed: choose another path",
    errno.EEXIST: "something else is there already: choose another path",
    errno.ENOTEMPTY: "files of others are in it: choose another folder",
    errno.EBUSY: "the system uses it, as it does a folder on which a disk is mounted: choose another path",
    errno.ENAMETOOLONG: "the name is too long for the file system: choose a shorter one",
    errno.ELOOP: "a link leads back to itself: choose another path",
}


class MachineFault(OSError):
    """This machine cannot do what was asked: a full or read-only disk, no permission, too many open files.

    The message is one line that names the file and the fault. Starting again after the remedy goes on.
    """


def machine_fault(error: BaseException, file: str | os.PathLike[str] | None = None) -> MachineFault | None:
    """The fault of this machine behind `error`, or None where it is of another kind.

    file: named where the error names none itself
    """
    if isinstance(error, MachineFault):
        return error
    if not isinstance(error, OSError) or error.errno not in _MACHINE_FAULTS:
        return None
    named = error.filename if isinstance(error.filename, str | bytes) else file
    shown = _UNFINISHED.sub(r"\1", os.fsdecode(named)) if named else "output"
    fault = MachineFault(f"{shown}: {_MACHINE_FAULTS[error.errno]}")
    fault.errno = error.errno
    return fault


@contextlib.contextmanager
def told_where_only_reading_is_allowed(place: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """A block that begins to write to `place`. Where that may only be read, says so with a remedy that fits."""
    try:
        yield
    except OSError as error:
        if error.errno not in ONLY_READABLE:
            raise
        fault = MachineFault(f"{os.fspath(place)}: cannot be written, as {ONLY_READABLE[error.errno]}: {remedy}")
        fault.errno = error.errno
        raise fault from error


def raise_machine_fault(error: BaseException, file: str | os.PathLike[str] | None = None) -> None:
    """Raises the fault of this machine behind `error`; returns where it is of another kind.

    For where an error would else be taken for damage of the file that is read.
    """
    fault = machine_fault(error, file)
    if fault is not None:
        raise fault from error


@contextlib.contextmanager
def machine_faults(file: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Turns an OSError of this machine into the MachineFault that names the file; other errors pass."""
    try:
        yield
    except OSError as error:
        if (fault := machine_fault(error, file)) is None or fault is error:
            raise
        raise fault from error


def wrong_path(error: BaseException) -> InputError | None:
    """What is wrong with the path that `error` names, or None where it is an error of another kind."""
    if isinstance(error, RuntimeError) and (loop := _LINK_LOOP.match(str(error))):
        return InputError(f"{loop[1]}: {_WRONG_PATHS[errno.ELOOP]}")  # of pathlib before Python 3.13
    if not isinstance(error, OSError) or error.errno not in _WRONG_PATHS:
        return None
    if isinstance(error, FileNotFoundError) and error.filename is None and working_folder.is_gone():
        return InputError(working_folder.GONE)
    if not isinstance(error.filename, str | bytes) or not error.filename:
        return None
    return InputError(f"{os.fsdecode(error.filename)}: {_WRONG_PATHS[error.errno]}")


# As data_shards/io/atomic.py calls a file while it writes it.
_UNFINISHED = re.compile(r"\.([^/]+)\.\d+\.partial$")
_LINK_LOOP = re.compile(r"Symlink loop from '(.*)'$", re.DOTALL)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)")
_NO_CHOICE = re.compile(r"(?:argument \S+: )?invalid choice: '?(.*?)'? \(choose from (.*)\)", re.DOTALL)
_options: dict[str, str] = {}  # of the command line that was parsed last: parameter -> option


def is_address(text: str) -> bool:
    """Whether a text is an address, such as s3://bucket/x, and no path of this machine."""
    return _ADDRESS.match(text) is not None


def _from_home(word: str, name: str) -> str:
    """A word with the home folder in the place of ~ or ~USER before a slash. Raises InputError for an unknown user."""
    expanded = os.path.expanduser(word)
    first, slash, _ = expanded.partition("/")
    if slash and first.startswith("~") and not os.path.lexists(first):
        raise InputError(f"{name}: {word}: there is no user {first[1:] or 'with a home folder'}; give the whole path")
    return expanded


class _DefaultsInHelp(argparse.HelpFormatter):
    """Adds the default of an option to its help, where there is one and the help does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        if not action.option_strings or text is None or "default" in text:
            return text
        plain = isinstance(action.default, str | int | float) and not isinstance(action.default, bool)
        if not plain or action.default in ("", argparse.SUPPRESS):
            return text
        return f"{text} (default: %(default)s)"


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError instead of printing its usage, and shows defaults in its help.

    `command` names the option whose `dest` is the parameter of an InputError. Options are not abbreviated: what is
    short for one option today may be short for another tomorrow, as --n is for --noise. Options that act only beside
    others are declared by `acts_only`, and refused where they would be ignored. A path that begins with ~/ lies in the
    home folder, as in a configuration: after = and in quotes the shell leaves that to us.
    """

    def __init__(self, *, allow_abbrev: bool = False, **more: Any) -> None:
        super().__init__(allow_abbrev=allow_abbrev, formatter_class=_DefaultsInHelp, **more)
        self._conditions: list[tuple[Callable[[argparse.Namespace], bool], tuple[str, ...], str]] = []
        self._given: set[str] = set()

    def acts_only(self, where: Callable[[argparse.Namespace], bool], *parameters: str, otherwise: str) -> None:
        """Has options refused that are given, be it with their defaults, where they have no effect.

        where: whether they have one, beside these values of the others; otherwise: the message where they have none,
        in which {NAME} is the value of the parameter NAME.
        """
        unknown = set(parameters) - {action.dest for action in self._actions}
        assert not unknown, unknown
        self._conditions.append((where, parameters, otherwise))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # the parsers of subcommands too
        options = {action.dest: action.option_strings for action in self._actions if action.option_strings}
        _options.update({dest: max(strings, key=len) for dest, strings in options.items()})
        self._given = set()
        parsed, rest = super().parse_known_args(args, namespace)
        for where, parameters, otherwise in self._conditions:
            for name in parameters:
                if name in self._given and not where(parsed):
                    raise InputError(otherwise.format_map(vars(parsed)), parameter=name)
        return parsed, rest

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings:  # positional ones are asked for here where they are missing too
            self._given.add(action.dest)
        name = str(max(action.option_strings, key=len, default=action.metavar or action.dest))
        own = arg_strings if action.nargs not in (argparse.PARSER, argparse.REMAINDER) else arg_strings[:1]
        for word in own:
            if not word.strip():
                raise InputError(f"{name}: empty; give a value, or leave it out")
            if action.type is Path and is_address(word):
                raise InputError(f"{name}: {word} is an address; give a file or folder of this machine")
        if action.type in (None, Path) and own is arg_strings:
            arg_strings = [_from_home(word, name) for word in arg_strings]
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> None:  # type: ignore[override]
        near = None
        if unknown := _UNKNOWN.match(message):
            near = nearest(unknown[1].partition("=")[0], _options.values())
        elif choice := _NO_CHOICE.match(message):
            near = nearest(choice[1], [word.strip("' ") for word in choice[2].split(",")])
        raise InputError(f"{message}; {f'did you mean {near}? See' if near else 'see'} {self.prog} --help")


def command(main: Callable[[], None]) -> int:
    """Runs `main` and returns the exit code of the process: 0, or with one line on stderr 2 for an `InputError`, 1 for
    a fault of the machine, 130 where a person interrupted it (Ctrl-C).
    """
    _options.clear()
    prepare_standard_streams()
    interrupt_as_usual()
    if working_folder.is_gone():
        return _told(working_folder.GONE, 2)
    try:
        try:
            main()
        except SystemExit:  # of --help, for instance
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except InputError as error:
        name = _options.get(error.parameter, error.parameter) if error.parameter else None
        return _told(error.named(name), 2)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    except (OSError, RuntimeError) as error:
        if (fault := machine_fault(error)) is not None:
            drop_output()
            return _told(str(fault), 1)
        if (wrong := wrong_path(error)) is not None:
            return _told(str(wrong), 2)
        raise
    return 0


def _told(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
