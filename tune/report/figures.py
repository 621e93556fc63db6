"""The figures of the sweep's report."""

import math
import textwrap
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

from eval.report.charts import BLUE, GREEN, MUTED, ORANGE, RED, STYLE, figure, plain, svg
from tune.report.analysis import early_final_pairs
from tune.report.ranking import finished_with, pareto_front, values
from tune.space import Dimension
from tune.sweep_config import OBJECTIVES, ObjectiveName
from tune.trial.record import TrialRecord

_COLOURS = {"finished": BLUE, "stopped": ORANGE, "failed": RED, "unfinished": MUTED}
_COLUMNS = 3
# More curves are a carpet: so many are drawn, evenly over the trials by their last ELBO.
_MOST_CURVES = 80


def curves(records: Sequence[TrialRecord]) -> bytes:
    """The held-out ELBO of trials of the search over images seen."""
    with figure(6.4, 3.2) as (made, axes):
        shown: set[str] = set()
        lowest = []
        for record in _some_curves(records):
            checks = [(images, elbo) for images, elbo in record.checks if elbo is not None]
            status = record.status
            axes.plot(
                *zip(*checks, strict=True),
                color=_COLOURS[status],
                alpha=0.7,
                linewidth=1,
                label=None if status in shown else status,
            )
            shown.add(status)
            lowest.append(checks[len(checks) // 3][1])
        if lowest:
            # The first checks are lower by orders of magnitude and would flatten the rest.
            axes.set_ylim(bottom=min(lowest))
        axes.set_xlabel("images seen")
        axes.set_ylabel("ELBO, nats per image")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if shown:
            axes.legend(loc="lower right")
        return svg(made)


def _some_curves(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials of the search with a check, at most `_MOST_CURVES`, the best and the worst among them."""
    measured = [one for one in records if one.phase == "search" and any(elbo is not None for _, elbo in one.checks)]
    if len(measured) <= _MOST_CURVES:
        return measured
    ordered = sorted(measured, key=lambda one: next(elbo for _, elbo in reversed(one.checks) if elbo is not None))
    return [ordered[round(place * (len(ordered) - 1) / (_MOST_CURVES - 1))] for place in range(_MOST_CURVES)]


def pareto_figure(records: Sequence[TrialRecord], objective: ObjectiveName) -> bytes:
    """Finished trials of the search by cost and quality, and the Pareto front among them."""
    field, cost = OBJECTIVES[objective].field, OBJECTIVES["cost"].field
    finished, front = finished_with(records, field, cost), pareto_front(records, objective)
    with figure() as (made, axes):
        axes.scatter(values(finished, cost), values(finished, field), color=MUTED, s=16, label="trial")
        axes.plot(
            values(front, cost),
            values(front, field),
            color=BLUE,
            marker="o",
            markersize=4,
            drawstyle="steps-post",
            label="Pareto front",
        )
        axes.set_xlabel(OBJECTIVES["cost"].title)
        axes.set_ylabel(textwrap.fill(OBJECTIVES[objective].title, 36))
        axes.legend(loc="best")
        return svg(made)


def early_figure(records: Sequence[TrialRecord], images: int, final: ObjectiveName) -> bytes:
    """Each finished trial's ELBO at `images` against its final number."""
    pairs = early_final_pairs(records, images, final)
    with figure() as (made, axes):
        axes.scatter([a for a, _ in pairs], [b for _, b in pairs], color=GREEN, s=16)
        axes.set_xlabel(f"ELBO at {images:,} images")
        axes.set_ylabel(textwrap.fill(f"at the end: {OBJECTIVES[final].title}", 36))
        return svg(made)


def sensitivity_figure(records: Sequence[TrialRecord], space: Sequence[Dimension], early_images: int) -> bytes:
    """For each searched field, the ELBO at `early_images` by the field's value, a dot a trial."""
    columns = min(_COLUMNS, len(space))
    rows = math.ceil(len(space) / columns)
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(2.8 * columns, 1.9 * rows), layout="constrained")
        for place, dimension in enumerate(space):
            axes = made.add_subplot(rows, columns, place + 1)
            points = [
                (record.fields[dimension.field], elbo)
                for record in records
                if record.phase == "search"
                and dimension.field in record.fields
                and (elbo := record.elbo_at(early_images)) is not None
            ]
            if dimension.kind == "choice":
                # A value may have been in the space of an earlier start alone.
                named = list(dict.fromkeys([*map(str, dimension.values), *(str(value) for value, _ in points)]))
                axes.scatter([named.index(str(v)) for v, _ in points], [e for _, e in points], color=BLUE, s=12)
                axes.set_xticks(range(len(named)), [plain(name) for name in named])
                axes.set_xlim(-0.5, len(named) - 0.5)
            else:
                points = [(value, elbo) for value, elbo in points if isinstance(value, int | float)]
                axes.scatter([v for v, _ in points], [e for _, e in points], color=BLUE, s=12)
                axes.xaxis.set_major_locator(MaxNLocator(integer=dimension.kind == "randint", nbins=4))
                if dimension.kind == "loguniform":
                    axes.set_xscale("log")
                    axes.set_xlim(*dimension.values)
                    axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_title(dimension.field, fontsize=8.5)
            axes.tick_params(labelsize=7.5)
        return svg(made)
