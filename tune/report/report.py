"""The report of a sweep, from the records of its trials: a page for a person, a summary, and a CSV with everything."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from data_shards.io.atomic import write_text
from data_shards.io.progress import duration
from data_shards.io.tables import Table, plus_minus
from eval.report.document import Card, Page, Picture, Section
from tune.report.analysis import against_default, early_and_final, sensitivity
from tune.report.figures import curves, early_figure, pareto_figure, sensitivity_figure
from tune.report.ranking import Ranked, mean_and_spread, pareto_front, ranking, values
from tune.report.trial_tables import drawn_text, number, stage_table, to_csv, trial_table
from tune.space import Dimension
from tune.sweep_config import OBJECTIVES, ObjectiveName, SweepConfig
from tune.trial.record import TrialRecord

# Parts of the longest training at which the early metric is compared with the final one.
_EARLY_PARTS = (0.125, 0.25, 0.5)
# Rows of a table on the page, so that the page of a thousand trials can be read; everything is in sweep.csv.
_MOST_ROWS = 40
# Sections of the page that the summary has too.
_SUMMARY = ("ranking", "confirmation", "early", "stopped", "population")


def write_report(sweep: SweepConfig, records: Sequence[TrialRecord]) -> Path:
    """Writes sweep.html, sweep.md and sweep.csv into the sweep's folder; returns the path of sweep.html."""
    folder, longest = sweep.folder, sweep.longest_images()
    page = build_page(folder.name, records, sweep.space, sweep.objectives[0], longest)
    write_text(folder / "sweep.csv", to_csv(records))
    write_text(folder / "sweep.md", summary(page))
    write_text(folder / "sweep.html", page.html())
    return folder / "sweep.html"


def summary(page: Page) -> str:
    """The main sections of the page in Markdown, to be kept beside the code."""
    return dataclasses.replace(page, sections=[s for s in page.sections if s.key in _SUMMARY]).to_markdown()


def build_page(
    name: str,
    records: Sequence[TrialRecord],
    space: Sequence[Dimension],
    objective: ObjectiveName,
    longest: int,
) -> Page:
    """The page of the sweep `name`.

    objective: what ranks; longest: images of the longest training possible.
    """
    search = [record for record in records if record.phase == "search"]
    ranked = ranking(records, objective)
    counts = {status: sum(r.status == status for r in search) for status in ("finished", "stopped", "failed")}
    unfinished = len(search) - sum(counts.values())
    lead = [
        f"{len(search):,} trials: {counts['finished']:,} trained to their ends, {counts['stopped']:,} stopped early, "
        f"{counts['failed']:,} failed" + (f", {unfinished:,} not ended yet." if unfinished else "."),
        f"Ranked by: {OBJECTIVES[objective].title}, on images that no trial was trained on.",
    ]
    cards = [
        Card(value=f"{len(search):,}", title="trials"),
        Card(value=f"{counts['stopped']:,}", title="stopped early"),
    ]
    if ranked:
        cards.append(Card(value=_ranked_value(ranked[0]), title=f"best: {OBJECTIVES[objective].title}"))
    seconds = sum(values(records, "seconds"))
    cards.append(Card(value=duration(seconds), title="of training, over all trials"))
    early = _early_moment(search, longest)
    sections = [
        _ranking_section(ranked, objective),
        _confirmation_section(records, objective),
        _sensitivity_section(search, space, objective, early),
        _pareto_section(search, objective),
        _early_section(search, objective, longest),
        _stopped_section(records),
        _population_section(records),
        _trials_section(records),
    ]
    return Page(title=f"Sweep {name}", lead=lead, cards=cards, sections=[s for s in sections if s is not None])


def _early_moment(records: Sequence[TrialRecord], longest: int) -> int:
    """Images at which the fields are compared: the most that half of the trials have reached."""
    moments = [round(longest * part) for part in (*_EARLY_PARTS[1::-1], 1 / 16, 1 / 32, 1 / 64)]
    reached = [sum(record.elbo_at(images) is not None for record in records) for images in moments]
    enough = [images for images, count in zip(moments, reached, strict=True) if 2 * count >= len(records)]
    return enough[0] if enough else moments[-1]


def _ranked_value(one: Ranked) -> str:
    return number(one.mean) if one.spread is None else plus_minus(number(one.mean), number(one.spread))


def _ranking_section(ranked: Sequence[Ranked], objective: ObjectiveName) -> Section:
    rows = []
    for place, one in enumerate(ranked[:_MOST_ROWS], start=1):
        others = [
            mean_and_spread(values(one.trials, field))
            for field in ("final_elbo", "fd_stage1", "fd_reconstruction", "seconds")
        ]
        rows.append((f"{place}. configuration {one.number}", _ranked_value(one), str(len(one.trials)), *others))
    head = ("Configuration", "Ranked by", "Seeds", "ELBO", "FD, stage 1", "FD, reconstructions", "Seconds")
    drawn = Table(
        head=("Configuration", "Drawn"), rows=[(f"{one.number}", drawn_text(one.fields)) for one in ranked[:10]]
    )
    return Section(
        key="ranking",
        title="Ranking",
        text=(
            f"Ranked by {OBJECTIVES[objective].title}: mean over seeds ± standard deviation over seeds. Stopped and "
            "failed trials have no final value and are not ranked. The second table shows what was drawn for the "
            "first ten." + _left_out(len(ranked), "configurations"),
        ),
        tables=(_measured(Table(head=head, rows=rows)), drawn),
    )


def _confirmation_section(records: Sequence[TrialRecord], objective: ObjectiveName) -> Section | None:
    found = against_default(records, objective)
    if found is None:
        return None
    rows = [(one.title, one.best, one.default, one.verdict) for one in found.comparisons]
    return Section(
        key="confirmation",
        title="Best against default",
        text=(
            f"The best configuration of the search and the default, each trained to its end with the {found.seeds} "
            "seeds that both have finished; none of them was used by the search. Mean ± standard deviation over seeds.",
            f"Best: {drawn_text(found.fields)}.",
        ),
        tables=(Table(head=("Measure", "Best", "Default", "Verdict"), rows=rows),),
    )


def _sensitivity_section(
    records: Sequence[TrialRecord], space: Sequence[Dimension], objective: ObjectiveName, early_images: int
) -> Section:
    rows = [
        (
            one.field,
            one.value,
            str(one.trials),
            number(one.early),
            str(one.finished),
            number(one.objective),
            number(one.images, 0),
            number(one.seconds, 0),
        )
        for one in sensitivity(records, space, objective, early_images)
    ]
    early = f"ELBO at {early_images:,}"
    head = ("Field", "Value", "Trials", early, "Finished", f"Final {objective}", "Images", "Seconds")
    return Section(
        key="sensitivity",
        title="Sensitivity to each field",
        text=(
            "Means over the trials that share a value, whatever their other fields are; with few trials a group, a "
            f"difference may be chance. ELBO at {early_images:,} images counts all trials that got there; the columns "
            "to the right count those trained to their ends, which early stopping has chosen.",
        ),
        tables=(_measured(Table(head=head, rows=rows)),),
        pictures=(
            Picture(
                data=sensitivity_figure(records, space, early_images),
                caption=f"Held-out ELBO at {early_images:,} images, a dot a trial.",
            ),
        ),
    )


def _pareto_section(records: Sequence[TrialRecord], objective: ObjectiveName) -> Section:
    rows = [
        (
            record.trial,
            number(record.seconds, 0),
            number(record.images, 0),
            number(getattr(record, OBJECTIVES[objective].field)),
            drawn_text(record.fields),
        )
        for record in pareto_front(records, objective)
    ]
    return Section(
        key="pareto",
        title="Cost and quality",
        text=(
            "Trials that no other one beats in quality at the same or a lower cost. Trials that run at the same time "
            "share the machine, so seconds are those of this sweep.",
        ),
        tables=(Table(head=("Trial", "Seconds", "Images", OBJECTIVES[objective].title, "Drawn"), rows=rows),),
        pictures=(Picture(data=pareto_figure(records, objective), caption="Finished trials and the Pareto front."),),
    )


def _early_section(records: Sequence[TrialRecord], objective: ObjectiveName, longest: int) -> Section:
    moments = [round(part * longest) for part in _EARLY_PARTS]
    found = early_and_final(records, moments)
    rows = [
        (f"{one.images:,}", OBJECTIVES[one.final].title, str(one.trials), number(one.rho, 2))
        for one in found
        if one.trials
    ]
    middle = moments[len(moments) // 2]
    return Section(
        key="early",
        title="Does the early metric predict the final one?",
        text=(
            "Spearman's rank correlation over trials trained to their ends: 1 where the early order is the final one, "
            "best with best. Trials that were stopped are missing, which lowers it.",
        ),
        tables=(Table(head=("ELBO at images", "Final number", "Trials", "Rank correlation"), rows=rows),),
        pictures=(
            Picture(
                data=early_figure(records, middle, "elbo" if objective == "elbo" else "fd"),
                caption=f"The ELBO at {middle:,} images and the final number.",
            ),
        ),
    )


def _stopped_section(records: Sequence[TrialRecord]) -> Section:
    others = sorted((one for one in records if one.status != "finished"), key=lambda one: one.status != "failed")
    rows = [
        (record.trial, record.status, number(record.images, 0), record.reason, drawn_text(record.fields))
        for record in others[:_MOST_ROWS]
    ]
    text = (f"Failed ones first.{_left_out(len(others), 'trials')}",) if rows else ("None.",)
    head = ("Trial", "Status", "Images", "Reason", "Drawn")
    tables = (Table(head=head, rows=rows),) if rows else ()
    return Section(key="stopped", title="Stopped and failed trials", text=text, tables=tables)


def _population_section(records: Sequence[TrialRecord]) -> Section | None:
    changed = [record for record in records if record.takeovers]
    if not changed:
        return None
    rows = [
        (record.trial, record.status, "; ".join(map(str, record.takeovers)), number(record.final_elbo))
        for record in changed[:_MOST_ROWS]
    ]
    return Section(
        key="population",
        title="Population",
        text=(
            "Trials that took over the weights and fields of better ones, with another learning rate (population based "
            "training). What was drawn for a trial is shown elsewhere as it was at its end, and its images and seconds "
            "are those of the weights that it ended with. Trained anew, a configuration has its last learning rate "
            "throughout." + _left_out(len(changed), "trials"),
        ),
        tables=(Table(head=("Trial", "Status", "Took over", "ELBO"), rows=rows),),
    )


def _trials_section(records: Sequence[TrialRecord]) -> Section:
    first = records[:_MOST_ROWS]
    return Section(
        key="trials",
        title="All trials",
        text=(
            "Everything is in sweep.csv too. Seconds are of training with its held-out checks."
            + _left_out(len(records), "trials"),
        ),
        tables=(_measured(trial_table(first)), _measured(stage_table(first))),
        pictures=(
            Picture(
                data=curves(records),
                caption="Held-out ELBO at the closed-form sigma while training.",
            ),
        ),
    )


def _measured(table: Table) -> Table:
    """The table without the columns in which no row has a value."""
    kept = [place for place in range(len(table.head)) if any(row[place] != "-" for row in table.rows)]
    rows = [tuple(row[place] for place in kept) for row in table.rows]
    return Table(head=tuple(table.head[place] for place in kept), rows=rows) if rows else table


def _left_out(count: int, what: str) -> str:
    """What the page says of rows that a table does not show."""
    return f" The first {_MOST_ROWS} of {count:,} {what} are shown; all are in sweep.csv." * (count > _MOST_ROWS)
