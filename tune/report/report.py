"""The report of a sweep, from the records of its trials: a page for a person, a summary and a CSV."""

from collections.abc import Sequence
from pathlib import Path

from data_shards.io.atomic import write_text
from data_shards.io.progress import duration
from data_shards.io.tables import Table, plus_minus
from eval.report.document import Card, Page, Picture, Section
from tune.confirmation import against_default
from tune.report.correlation import early_and_final
from tune.report.figures import TITLES, curves, early_figure, front_figure, sensitivity_figure
from tune.report.pareto import front
from tune.report.ranking import Ranked, Record, ranking, spread_of, values
from tune.report.sensitivity import sensitivity
from tune.report.summary import to_markdown
from tune.report.trial_table import drawn_text, number, stage_table, to_csv, trial_table
from tune.search.space import Dimension

# Parts of the longest training at which the early metric is compared with the final one, beside the first rung.
_EARLY_PARTS = (0.125, 0.25, 0.5)


def write_report(
    folder: Path,
    records: Sequence[Record],
    space: Sequence[Dimension],
    objective: str,
    rungs: Sequence[int],
    longest: int,
) -> Path:
    """Writes sweep.html, sweep.md and sweep.csv into the sweep's folder; returns the page's path.

    objective: what ranks; rungs: images at which ASHA judged; longest: images of the longest possible training.
    """
    page = build_page(folder.name, records, space, objective, rungs, longest)
    write_text(folder / "sweep.csv", to_csv(records))
    write_text(folder / "sweep.md", to_markdown(page))
    write_text(folder / "sweep.html", page.html())
    return folder / "sweep.html"


def build_page(
    name: str,
    records: Sequence[Record],
    space: Sequence[Dimension],
    objective: str,
    rungs: Sequence[int],
    longest: int,
) -> Page:
    """The page; `write_report` explains the arguments."""
    search = [record for record in records if record["phase"] == "search"]
    ranked = ranking(records, objective)
    counts = {status: sum(r["status"] == status for r in search) for status in ("finished", "stopped", "failed")}
    unfinished = len(search) - sum(counts.values())
    lead = [
        f"{len(search)} trials: {counts['finished']} trained to their ends, {counts['stopped']} stopped early, "
        f"{counts['failed']} failed" + (f", {unfinished} not ended yet." if unfinished else "."),
        f"Ranked by: {TITLES[objective]}, on images that no trial was trained on.",
    ]
    cards = [Card(value=str(len(search)), title="trials"), Card(value=str(counts["stopped"]), title="stopped early")]
    if ranked:
        cards.append(Card(value=_ranked_value(ranked[0]), title=f"best: {TITLES[objective]}"))
    seconds = sum(values(records, "seconds"))
    cards.append(Card(value=duration(seconds), title="of training, over all trials"))
    early = rungs[0] if rungs else round(longest * _EARLY_PARTS[1])
    sections = [
        _ranking_section(ranked, objective),
        _confirmation_section(records),
        _sensitivity_section(search, space, objective, early),
        _front_section(search, objective),
        _early_section(search, objective, longest, rungs),
        _unhappy_section(records),
        _trials_section(records, rungs),
    ]
    return Page(title=f"Sweep {name}", lead=lead, cards=cards, sections=[s for s in sections if s is not None])


def _ranked_value(one: Ranked) -> str:
    return number(one.mean) if one.spread is None else plus_minus(number(one.mean), number(one.spread))


def _ranking_section(ranked: Sequence[Ranked], objective: str) -> Section:
    rows = []
    for place, one in enumerate(ranked, start=1):
        others = [spread_of(one.trials, field) for field in ("final_elbo", "fd_stage1", "fd_reconstruction", "seconds")]
        rows.append((f"{place}. configuration {one.number}", _ranked_value(one), str(len(one.trials)), *others))
    head = ("Configuration", "Ranked by", "Seeds", "ELBO", "FD, stage 1", "FD, reconstructions", "Seconds")
    drawn = Table(
        head=("Configuration", "Drawn"), rows=[(f"{one.number}", drawn_text(one.fields)) for one in ranked[:10]]
    )
    return Section(
        key="ranking",
        title="Ranking",
        text=(
            f"Ranked by {TITLES[objective]}: mean over seeds ± standard deviation over seeds. Stopped and failed "
            "trials have no final value and are not ranked. The second table says what was drawn for the first ten.",
        ),
        tables=(Table(head=head, rows=rows), drawn),
    )


def _confirmation_section(records: Sequence[Record]) -> Section | None:
    found = against_default(records)
    if found is None:
        return None
    rows = [(one.title, f"{one.best.text}", f"{one.default.text}", one.verdict) for one in found.measures]
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
    records: Sequence[Record], space: Sequence[Dimension], objective: str, early_images: int
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
        tables=(Table(head=head, rows=rows),),
        pictures=(
            Picture(
                data=sensitivity_figure(records, space, early_images),
                caption=f"Held-out ELBO at {early_images:,} images, a dot a trial.",
            ),
        ),
    )


def _front_section(records: Sequence[Record], objective: str) -> Section:
    rows = [
        (
            r["trial"],
            number(r["seconds"], 0),
            number(r["images"], 0),
            _objective_of(r, objective),
            drawn_text(r["fields"]),
        )
        for r in front(records, objective)
    ]
    return Section(
        key="front",
        title="Cost and quality",
        text=(
            "Trials that no other one beats in quality at the same or a lower cost. Trials that run at the same time "
            "share the machine, so seconds are those of this sweep.",
        ),
        tables=(Table(head=("Trial", "Seconds", "Images", TITLES[objective], "Drawn"), rows=rows),),
        pictures=(Picture(data=front_figure(records, objective), caption="Finished trials and the front."),),
    )


def _objective_of(record: Record, objective: str) -> str:
    return number(record["final_elbo"] if objective == "elbo" else record["fd_final"])


def _early_section(records: Sequence[Record], objective: str, longest: int, rungs: Sequence[int]) -> Section:
    moments = sorted({*(round(part * longest) for part in _EARLY_PARTS), *rungs})
    found = early_and_final(records, moments)
    rows = [(f"{one.images:,}", TITLES[one.final], str(one.trials), number(one.rho, 2)) for one in found]
    middle = rungs[0] if rungs else moments[len(moments) // 2]
    return Section(
        key="early",
        title="Does the early metric foretell the final one?",
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


def _unhappy_section(records: Sequence[Record]) -> Section:
    rows = [
        (r["trial"], r["status"], number(r["images"], 0), r["reason"], drawn_text(r["fields"]))
        for r in records
        if r["status"] != "finished"
    ]
    text = () if rows else ("None.",)
    head = ("Trial", "Status", "Images", "Reason", "Drawn")
    tables = (Table(head=head, rows=rows),) if rows else ()
    return Section(key="stopped", title="Stopped and failed trials", text=text, tables=tables)


def _trials_section(records: Sequence[Record], rungs: Sequence[int]) -> Section:
    return Section(
        key="trials",
        title="All trials",
        text=("Everything is in sweep.csv too. Seconds are of training with its held-out checks.",),
        tables=(trial_table(records), stage_table(records)),
        pictures=(
            Picture(
                data=curves(records, rungs),
                caption="Held-out ELBO at the closed-form sigma while training; dashed: the rungs of ASHA.",
            ),
        ),
    )
