"""`python -m eval reproduce`: trains, measures and shows every table and figure of the paper on one data set."""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from data_shards.io.disk import cache_folder
from data_shards.io.errors import InputError
from eval.commands.options import chosen_part
from eval.distance.extractors.inception import WEIGHTS_NAME
from eval.paper.evidence import Evidence
from eval.paper.jobs import TARGETS, jobs
from eval.paper.kept_pictures import keep_pictures
from eval.paper.measured import MEASURED, read_measured, write_measured
from eval.paper.pages import exhibits, missing_sentences, write_pages
from eval.paper.plan import Measurements, Plan, read_plan
from eval.paper.record import commit
from eval.paper.results_page import Chapter, write_results
from eval.paper.run_jobs import Place, carry_out, known_records, processors, undone
from eval.paper.schedule import Outcome
from eval.printed_results import DATASETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval reproduce`."""
    parser.add_argument("target", choices=(*TARGETS, "all"), help="what to reproduce; beyond: variants of our own")
    parser.add_argument("--dataset", required=True, choices=tuple(DATASETS), help="the data set")
    parser.add_argument("--runs", default="", help="folder of the run folders (default: runs/reproduction/DATASET)")
    parser.add_argument("--plan", help="YAML file (default: the project's own, eval/paper/plans)")
    parser.add_argument(
        "--measured",
        help="folder of what is kept of finished runs, read and written "
        "(default: results/measured, and with --plan RUNS/measured)",
    )
    parser.add_argument("--source", help="where the images lie, for shards that are not built yet")
    parser.add_argument("--part", metavar="I/N", help="do jobs I, I + N, I + 2 N ... and write no page")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="jobs at a time (default: one a core)")
    parser.add_argument("--address", default="", help="send the jobs to this Ray cluster, which shares the folder")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the networks run")
    parser.add_argument("--pages-only", action="store_true", help="train and measure nothing; show what is known")
    parser.add_argument("--results", metavar="FILE", help="also write this Markdown page with every data set's results")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folders:
    """Where everything lies."""

    runs: Path
    """Run folders, logs, and pages."""
    measured: Path
    """What is kept of finished runs."""


def run(args: argparse.Namespace) -> None:
    """Carries out the jobs that are not done yet, keeps what they measured, and writes the pages.

    Raises InputError, after all other jobs and the pages, where a job failed.
    """
    if args.processes < 0:
        raise InputError(f"--processes: {args.processes} is below 0")
    if args.part and (args.address or args.pages_only):
        raise InputError("--part: goes with neither --address nor --pages-only; leave one of them out")
    plan = with_extractor(read_plan(args.dataset, args.plan))
    targets = TARGETS if args.target == "all" else (args.target,)
    runs = Path(args.runs or f"runs/reproduction/{args.dataset}")
    folders = Folders(runs=runs, measured=Path(args.measured or (runs / "measured" if args.plan else MEASURED)))
    place = Place(
        runs=runs,
        processes=args.processes or processors(),
        device=args.device,
        address=args.address,
        source=args.source,
    )
    outcomes = [] if args.pages_only else _carry_out(plan, targets, args.part, place, folders)
    failures = {outcome.name: outcome.failure for outcome in outcomes if outcome.failure}
    if not args.part:
        _show(plan, targets, folders, failures, args.results)
    if failures:
        name, failure = next(iter(failures.items()))
        raise InputError(f"{len(failures)} of {len(outcomes)} jobs failed, the first: {name}: {failure}")


def _carry_out(plan: Plan, targets: tuple[str, ...], part: str | None, place: Place, folders: Folders) -> list[Outcome]:
    asked = jobs(plan, targets)
    if part:
        first, parts = chosen_part(part)
        asked = asked[first::parts]
    kept = read_measured(folders.measured, plan.dataset)
    waiting = undone(asked, known_records(plan, asked, place.runs, kept), place.runs, folders.measured / plan.dataset)
    print(f"{len(asked)} jobs, {len(asked) - len(waiting)} of them done before", flush=True)
    return carry_out(plan, waiting, place)


def _show(
    plan: Plan, targets: tuple[str, ...], folders: Folders, failures: Mapping[str, str], results: str | None
) -> None:
    """Keeps what is known, and writes the pages of this data set and the results of all."""
    command = shlex.join(["python", "-m", "eval", *sys.argv[1:]])
    everything = jobs(plan, TARGETS)
    kept = read_measured(folders.measured, plan.dataset)
    records = known_records(plan, everything, folders.runs, kept)
    pictures = folders.measured / plan.dataset
    keep_pictures(pictures, everything, folders.runs, records, kept)
    write_measured(folders.measured, plan.dataset, records)
    evidence = Evidence(plan=plan, records=records)
    made = exhibits(evidence, pictures, targets)
    missing = missing_sentences(jobs(plan, targets), evidence, failures)
    print(f"written to {write_pages(made, evidence, missing, command, folders.runs / 'pages')}")
    if results:
        chapters = {
            dataset: _chapter(plan, folders.measured, failures)
            if dataset == plan.dataset
            else _chapter(with_extractor(read_plan(dataset)), folders.measured, {})
            for dataset in DATASETS
        }
        write_results(Path(results), chapters, command, commit())
        print(f"written to {results}")


def _chapter(plan: Plan, measured: Path, failures: Mapping[str, str]) -> Chapter:
    """A data set's part of the results, from what is kept alone: run folders of all data sets have the same names."""
    everything = jobs(plan, TARGETS)
    kept = read_measured(measured, plan.dataset)
    evidence = Evidence(plan=plan, records=known_records(plan, everything, None, kept))
    pictures = measured / plan.dataset
    return Chapter(
        evidence=evidence,
        exhibits=exhibits(evidence, pictures, TARGETS),
        missing=missing_sentences(everything, evidence, failures),
        pictures=pictures,
    )


def with_extractor(plan: Plan) -> Plan:
    """The plan with its extractor chosen: inception where its weights are at hand."""
    return dataclasses.replace(plan, measure=_chosen(plan.measure))


def _chosen(measure: Measurements) -> Measurements:
    if measure.extractor != "auto":
        return measure
    at_hand = measure.extractor_weights or (cache_folder("weights") / WEIGHTS_NAME).exists()
    return dataclasses.replace(measure, extractor="inception" if at_hand else "efficientnet-lite0")
