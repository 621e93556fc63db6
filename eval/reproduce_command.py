"""`python -m eval reproduce`: trains, measures and shows every table and figure of the paper on one data set."""

import argparse
import dataclasses
from pathlib import Path

from data_shards.errors import InputError
from eval.cache import shared_folder
from eval.extractors.inception import WEIGHTS_NAME
from eval.fid_command import chosen_part
from eval.paper import DATASETS
from eval.reproduction.jobs import TARGETS, jobs
from eval.reproduction.measured import MEASURED, keep_pictures, read_measured, write_measured
from eval.reproduction.plan import Measurements, read_plan
from eval.reproduction.run_jobs import Place, carry_out, known_records, processors, undone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval reproduce`."""
    parser.add_argument("target", choices=(*TARGETS, "all"), help="what to reproduce; beyond: variants of our own")
    parser.add_argument("--dataset", required=True, choices=tuple(DATASETS), help="the data set")
    parser.add_argument("--runs", default="", help="folder of the run folders (default: runs/reproduction/DATASET)")
    parser.add_argument("--plan", help="YAML file (default: the project's own, eval/reproduction/plans)")
    parser.add_argument(
        "--measured",
        help="folder of what is kept of finished runs, read and written "
        "(default: eval/reproduction/measured, and with --plan RUNS/measured)",
    )
    parser.add_argument("--source", help="where the images lie, for shards that are not built yet")
    parser.add_argument("--part", metavar="I/N", help="do jobs I, I + N, I + 2 N ... and write no page")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="jobs at a time (default: one a core)")
    parser.add_argument("--address", default="", help="send the jobs to this Ray cluster, which shares the folder")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the networks run")


def run(args: argparse.Namespace) -> None:
    """Carries out the jobs that are not done yet."""
    if args.processes < 0:
        raise InputError(f"--processes: {args.processes} is below 0")
    if args.address and args.part:
        raise InputError("--part: a Ray cluster shares out the jobs by itself; leave one of --part and --address out")
    plan = read_plan(args.dataset, args.plan)
    plan = dataclasses.replace(plan, measure=with_extractor(plan.measure))
    targets = TARGETS if args.target == "all" else (args.target,)
    runs = Path(args.runs or f"runs/reproduction/{args.dataset}")
    measured = Path(args.measured) if args.measured else runs / "measured" if args.plan else MEASURED
    asked = jobs(plan, targets)
    if args.part:
        part, parts = chosen_part(args.part)
        asked = asked[part::parts]
    kept = read_measured(measured, plan.dataset)
    waiting = undone(asked, known_records(plan, asked, runs, kept), runs, measured / plan.dataset)
    print(f"{len(asked)} jobs, {len(asked) - len(waiting)} of them done before", flush=True)
    place = Place(
        runs=runs,
        processes=args.processes or processors(),
        device=args.device,
        address=args.address,
        source=args.source,
    )
    failed = [outcome for outcome in carry_out(plan, waiting, place) if outcome.failure]
    if not args.part:
        everything = jobs(plan, TARGETS)
        write_measured(measured, plan.dataset, known_records(plan, everything, runs, kept))
        keep_pictures(measured / plan.dataset, everything, runs)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(waiting)} jobs failed, the first: {failed[0].name}: {failed[0].failure}"
        )


def with_extractor(measure: Measurements) -> Measurements:
    """The measurements with their extractor chosen: inception where its weights are at hand."""
    if measure.extractor != "auto":
        return measure
    at_hand = measure.extractor_weights or (shared_folder("weights") / WEIGHTS_NAME).exists()
    return dataclasses.replace(measure, extractor="inception" if at_hand else "efficientnet-lite0")
