"""A folder of pictures and numbers that a command makes: whole or not there, and of one question."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.removal import holds_only, remove_own
from eval.export.record import read_record, record, require_place, require_question
from eval.protocol import fingerprint
from trainer.process_group import Ranks
from trainer.run_folder.holding import held_by_main

RECORD = "made.json"
_FILES = re.compile(
    r"\d{8,}\.(png|tar)|(samples\.npz|grid\.png|walk\.(png|gif|mp4)|scores\.csv|reconstructions\.csv|sigma\.safetensors"
    r"|latents\.safetensors|made\.json)"
)


def made_before(folder: Path, question: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a folder that holds what was made for this question; None where there is no folder.

    Raises InputError where it holds what was made for another one, is not whole, or holds anything of others.
    """
    folder = folder.resolve()
    require_place(folder)
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; choose another folder", parameter="out")
    if os.path.ismount(folder):
        raise InputError(f"{folder} is where a disk is mounted, which has no other name; choose a folder in it", "out")
    if not any(folder.iterdir()):
        return None
    found = read_record(folder / RECORD)
    if found is None or not holds_only(folder, _FILES):
        raise InputError(f"{folder} holds other files than those made here; choose another folder", parameter="out")
    require_question(found, question, folder)
    if found.get("files", _files(folder)) != _files(folder):  # earlier versions did not list them
        raise InputError(
            f"{folder}: files were removed or changed since they were made; choose another folder, or remove it",
            parameter="out",
        )
    return found


def _files(folder: Path) -> str:
    """Digest of the names and sizes of what was made."""
    return fingerprint({path.name: path.stat().st_size for path in folder.iterdir() if path.name != RECORD})


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

    question: what the files depend on; facts: what else the record says; steal: takes the folder from another job.
    Raises InputError where `folder` holds anything, or another job writes it.
    """
    folder = folder.resolve()  # of a link, what it leads to; "." has no name
    beside = folder.with_name(f".{folder.name}.partial")

    def prepare() -> None:
        if not ranks.is_main:
            return
        if made_before(folder, question) is not None:
            raise InputError(f"{folder} was made by another job meanwhile", parameter="out")
        if beside.exists() and not remove_own(beside, _FILES):
            raise InputError(f"{beside}: holds files that were not made here; move it away", parameter="out")
        beside.mkdir()

    with held_by_main(folder.parent, ranks, folder.name, steal=steal) as lease:
        ranks.agree(prepare)
        try:
            yield beside
        except BaseException:
            if lease is not None:
                remove_own(beside, _FILES)
            raise
        ranks.barrier()
        if lease is None:
            return
        lease.check()
        atomic.write_json(beside / RECORD, record(question, {"files": _files(beside), **(facts or {})}))
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        atomic.replace_folder(beside, folder, _FILES)
