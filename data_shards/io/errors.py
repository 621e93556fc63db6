"""Mistakes of the user, told in one line.

A command ends with exit code 2 and one line on stderr where the input is wrong: the field or file, what is wrong
with it, what would be right. Everything else is a defect of ours and keeps its traceback.
"""

import errno
import sys
from collections.abc import Callable


class InputError(Exception):
    """The input is at fault. The message is one line: which field or file, what is wrong, what would be right."""


# Faults of the machine that a user can mend, so they read better as one line than as a traceback.
_MACHINE_FAULTS = {
    errno.ENOSPC: "the disk is full: free some space and start the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and start the same command again",
    errno.EROFS: "the folder is read-only: choose one that can be written",
    errno.EACCES: "permission is denied: choose a file or folder that this user may use",
    errno.EADDRINUSE: "the port is in use: choose another one",
}


def command(main: Callable[[], None]) -> int:
    """Runs `main` and returns the exit code of the process: 0, or 2 with one line on stderr for an `InputError`."""
    try:
        main()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _MACHINE_FAULTS:
            raise
        print(f"error: {error.filename or 'output'}: {_MACHINE_FAULTS[error.errno]}", file=sys.stderr)
        return 2
    return 0
