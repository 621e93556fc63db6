"""A table that a command writes where the user says, with a record beside it: NAME.made.json of NAME.csv."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.regular_files import kind_if_no_file
from eval.export.record import read_record, record, require_place, require_question


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """A file and the question that it is to answer."""

    path: Path
    """Where the user wants it."""
    question: Mapping[str, Any]
    """Everything that its content depends on, as JSON."""

    @property
    def record_path(self) -> Path:
        """Where its record lies."""
        return self.path.with_name(f"{self.path.stem}.made.json")

    def made_before(self) -> dict[str, Any] | None:
        """The record where the file is there and answers this question; None where there is no file.

        Raises InputError where the file or the record is not of this program, answers another question, or was changed.
        """
        require_place(self.path)
        found = read_record(self.record_path)
        if found is None and self.record_path.exists():
            raise InputError(f"{self.record_path} is there, and was not made here; choose another name", "out")
        if not self.path.exists():
            self._refuse_the_record_of_another(found)
            return None
        if kind := kind_if_no_file(self.path):
            raise InputError(f"{self.path} is {kind}; choose another name", parameter="out")
        if found is None:
            raise InputError(
                f"{self.path} is there, and no {self.record_path.name} says what it was made from; choose another name",
                parameter="out",
            )
        require_question(found, self.question, self.path)
        if found.get("sha256") != hashlib.sha256(self.path.read_bytes()).hexdigest():
            raise InputError(f"{self.path} was changed since it was made; choose another name", parameter="out")
        return found

    def _refuse_the_record_of_another(self, found: Mapping[str, Any] | None) -> None:
        """Raises InputError where the record is that of a file whose name differs in its ending alone."""
        if found is None:
            return
        beside = [other for other in self.path.parent.iterdir() if other.stem == self.path.stem and other.is_file()]
        for other in beside:
            if hashlib.sha256(other.read_bytes()).hexdigest() == found.get("sha256"):
                raise InputError(
                    f"{self.record_path}, which would be the record of {self.path}, is that of {other.name}; choose "
                    "another name",
                    parameter="out",
                )

    def write(self, content: str, facts: Mapping[str, Any]) -> None:
        """Writes the record, then the file. facts: what else the record says."""
        own = {"sha256": hashlib.sha256(content.encode()).hexdigest()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(self.record_path, record(self.question, {**own, **facts}))
        atomic.write_text(self.path, content)
