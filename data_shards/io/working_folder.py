"""The folder in which a command was started, which may have been removed since, or be removed meanwhile."""

import os
import sys

GONE = "the folder in which this was started does not exist any more: change to one that does"


def is_gone() -> bool:
    """Whether the working folder of this process does not exist any more."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def end_where_it_is_gone() -> None:
    """Ends the process with one line and exit code 2; for before torch is imported, which would end it with its own."""
    if is_gone():
        print(f"error: {GONE}", file=sys.stderr)
        sys.exit(2)
