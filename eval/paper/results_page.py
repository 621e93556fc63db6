"""RESULTS.md: every data set's tables, what agrees with the paper, what does not, and what was not run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.io.atomic import write_text
from eval import printed_results as paper
from eval.paper.claims import AGREES, DISAGREES, IMPOSSIBLE, OPEN
from eval.paper.evidence import Evidence
from eval.paper.exhibits import Exhibit
from eval.paper.findings import findings
from eval.paper.pages import markdown, shared_text, write_pictures

_TITLES = {
    AGREES: "What agrees",
    DISAGREES: "What does not agree",
    OPEN: "What is not settled (the difference is within twice its standard error, or something is missing)",
    IMPOSSIBLE: "What cannot agree, and why",
}


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One data set."""

    evidence: Evidence
    exhibits: Sequence[Exhibit]
    missing: Sequence[str]
    """What was not run, and why."""
    pictures: Path
    """Folder of the PNG files that the page refers to."""


def write_results(path: Path, chapters: Mapping[str, Chapter], command: str, commit: str) -> None:
    """Writes the page and the pictures that it refers to."""
    parts = [
        "# Results",
        f"Written by `{command}` at commit `{commit or 'unknown'}` from measurements of real runs; do not edit. Each "
        "number stands beside the paper's (Lin, Roberts, Trigoni and Clark 2019, arXiv 1909.03765) with its protocol. "
        "The verdicts follow from the numbers by rules in `eval/paper/findings.py`.",
    ]
    for dataset, chapter in chapters.items():
        parts.append(_chapter(paper.DATASETS[dataset], chapter, path.parent))
    write_text(path, "\n\n".join(parts).rstrip() + "\n")


def _chapter(title: str, chapter: Chapter, page: Path) -> str:
    evidence = chapter.evidence
    parts = [f"## {title}"]
    if not evidence.records:
        return "\n\n".join([*parts, f"Nothing was measured: {evidence.plan.not_run or 'it has not been run yet'}."])
    commits = sorted({record.commit for record in evidence.records.values()})
    parts.append(f"{len(evidence.records)} trainings, trained and measured at {', '.join(f'`{c}`' for c in commits)}.")
    parts += shared_text(chapter.exhibits)
    found = findings(evidence)
    for verdict, heading in _TITLES.items():
        said = [f"- {one.claim}: {one.because}." for one in found if one.verdict == verdict]
        if said:
            parts += [f"### {heading}", "\n".join(said)]
    write_pictures(chapter.exhibits, chapter.pictures)
    parts += [markdown(exhibit, chapter.pictures, page, "###").rstrip() for exhibit in chapter.exhibits]
    if chapter.missing:
        parts += ["### What was not run", "\n".join(f"- {what}" for what in chapter.missing)]
    return "\n\n".join(parts)
