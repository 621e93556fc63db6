"""The exhibits as Markdown, CSV, PNG and one HTML page, and RESULTS.md with those of every data set."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_shards.io.atomic import write_bytes, write_text
from data_shards.io.tables import Table
from eval.measurements.calibration_numbers import calibration_verdict
from eval.paper.evidence import READING, Chart, Evidence, Exhibit, Mean, Wanted
from eval.paper.figures import picture_path
from eval.paper.jobs import Job
from eval.paper.kept_tables import KeptTable
from eval.paper.plan import REFERENCE, Plan, method_trainings, resolved
from eval.paper.tables import method_rows, reference_row
from eval.paper.verdicts import AGREES, Verdict, aims, claims, count_of, is_decided, verdict_table
from eval.report.charts import bars, line_panels
from eval.report.document import Answer, Mark, Missing, Page, Picture, Section
from eval.report.printed_results import DATASETS, REMARKS
from eval.report.tables import uncertainty_table
from eval.results import DistanceResult, LikelihoodResult

HOW_DECIDED = (
    "Not settled: the difference is within twice its standard error, or something is missing; cannot: the printed "
    "number is impossible. Seeds: the fewest trainings behind a number."
)


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One data set: what is known of it, and what is shown."""

    evidence: Evidence
    exhibits: Mapping[str, Exhibit]
    missing: Sequence[str]
    """What was not run, and why."""
    pictures: Path
    """Folder of the data set's kept pictures."""
    tables: Sequence[KeptTable] = ()
    """Made of runs outside of the plan."""

    def page(self, command: str, *, decided: bool = True) -> Page:
        """The chapter as a page. command: makes what is missing. decided: False leaves out claims that are decided."""
        plan, records = self.evidence.plan, self.evidence.records
        if not records:
            nothing = f"Nothing was measured: {plan.not_run or 'it has not been run yet'}."
            return Page(title=DATASETS[plan.dataset], lead=[nothing])
        commits = ", ".join(sorted({record.commit for record in records.values()}))
        of_commits = (
            f"{len(records)} trainings, trained and measured at {commits}. Each number is of the code of its commit, "
            "which `results/measured` has beside the training command. The command trains the same configuration with "
            "today's code, whose numbers may differ."
        )
        lead = [of_commits, _training_protocol(self.evidence)]
        sections = [self._verdicts() if decided else self._open_verdicts()]
        sections += [self.section(key) for key in self.exhibits]
        sections += [table.section() for table in self.tables]
        if missing := [Missing(what=what, command=command) for what in self.missing]:
            sections.append(Section(key="missing", title="What was not run", missing=missing))
        remark = [plan.remark] if plan.remark else []
        title = DATASETS[plan.dataset]
        return Page(title=title, answer=_answer(self.evidence), lead=[*lead, *remark, READING], sections=sections)

    def _verdicts(self) -> Section:
        return Section(
            key="verdicts",
            title="What agrees, and what does not",
            text=[HOW_DECIDED],
            tables=[verdict_table(self.evidence)],
        )

    def _open_verdicts(self) -> Section:
        """What stands in no table above the chapters: claims on too few seeds, and our own aims."""
        waiting = [one for one in claims(self.evidence) if not is_decided(one)]
        tables = [Table(head=Verdict._fields, rows=waiting, caption="Claims of the paper on too few seeds")]
        ours = Table(head=Verdict._fields, rows=list(aims(self.evidence)), caption="Aims of our own")
        return Section(
            key="verdicts",
            title="Not decided, and our own aims",
            tables=[table for table in (*tables, ours) if table.rows],
        )

    def section(self, key: str) -> Section:
        """One exhibit, filled with what was measured."""
        exhibit, evidence = self.exhibits[key], self.evidence
        rows = [tuple(evidence.text(cell) for cell in row) for row in exhibit.rows]
        tables = [Table(head=exhibit.head, rows=rows, caption=exhibit.caption)] if rows else []
        text = [evidence.text(sentence) for sentence in exhibit.text]
        if exhibit.calibration:
            answers = list(evidence.answers(exhibit.calibration).values())
            text = [calibration_verdict(answer) for answer in answers]
            tables = [uncertainty_table(answers)] if answers else []
        pictures = [_chart(exhibit.chart, evidence)] if exhibit.chart else []
        for one in exhibit.drawings:
            path = self.pictures / picture_path(Path(one.training.name), one.name).name
            # A picture of a training of which nothing is known is of a former plan.
            if one.training.name in evidence.records and path.exists():
                data, pixels = path.read_bytes(), one.name != "density"
                pictures.append(Picture(name=path.stem, caption=one.caption, data=data, pixels=pixels))
        return Section(
            key=key,
            title=exhibit.title,
            text=[*text, *_protocols(evidence, exhibit.wanted)],
            tables=tables,
            pictures=[picture for picture in pictures if picture],
            remarks=[REMARKS[name] for name in exhibit.remarks],
        )


def _answer(evidence: Evidence) -> Answer | None:
    """How many claims agree, and the distances of all methods on one scale; None where no claim is decided."""
    decided = [one for one in claims(evidence) if is_decided(one)]
    distances = _distances(evidence)
    if not decided or not distances:
        return None
    largest = max(number.value for number, _ in distances.values())
    return Answer(
        number=f"{sum(one.agrees == AGREES for one in decided)} of {len(decided)} claims agree",
        meaning=f"of those of the paper on {DATASETS[evidence.plan.dataset]} that enough seeds decide: "
        f"{count_of(decided)}.",
        scale=[
            Mark(title=title, value=number.plain(1), part=number.value / largest, best=ours)
            for title, (number, ours) in sorted(distances.items(), key=lambda item: item[1][0].value)
        ],
        caption="Distance of samples from real images by method; lower is better",
    )


def _distances(evidence: Evidence) -> dict[str, tuple[Mean, bool]]:
    """By title: the distance of each method's samples, of real images, and whether it is of the reference method."""
    plan = evidence.plan
    wanted = {f"{one.title}, samples from q̂": (one.want("q_hat"), one.method == REFERENCE) for one in method_rows(plan)}
    wanted["ours, samples from the prior"] = (reference_row(plan).want("prior"), True)
    if any(variant.density == "transported" for variant in plan.variants):
        transported = reference_row(plan, seeds=plan.variant_seeds).want("transported")
        wanted["ours, per pixel, samples transported"] = (transported, True)
    wanted["real training images"] = (reference_row(plan, seeds=plan.seeds[:1]).want("train"), False)
    numbers = {title: (evidence.number(one), ours) for title, (one, ours) in wanted.items()}
    return {title: (number, ours) for title, (number, ours) in numbers.items() if number is not None}


def _chart(chart: Chart, evidence: Evidence) -> Picture | None:
    """The chart of what was measured; None where nothing was."""
    known = [(place, evidence.place(place), evidence.numbers(wanted)) for place, wanted in chart.points]
    if not any(numbers for _, _, numbers in known):
        return None
    if not chart.panels:
        data = bars({title: numbers for _, title, numbers in known}, axis=chart.axis)
    else:
        panels = {
            title: {
                series: {at: numbers[name] for _, at, numbers in known if at is not None and name in numbers}
                for series, name in names.items()
            }
            for title, names in chart.panels.items()
        }
        star = next((at for place, at, _ in known if isinstance(place, Wanted)), None)
        data = line_panels(panels, axis=chart.axis, star=star, star_title="star: learned" if star else "")
    return Picture(name=chart.name, caption=chart.caption, data=data)


def _protocols(evidence: Evidence, wanted: Iterable[Wanted]) -> list[str]:
    """How the numbers of an exhibit were measured: a sentence a protocol, with a warning where n is small."""
    said = []
    for answer in (answer for one in wanted for answer in evidence.answers(one).values()):
        if isinstance(answer, DistanceResult):
            by = answer.protocol
            said.append(
                f"Distances are {answer.label} of {by.n:,} images to {by.n_reference:,} of split {by.split} (seed "
                f"{by.seed}, {by.channels}, {by.quantisation})."
            )
            if answer.below_protocol:
                said[-1] += " Fewer than 10,000 on one side (50,000 against split train), so they are too large."
            if "FID" not in answer.label:
                said[-1] += " They are no FID and cannot be compared with the paper's in size, only in order."
        elif isinstance(answer, LikelihoodResult):
            how = answer.protocol
            said.append(
                f"Likelihoods are of {how.n:,} images of split {how.split}, {how.subset}, with "
                f"{how.importance_samples} importance samples, of pixels in {how.pixel_scale}; q̂ is a mixture "
                f"{how.mixture} fitted to the training codes."
            )
    return list(dict.fromkeys(said))


def _training_protocol(evidence: Evidence) -> str:
    """The networks and the budget that all trainings share."""
    plan, budget = evidence.plan, evidence.plan.budget
    config = resolved(plan, method_trainings(plan, REFERENCE)[0])
    model = config.model
    images = sorted({record.training["images"] for record in evidence.records.values() if record.training})
    seen = f"; {' or '.join(f'{count:,}' for count in images)} images seen" if images else ""
    return (
        f"All trainings share networks and budget, which are ours (the paper's are not public): {model.latent_dim} "
        f"latents unless said otherwise, encoder {list(model.encoder_channels)}, decoder "
        f"{list(model.decoder_channels)}, dense layer {model.hidden}, kernel {model.kernel}, norm {model.norm}, batch "
        f"{config.data.global_batch}, Adam at {config.optimiser.learning_rate:g} ({config.optimiser.schedule}); "
        f"{budget.stage1_epochs:g} epochs of stage 1 and {budget.stage2_epochs:g} of stage 2, or "
        f"{budget.stage1_epochs + budget.stage2_epochs:g} of one stage{seen}.{_own_fields(plan)}"
    )


def _own_fields(plan: Plan) -> str:
    """What the plan sets otherwise than the trainer's configuration file, and so otherwise than a training today."""
    if not plan.fields:
        return ""
    named = ", ".join(f"{name} {json.dumps(value)}" for name, value in plan.fields.items())
    return f" Otherwise than in {plan.config}: {named}."


def missing_sentences(jobs: Sequence[Job], evidence: Evidence, failures: Mapping[str, str]) -> list[str]:
    """What was not run or not measured, and why. failures: the last line of each job that failed, by its run's name."""
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for job in jobs:
        name = job.training.name
        record = evidence.records.get(name)
        lacking = job.questions if record is None else record.missing(job.questions)
        if lacking:
            what = "not measured" if record is None else f"without {', '.join(one.key for one in lacking)}"
            grouped[what, failures.get(name) or evidence.plan.not_run or "not run yet"].append(name)
    return [f"{', '.join(names)}: {what}; {reason}." for (what, reason), names in grouped.items()]


def write_pages(chapter: Chapter, command: str, out: Path) -> Path:
    """Writes OUT/KEY.md, OUT/KEY.csv, the PNG files, and OUT/index.html, whose path is returned."""
    page = chapter.page(command)
    _write_pictures(page, out)
    for section in page.sections:
        if section.key in chapter.exhibits:
            alone = Page(title=section.title, lead=page.lead, sections=[section])
            write_text(out / f"{section.key}.md", alone.to_markdown(pictures="."))
            if section.tables:
                write_text(out / f"{section.key}.csv", "\n".join(table.to_csv() for table in section.tables))
    whole = replace(page, title=f"The paper, reproduced on {page.title}")
    write_text(out / "index.html", whole.html())
    return out / "index.html"


def write_results(path: Path, chapters: Sequence[Chapter], command: str, commit: str) -> None:
    """Writes the page of all data sets, and the charts that it refers to beside their kept pictures."""
    head = Page(
        title="Results",
        sections=[_claims_of_all(chapters)],
        lead=[
            f"Written by `{command}` at commit `{commit or 'unknown'}` from measurements of real runs; do not edit. "
            "Each number stands beside the paper's (Lin, Roberts, Trigoni and Clark 2019, arXiv 1909.03765) with its "
            "protocol. The verdicts follow from the numbers by rules in `eval/paper/verdicts.py`; a claim with fewer "
            "than three seeds behind it is not decided."
        ],
    )
    parts = [head.to_markdown()]
    for chapter in chapters:
        page = chapter.page(command, decided=False)
        _write_pictures(page, chapter.pictures)
        folder = Path(os.path.relpath(chapter.pictures, path.parent)).as_posix()
        parts.append(page.to_markdown(level=2, pictures=folder))
    write_text(path, "\n".join(parts))


def _claims_of_all(chapters: Iterable[Chapter]) -> Section:
    """Every decided claim of the paper in one table, and how many of each data set agree."""
    text, rows, waiting = [], [], 0
    for chapter in chapters:
        title, every = DATASETS[chapter.evidence.plan.dataset], claims(chapter.evidence)
        decided = [one for one in every if is_decided(one)]
        waiting += len(every) - len(decided)
        rows += [(one.claim, title, *one[1:]) for one in decided]
        if decided:
            are = "claim of the paper is" if len(decided) == 1 else "claims of the paper are"
            text.append(f"{title}: {len(decided)} {are} decided, of which {count_of(decided)}.")
    if waiting:
        text.append(
            f"{waiting} further claims rest on fewer than three seeds and are not decided; they stand in the chapters."
        )
    tables = [Table(head=("claim", "data set", *Verdict._fields[1:]), rows=rows)] if rows else []
    return Section(key="claims", title="The paper's claims", text=[*text, HOW_DECIDED], tables=tables)


def _write_pictures(page: Page, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in (picture for section in page.sections for picture in section.pictures):
        write_bytes(folder / f"{picture.name}.png", picture.data)
