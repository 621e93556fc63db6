"""What a record beside an exported file or folder says: from which question it was made, and that it was made here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_shards.io.disk import existing_parent
from data_shards.io.errors import InputError, raise_machine_fault
from data_shards.io.nested import flat
from data_shards.io.regular_files import read_regular, refuse_link_to_nothing
from eval.protocol import differences, fingerprint

PROGRAM = "two-stage-sigma-vae"


def record(question: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a record. question: everything that what was made depends on; facts: what else is said of it."""
    return {"program": PROGRAM, "address": fingerprint(question), "question": dict(question), **facts}


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in a file; None where it holds none."""
    try:
        found = json.loads(read_regular(path))
    except (OSError, ValueError) as error:  # InputError is a ValueError
        raise_machine_fault(error, path)
        return None
    return found if isinstance(found, dict) and found.get("program") == PROGRAM and "question" in found else None


def require_place(place: Path) -> None:
    """Raises InputError where a file stands where a folder above `place` is needed, or `place` is a link to nothing."""
    refuse_link_to_nothing(place, "out")
    if not (parent := existing_parent(place.parent)).is_dir():
        raise InputError(f"{place} cannot be made, as {parent} is a file; choose another place", parameter="out")


def require_question(found: Mapping[str, Any], question: Mapping[str, Any], place: Path) -> None:
    """Raises InputError where a record is of another question, which the user may still need the answer to."""
    theirs, ours = flat(found["question"]), flat(json.loads(json.dumps(question)))
    if theirs != ours:
        raise InputError(
            f"{place} answers another question ({differences(ours, theirs)}); choose another name, or remove it",
            parameter="out",
        )
