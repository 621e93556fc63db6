"""The exhibits as Markdown, CSV, PNG and one HTML page that carries everything in itself."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data_shards.io.atomic import write_bytes, write_text
from data_shards.io.tables import Table
from eval import printed_results as paper
from eval.paper.beyond import beyond
from eval.paper.evidence import Evidence
from eval.paper.exhibits import Exhibit
from eval.paper.findings import findings
from eval.paper.jobs import Job
from eval.paper.kept_pictures import KeptPictures
from eval.paper.latent_exhibits import figure1, table1
from eval.paper.methods_exhibits import table2, table3
from eval.paper.sample_exhibits import figure2, figure3, figure4, table4
from eval.report.document import Missing, Page, Section

_EXHIBITS: Mapping[str, Callable[[Evidence, KeptPictures], Exhibit]] = {
    "table1": table1,
    "figure1": lambda evidence, kept: figure1(evidence),
    "table2": lambda evidence, kept: table2(evidence),
    "figure2": figure2,
    "table3": lambda evidence, kept: table3(evidence),
    "table4": lambda evidence, kept: table4(evidence),
    "figure3": figure3,
    "figure4": figure4,
    "beyond": beyond,
}


def exhibits(evidence: Evidence, pictures: Path, targets: Sequence[str]) -> list[Exhibit]:
    """The exhibits that are asked for and planned, in the order in which they are read.

    pictures: folder of the data set's kept pictures.
    """
    plan = evidence.plan
    kept = KeptPictures(folder=pictures, trainings=evidence.records)
    empty = {
        key
        for key, planned in (
            ("table1", plan.plane.variances),
            ("figure1", plan.sweep.variances),
            ("table4", plan.components.numbers),
            ("beyond", plan.variants),
        )
        if not planned
    }
    return [make(evidence, kept) for key, make in _EXHIBITS.items() if key in targets and key not in empty]


def findings_table(evidence: Evidence) -> Table:
    """What agrees with the paper and what does not, computed from the numbers."""
    return Table(
        head=("claim", "here it", "because"),
        rows=[(found.claim, found.verdict, found.because) for found in findings(evidence)],
    )


def missing_sentences(jobs: Sequence[Job], evidence: Evidence, failures: Mapping[str, str]) -> list[str]:
    """What was not run or not measured, and why. failures: the last line of each job that failed, by its run's name."""
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for job in jobs:
        name = job.training.name
        record = evidence.records.get(name)
        lacking = [ask.key for ask in job.asks] if record is None else [ask.key for ask in record.missing(job.asks)]
        if lacking:
            what = "not measured" if record is None else f"without an answer to {', '.join(lacking)}"
            reason = failures.get(name) or evidence.plan.not_run or "not run yet"
            grouped[what, reason].append(name)
    return [f"{', '.join(names)}: {what}; {reason}." for (what, reason), names in grouped.items()]


def markdown(exhibit: Exhibit, pictures: Path, page: Path, level: str = "#") -> str:
    """An exhibit in Markdown; one that is a page of its own, with level #, says what others share with it.

    pictures: the folder of its PNG files; page: the folder of the Markdown file.
    """
    parts = [f"{level} {exhibit.title}", *(table.to_markdown() for table in exhibit.tables), *exhibit.text]
    parts += exhibit.shared if level == "#" else []
    for picture in exhibit.pictures:
        where = Path(os.path.relpath(pictures / f"{picture.name}.png", page)).as_posix()
        parts.append(f"![{picture.caption}]({where})\n\n*{picture.caption}*")
    parts += [f"*{remark.title}.* {remark.text}" for remark in exhibit.remarks]
    return "\n\n".join(parts) + "\n"


def shared_text(made: Sequence[Exhibit]) -> list[str]:
    """What several exhibits share, each sentence once."""
    return list(dict.fromkeys(sentence for exhibit in made for sentence in exhibit.shared))


def write_pictures(made: Sequence[Exhibit], folder: Path) -> None:
    """Writes the PNG files of the exhibits."""
    folder.mkdir(parents=True, exist_ok=True)
    for exhibit in made:
        for picture in exhibit.pictures:
            write_bytes(folder / f"{picture.name}.png", picture.data)


def write_pages(made: Sequence[Exhibit], evidence: Evidence, missing: Sequence[str], command: str, out: Path) -> Path:
    """Writes OUT/KEY.md, OUT/KEY.csv, the PNG files, and OUT/index.html, whose path is returned."""
    write_pictures(made, out)
    for exhibit in made:
        write_text(out / f"{exhibit.key}.md", markdown(exhibit, out, out))
        if exhibit.tables:
            write_text(out / f"{exhibit.key}.csv", "\n".join(table.to_csv() for table in exhibit.tables))
    page = html(made, evidence, missing, command)
    write_text(out / "index.html", page)
    return out / "index.html"


def html(made: Sequence[Exhibit], evidence: Evidence, missing: Sequence[str], command: str) -> str:
    """Everything as one file without outside references."""
    dataset = paper.DATASETS[evidence.plan.dataset]
    agreement = Section(key="findings", title="What agrees, and what does not", tables=[findings_table(evidence)])
    shown = [
        Section(
            key=exhibit.key,
            title=exhibit.title,
            text=exhibit.text,
            tables=exhibit.tables,
            pictures=exhibit.pictures,
            remarks=exhibit.remarks,
        )
        for exhibit in made
    ]
    not_run = Section(
        key="missing", title="What was not run", missing=[Missing(what=what, command=command) for what in missing]
    )
    page = Page(
        title=f"The paper, reproduced on {dataset}",
        lead=[f"{len(evidence.records)} trainings measured; made by `{command}`.", *shared_text(made)],
        sections=[agreement, *shown, *([not_run] if missing else [])],
    )
    return page.html()
