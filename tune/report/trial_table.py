"""The trials as tables: one CSV with everything, and the columns that fit on a page."""

import csv
import io
import json
from collections.abc import Sequence

from data_shards.io.tables import Table
from tune.report.ranking import Record


def to_csv(records: Sequence[Record]) -> str:
    """One line a trial with all of its record; drawn fields have a column each, the curve of checks is left out."""
    drawn = list(dict.fromkeys(field for record in records for field in record["fields"]))
    known = [name for name in records[0] if name not in ("fields", "checks")] if records else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*known, *drawn])
    for record in records:
        chosen = [record["fields"].get(field) for field in drawn]
        writer.writerow([*(_cell(record[name]) for name in known), *(_cell(value) for value in chosen)])
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else str(value)


def number(value: float | None, decimals: int = 1) -> str:
    """A number as text; a dash where it is not known."""
    return "-" if value is None else f"{value:,.{decimals}f}"


def drawn_text(fields: Record) -> str:
    """What was drawn for a configuration, on one line."""
    return ", ".join(f"{name} {_short(value)}" for name, value in fields.items()) or "the default"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, list) else str(value)


def stage_table(records: Sequence[Record]) -> Table:
    """When and why each trial left its stages, and what was measured there."""
    head = ["Trial"]
    for stage in (1, 2):
        titles = ("ended", "images", "seconds", "sigma²", "KL", "active")
        head += [f"{title}, stage {stage}" for title in titles]
    rows = [(r["trial"], *_stage_cells(r, 1), *_stage_cells(r, 2)) for r in records]
    return Table(head=tuple(head), rows=rows)


def _stage_cells(record: Record, stage: int) -> list[str]:
    own = {name: record[f"stage{stage}_{name}"] for name in ("reason", "images", "seconds", "sigma2", "kl")}
    active = record[f"stage{stage}_active_dimensions"]
    cells = [own["reason"] or "-", number(own["images"], 0), number(own["seconds"], 0)]
    return [*cells, number(own["sigma2"], 5), number(own["kl"]), number(active, 0)]


def trial_table(records: Sequence[Record]) -> Table:
    """Size, cost and final measures of each trial."""
    titles = {
        "trial": "Trial",
        "status": "Status",
        "parameters": "Parameters",
        "images": "Images",
        "seconds": "Seconds",
        "images_per_second": "Images/s",
        "peak_memory_mib": "Memory, MiB",
        "retries": "Retries",
        "final_elbo": "ELBO",
        "fd_reconstruction": "FD, reconstructions",
        "fd_stage1": "FD, stage 1",
        "fd_final": "FD, final",
        "iwae_stage1": "IWAE, stage 1",
        "iwae_final": "IWAE, final",
    }
    whole = ("parameters", "images", "seconds", "images_per_second", "peak_memory_mib", "retries")
    rows = [
        tuple(
            record[key] if key in ("trial", "status") else number(record[key], 0 if key in whole else 1)
            for key in titles
        )
        for record in records
    ]
    return Table(head=tuple(titles.values()), rows=rows)
