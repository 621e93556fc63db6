"""`python -m eval reproduce`: trains, measures and shows every table and figure of the paper on one data set."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data_shards.io.errors import InputError, OneLineParser, at_least
from data_shards.io.regular_files import require_file_place
from eval.commands.options import add_device_option, chosen_part
from eval.paper.cost import estimated_cost
from eval.paper.evidence import Evidence
from eval.paper.figures import picture_path
from eval.paper.jobs import Job, jobs, undone
from eval.paper.kept_tables import read_tables
from eval.paper.pages import Chapter, missing_sentences, write_pages, write_results
from eval.paper.plan import Plan, read_plan
from eval.paper.record import KEPT, Record, commit, keep_pictures, known_records, read_kept, write_kept
from eval.paper.schedule import Outcome, Place, run_jobs, visible_gpus
from eval.paper.tables import EXHIBITS, exhibits
from eval.report.printed_results import DATASETS
from trainer.device import planned_device

BY_WEIGHT = ("fashion-mnist", "celeba", "mnist")
"""The order of the results: MNIST is last, as without a source it is few digits and one seed."""


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval reproduce`."""
    parser.add_argument("target", choices=(*EXHIBITS, "all"), help="what to reproduce; beyond: variants of our own")
    parser.add_argument("--dataset", required=True, choices=tuple(DATASETS), help="the data set")
    parser.add_argument("--runs", default="", help="folder of the run folders (default: runs/reproduction/DATASET)")
    parser.add_argument("--plan", help="YAML file (default: the project's own, eval/paper/plans)")
    parser.add_argument(
        "--measured",
        help="folder of what is kept of finished runs, read and written "
        "(default: results/measured of the checkout, and with --plan RUNS/measured)",
    )
    parser.add_argument("--source", help="where the images lie, for shards that are not built yet")
    parser.add_argument("--part", metavar="I/N", help="do jobs I, I + N, I + 2 N ... and write no page")
    parser.add_argument(
        "--processes", type=int, default=0, metavar="N", help="jobs at a time (default: one a GPU, without GPUs a core)"
    )
    parser.add_argument("--address", default="", help="send the jobs to this Ray cluster, which shares the folder")
    add_device_option(parser)
    parser.add_argument("--pages-only", action="store_true", help="train and measure nothing; show what is known")
    parser.add_argument("--results", metavar="FILE", help="also write this Markdown page with every data set's results")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done, with time and disk")
    parser.acts_only(
        lambda args: not (args.address or args.pages_only),
        "part",
        otherwise="goes with neither --address nor --pages-only; leave one of them out",
    )
    parser.acts_only(
        lambda args: not args.pages_only,
        *("source", "processes", "address", "device", "dry_run"),
        otherwise="--pages-only trains and measures nothing; leave one of them out",
    )
    parser.acts_only(
        lambda args: not args.address or args.dry_run,
        "processes",
        otherwise="is of this machine, and the cluster of --address decides for itself; leave it out",
    )
    parser.acts_only(lambda args: not args.part, "results", otherwise="a part writes no page; leave it out")


def run(args: argparse.Namespace) -> None:
    """Runs the jobs that are not done yet, keeps what they measured, and writes the pages.

    Raises InputError, after all other jobs and the pages, where a job failed.
    """
    at_least(0, processes=args.processes)
    if args.results is not None:
        require_file_place(Path(args.results), "results")
    plan = read_plan(args.dataset, args.plan)
    targets = tuple(EXHIBITS) if args.target == "all" else (args.target,)
    runs = Path(args.runs or f"runs/reproduction/{args.dataset}")
    measured = Path(args.measured or (runs / "measured" if args.plan else KEPT))
    device = planned_device(args.device)
    gpus = visible_gpus() if device == "cuda" and not args.address else ()
    if gpus and args.processes > len(gpus):
        raise InputError(
            f"{args.processes} jobs at a time have {len(gpus)} GPUs, one a job; use {len(gpus)} or fewer",
            parameter="processes",
        )
    place = Place(
        runs=runs,
        processes=args.processes or len(gpus) or len(os.sched_getaffinity(0)),
        device=device,
        address=args.address,
        source=args.source,
    )
    if args.dry_run:
        waiting, known = _waiting(plan, targets, args.part, place, measured)
        print(estimated_cost(plan, waiting, known, place).to_text())
        return
    outcomes = [] if args.pages_only else _run_jobs(plan, targets, args.part, place, measured)
    failures = {outcome.name: outcome.failure for outcome in outcomes if outcome.failure}
    if not args.part:
        _show(plan, targets, runs, measured, failures, args.results)
    if failures:
        name, failure = next(iter(failures.items()))
        raise InputError(f"{len(failures)} of {len(outcomes)} jobs failed, the first: {name}: {failure}")


def _share(wanted: Sequence[Job], part: str | None) -> Sequence[Job]:
    """The jobs of one part, I/N."""
    first, parts = chosen_part(part) if part else (0, 1)
    return wanted[first::parts]


def _waiting(
    plan: Plan, targets: Iterable[str], part: str | None, place: Place, measured: Path
) -> tuple[list[Job], dict[str, Record]]:
    """The jobs that are not done, and what is known of all trainings by their names. Prints how many are done."""
    wanted = _share(jobs(plan, targets), part)
    kept = read_kept(measured, plan.dataset)
    known = known_records(plan, [job.training for job in wanted], place.runs, kept)
    waiting = undone(plan, wanted, known, place.runs, measured / plan.dataset)
    print(f"{len(wanted)} jobs, {len(wanted) - len(waiting)} of them done before", flush=True)
    return waiting, known


def _run_jobs(plan: Plan, targets: Iterable[str], part: str | None, place: Place, measured: Path) -> list[Outcome]:
    waiting, _ = _waiting(plan, targets, part, place, measured)
    outcomes = []
    for outcome in run_jobs(plan, waiting, place):
        outcomes.append(outcome)
        state = f"FAILED: {outcome.failure}" if outcome.failure else "done"
        print(f"{len(outcomes)} of {len(waiting)}  {outcome.name}: {state}", flush=True)
    return outcomes


def _show(
    plan: Plan, targets: Iterable[str], runs: Path, measured: Path, failures: Mapping[str, str], results: str | None
) -> None:
    """Keeps what is known, and writes the pages of this data set and the results of all."""
    command = shlex.join(["python", "-m", "eval", *sys.argv[1:]])
    everything = jobs(plan, EXHIBITS)
    kept = read_kept(measured, plan.dataset)
    records = known_records(plan, [job.training for job in everything], runs, kept)
    drawn = [
        (job.training.name, picture_path(runs / job.training.name, name)) for job in everything for name in job.pictures
    ]
    keep_pictures(measured / plan.dataset, drawn, records, kept)
    write_kept(measured, plan.dataset, records)
    chapter = known_chapter(plan, targets, measured, failures)
    print(f"written to {write_pages(chapter, command, runs / 'pages')}")
    if results:
        plans = [plan if dataset == plan.dataset else read_plan(dataset) for dataset in BY_WEIGHT]
        chapters = [known_chapter(p, EXHIBITS, measured, failures if p is plan else {}) for p in plans]
        write_results(Path(results), chapters, command, commit())
        print(f"written to {results}")


def known_chapter(plan: Plan, targets: Iterable[str], measured: Path, failures: Mapping[str, str]) -> Chapter:
    """A data set's part of the results, from what is kept alone: run folders of all data sets have the same names."""
    wanted = jobs(plan, EXHIBITS)
    kept = read_kept(measured, plan.dataset)
    evidence = Evidence(plan=plan, records=known_records(plan, [job.training for job in wanted], None, kept))
    return Chapter(
        evidence=evidence,
        exhibits=exhibits(plan, tuple(targets)),
        missing=missing_sentences(jobs(plan, targets), evidence, failures),
        pictures=measured / plan.dataset,
        tables=read_tables(measured, plan.dataset),
    )
