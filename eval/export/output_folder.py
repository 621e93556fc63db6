"""A folder of pictures and numbers that a command makes: whole or not there, replacing nothing but its own kind."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_shards.io import atomic
from data_shards.io.errors import InputError, raise_machine_fault
from data_shards.io.removal import holds_only, remove_own
from trainer.process_group import Ranks
from trainer.run_folder.holding import held_by_main

RECORD = "made.json"
_PROGRAM = "two-stage-sigma-vae"
_FILES = re.compile(
    r"\d{8,}\.(png|tar)|(samples\.npz|grid\.png|walk\.(png|gif|mp4)|scores\.csv|reconstructions\.csv|sigma\.safetensors"
    r"|latents\.safetensors|made\.json)"
)


def made_before(folder: Path, question: Mapping[str, Any]) -> bool:
    """Whether a folder holds what was made for this question.

    Raises InputError where it holds anything that was not made here.
    """
    if not folder.exists():
        return False
    if folder.is_dir() and not any(folder.iterdir()):
        return False
    record = _record(folder)
    if record is None or not holds_only(folder, _FILES):
        raise InputError(f"{folder} holds other files than those made here; choose another folder", parameter="out")
    return bool(record["question"] == json.loads(json.dumps(question)))


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError) as error:
        raise_machine_fault(error, folder / RECORD)
        return None
    return found if isinstance(found, dict) and found.get("program") == _PROGRAM and "question" in found else None


@contextlib.contextmanager
def output_folder(
    folder: Path,
    question: Mapping[str, Any],
    ranks: Ranks,
    facts: Mapping[str, Any] | None = None,
    *,
    steal: bool = False,
) -> Iterator[Path]:
    """A folder beside `folder` to write into, which takes its name at the end of the block. All processes take part.

    question: what the files depend on; facts: what else the record says; steal: takes the folder from another job. What
    was made here for another question is replaced. Raises InputError where `folder` holds anything else, or another job
    writes it.
    """
    beside = folder.with_name(f".{folder.name}.partial")

    def prepare() -> None:
        if not ranks.is_main:
            return
        made_before(folder, question)
        if beside.exists() and not remove_own(beside, _FILES):
            raise InputError(f"{beside}: holds files that were not made here; move it away", parameter="out")
        beside.mkdir()

    with held_by_main(folder.parent, ranks, folder.name, steal=steal) as lease:
        ranks.agree(prepare)
        yield beside
        ranks.barrier()
        if lease is None:
            return
        lease.check()
        atomic.write_json(beside / RECORD, {"program": _PROGRAM, "question": dict(question), **(facts or {})})
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        atomic.replace_folder(beside, folder, _FILES)
