"""What has been measured of a run so far: the files under RUN/eval."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.results import read_record

Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """Results by kind; within a kind the end of stage 1 comes first, then the final weights."""

    likelihoods: list[Result]
    uncertainties: list[Result]
    distances: list[Result]
    memorisations: list[Result]

    def final(self, kind: list[Result]) -> Result | None:
        """The result of a kind for the final weights."""
        return next((result for result in kind if result["protocol"]["weights"] == "final"), None)


def run_results(run: Path) -> RunResults:
    """Reads every result there is. Raises InputError for a damaged file."""

    def of_kind(pattern: str) -> list[Result]:
        found = [read_record(path) for path in sorted((run / "eval").glob(pattern))]
        return sorted(found, key=lambda result: result["protocol"]["weights"] != "stage1")

    return RunResults(
        likelihoods=of_kind("likelihood*.json"),
        uncertainties=of_kind("uncertainty*.json"),
        distances=of_kind("fid-*.json"),
        memorisations=of_kind("memorisation*.json"),
    )
