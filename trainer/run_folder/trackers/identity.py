"""Which run of another program belongs to a run folder, so that a restart goes on with it."""

import json
from collections.abc import Callable
from pathlib import Path

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError

_FILE = "tracking.json"


def identity(
    folder: Path, tracker: str, new: Callable[[], str], is_known: Callable[[str], bool] = lambda _: True
) -> str:
    """The identity that RUN/tracking.json holds for a tracker.

    At the first start, and where the tracker does not know it any more, `new` makes one.
    """
    path = folder / _FILE
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
        if tracker in known and is_known(known[tracker]):
            return str(known[tracker])
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is not a JSON object ({error}); remove it to track this run anew") from error
    known[tracker] = new()
    write_json(path, known)
    return str(known[tracker])
