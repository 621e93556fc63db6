"""Tables that single commands made of runs outside of a plan, kept with the measurements and shown in RESULTS.md.

FOLDER/DATASET-tables.json holds them in the order in which they are shown; the scripts of tests/benchmarks write them
there with `--keep FOLDER`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from data_shards.io.atomic import write_json
from data_shards.io.configuration import build, configuration
from data_shards.io.errors import InputError
from data_shards.io.regular_files import read_regular
from data_shards.io.tables import Table
from eval.paper.record import commit
from eval.report.document import Section

_FORMAT = 1


@configuration
class KeptTable:
    """A table with what must be known to read it and the commands that made it."""

    name: str
    """By which it is replaced when it is made again."""
    title: str
    text: tuple[str, ...] = ()
    """In sentences, above the table."""
    commands: tuple[str, ...]
    """That measured its numbers, and the last one that made the table of them."""
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    commit: str = ""
    """The commit of the code that made the table, `-dirty` where it had been changed."""

    def section(self) -> Section:
        """The table as a section of a page."""
        made = f"Made at {self.commit or 'an unknown commit'} by " + "; ".join(f"`{one}`" for one in self.commands)
        rows = [tuple(row) for row in self.rows]
        return Section(
            key=self.name, title=self.title, text=[*self.text, f"{made}."], tables=[Table(head=self.head, rows=rows)]
        )


def tables_file(folder: Path, dataset: str) -> Path:
    """Where the tables of a data set lie."""
    return folder / f"{dataset}-tables.json"


def read_tables(folder: Path, dataset: str) -> tuple[KeptTable, ...]:
    """The kept tables of a data set; none where there is no file. Raises InputError for a damaged one."""
    path = tables_file(folder, dataset)
    if not path.exists():
        return ()
    try:
        content = json.loads(read_regular(path))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, not {_FORMAT}")
        tables = tuple(
            build(KeptTable, one | {"rows": [tuple(row) for row in one["rows"]]}) for one in content["tables"]
        )
        for table in tables:
            if any(len(row) != len(table.head) for row in table.rows):
                raise ValueError(f"{table.name} has a row of another length than its head")
    except (ValueError, TypeError, KeyError, AttributeError, InputError) as error:
        raise InputError(f"{path}: holds no tables ({error}); restore it from the repository") from error
    return tables


def keep_tables(folder: Path, dataset: str, tables: Sequence[KeptTable]) -> None:
    """Writes tables, in the place of those of the same names and below the others; they get this code's commit."""
    made = {table.name: replace(table, commit=commit()) for table in tables}
    kept = read_tables(folder, dataset)
    here = [made.pop(table.name, table) for table in kept]
    folder.mkdir(parents=True, exist_ok=True)
    content = [asdict(table) for table in (*here, *made.values())]
    write_json(tables_file(folder, dataset), {"format": _FORMAT, "tables": content})
