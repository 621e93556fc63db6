"""The trials of a sweep as tables: for the page, and as comma-separated values with everything."""

import dataclasses
import json
from collections.abc import Sequence

from data_shards.io.tables import Table
from eval.distance.measures import numbers_of
from tune.space import Fields
from tune.trial.record import StageRecord, TrialRecord


def to_csv(records: Sequence[TrialRecord]) -> str:
    """One line a trial with all of its record; drawn fields have a column each, the held-out checks are left out."""
    drawn = list(dict.fromkeys(field for record in records for field in record.fields))
    further = list(dict.fromkeys(name for record in records for name in record.further))
    rows = [_columns(record, drawn, further) for record in records]
    head = tuple(rows[0]) if rows else ()
    return Table(head=head, rows=[tuple(map(_cell, row.values())) for row in rows]).to_csv()


def _columns(record: TrialRecord, drawn: Sequence[str], further: Sequence[str]) -> dict[str, object]:
    """The record by column; those of a stage begin with its name, such as stage1_reason. Drawn fields are the last.

    further: the numbers of further measures that any trial has.
    """
    columns: dict[str, object] = {}
    for name in (field.name for field in dataclasses.fields(record)):
        value = getattr(record, name)
        if isinstance(value, StageRecord):
            columns |= {f"{name}_{part}": number for part, number in vars(value).items()}
        elif name == "further":
            columns |= {number: value.get(number) for number in further}
        elif name == "takeovers":
            columns[name] = "; ".join(map(str, value))
        elif name not in ("fields", "checks"):
            columns[name] = value
    return columns | {name: record.fields.get(name) for name in drawn}


def _cell(value: object) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else str(value)


def number(value: float | None, decimals: int = 1) -> str:
    """A number as text; a dash where it is not known."""
    return "-" if value is None else f"{value:,.{decimals}f}"


def drawn_text(fields: Fields) -> str:
    """What was drawn for a configuration, on one line."""
    return ", ".join(f"{name} {_short(value)}" for name, value in fields.items()) or "the default"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, list) else str(value)


def stage_table(records: Sequence[TrialRecord]) -> Table:
    """When and why each trial left its stages, and what was measured there."""
    titles = ("ended", "images", "seconds", "sigma²", "KL", "active")
    head = ("Trial", *(f"{title}, stage {stage}" for stage in (1, 2) for title in titles))
    rows = [(record.trial, *_stage_cells(record.stage1), *_stage_cells(record.stage2)) for record in records]
    return Table(head=head, rows=rows)


def _stage_cells(stage: StageRecord) -> tuple[str, ...]:
    counts = number(stage.images, 0), number(stage.seconds, 0)
    return stage.reason or "-", *counts, number(stage.sigma2, 5), number(stage.kl), number(stage.active_dimensions, 0)


# field of a TrialRecord: (title, decimals)
_NUMBERS = {
    "parameters": ("Parameters", 0),
    "images": ("Images", 0),
    "seconds": ("Seconds", 0),
    "images_per_second": ("Images/s", 0),
    "peak_memory_mib": ("Memory, MiB", 0),
    "retries": ("Retries", 0),
    "final_elbo": ("ELBO", 1),
    "fd_reconstruction": ("FD, reconstructions", 1),
    "fd_stage1": ("FD, stage 1", 1),
    "fd_final": ("FD, final", 1),
    "iwae_stage1": ("IWAE, stage 1", 1),
    "iwae_final": ("IWAE, final", 1),
}


def trial_table(records: Sequence[TrialRecord]) -> Table:
    """Size, cost and final measures of each trial."""
    further = [one for one in numbers_of() if any(one.name in record.further for record in records)]
    rows = [
        (
            record.trial,
            record.status,
            *(number(getattr(record, name), decimals) for name, (_, decimals) in _NUMBERS.items()),
            *(number(record.further.get(one.name), one.decimals) for one in further),
        )
        for record in records
    ]
    titles = (*(title for title, _ in _NUMBERS.values()), *(one.column for one in further))
    return Table(head=("Trial", "Status", *titles), rows=rows)
