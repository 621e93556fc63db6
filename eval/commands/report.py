"""`python -m eval report`: makes what a run's report shows and is missing, then one page and one picture of samples."""

import argparse
from functools import partial
from pathlib import Path

import torch

from data_shards.io.atomic import write_bytes, write_text
from data_shards.io.errors import OneLineParser, told_where_only_reading_is_allowed
from data_shards.io.options import add_lock_option
from eval.commands.options import add_device_option
from eval.export.record import require_place
from eval.questions import DistanceQuestion
from eval.report.gallery import SIDE, overview
from eval.report.model_sections import fitted_mixture, fitted_transport, mixture_latents
from eval.report.pace import measure_pace
from eval.report.page import build_page
from eval.report.sizes import Sizes, chosen_sizes
from eval.report.steps import make_missing, report_steps
from eval.run import MeasuredRun, load_shared_run
from trainer.mixture.settings import COVARIANCE_TYPES
from trainer.process_group import process_group, single


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval report`."""
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument(
        "--mixture",
        type=int,
        help="components of the mixture to sample from (default: of the one that is fitted, else 32, or fewer for few "
        "images)",
    )
    parser.add_argument("--covariance", default="full", choices=COVARIANCE_TYPES, help="the mixture's covariance type")
    parser.add_argument("--split", help="split of new images (default: test, or the held-out split where none is)")
    parser.add_argument("--make-nothing", action="store_true", help="only show what has been made and measured before")
    add_lock_option(parser, "what is made")
    parser.acts_only(
        lambda args: not args.make_nothing, "steal_lock", otherwise="--make-nothing makes nothing; leave it out"
    )
    parser.add_argument(
        "--out", help="folder for report.html and overview.png (default: the run folder and its samples)"
    )
    add_device_option(parser)


def run(args: argparse.Namespace) -> None:
    """Writes RUN/report.html, and RUN/samples/overview.png where a mixture is fitted, or both to another folder."""
    if args.out is not None:
        require_place(Path(args.out) / "report.html")
    with process_group(args.device, options=vars(args)) as ranks:
        measured = load_shared_run(args.run, "final", ranks)
        sizes = chosen_sizes(measured, args.split, args.mixture, args.covariance)
        if ranks.is_main:
            for remark in sizes.remarks:
                print(remark, flush=True)
        if not args.make_nothing:
            pace = partial(measure_pace, measured, DistanceQuestion.extractor, ranks)
            make_missing(report_steps(measured, sizes, args.covariance, ranks, steal=args.steal_lock), pace, ranks)
        if ranks.is_main:
            page, picture = measured.folder / "report.html", measured.folder / "samples" / "overview.png"
            if args.out is not None:
                page, picture = Path(args.out) / page.name, Path(args.out) / picture.name
            with told_where_only_reading_is_allowed(page.parent, "give --out FOLDER"):
                _write(measured, sizes, args.covariance, ranks.device, page, picture)


def _write(
    measured: MeasuredRun, sizes: Sizes, covariance: str, device: torch.device, page_path: Path, picture_path: Path
) -> None:
    """The page and the picture."""
    alone = single(device)
    page = build_page(measured, sizes=sizes, covariance=covariance, ranks=alone)
    mixture = fitted_mixture(measured, sizes.components, covariance)
    if mixture is not None:
        latents = mixture_latents(mixture)[: SIDE**2].to(alone.device)
        picture_path.parent.mkdir(parents=True, exist_ok=True)
        transport = fitted_transport(measured, sizes.components, covariance)
        picture = overview(measured.model, latents, measured.config.name, transport)
        write_bytes(picture_path, picture)
        print(f"written to {picture_path}")
    page_path.parent.mkdir(parents=True, exist_ok=True)
    write_text(page_path, page.html())
    print(f"written to {page_path}")
