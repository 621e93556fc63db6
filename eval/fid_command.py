"""`python -m eval fid`: the distance of samples, reconstructions or real images from the real images of a split."""

import argparse
from pathlib import Path
from typing import Any

import torch

from data_shards.atomic import write_json
from data_shards.errors import InputError
from eval.compared_images import SOURCES
from eval.distances import Comparison, comparison, result_path, scores
from eval.extractors.by_name import extractor_by_name
from eval.extractors.inception import MODES
from eval.measured_run import open_run, read_result
from trainer.process_group import Ranks, process_group


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m eval fid`."""
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--weights", default="final", choices=("final", "stage1"), help="which weights to measure")
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        choices=tuple(SOURCES),
        help="; ".join(f"{name}: {meaning}" for name, meaning in SOURCES.items()),
    )
    parser.add_argument("--n", type=int, default=10_000, help="number of images compared (50000 against train)")
    parser.add_argument("--split", default="test", help="split of real images they are compared with, all of it")
    parser.add_argument("--mixture", type=int, default=32, help="components of the fitted mixture, for q_hat")
    parser.add_argument("--covariance", default="full", help="covariance type of the fitted mixture, for q_hat")
    parser.add_argument(
        "--extractor",
        default="efficientnet-lite0",
        help="efficientnet-lite0, inception, a TorchScript file, or MODULE:FUNCTION, which is called with a device and "
        "returns a network; the last two are given (B, 3, size, size) float pixels in 0 to 255",
    )
    parser.add_argument(
        "--extractor-size",
        type=int,
        default=0,
        help="input size in pixels; 64 for efficientnet-lite0, 224 for your own",
    )
    parser.add_argument("--extractor-mode", default="clean", choices=MODES, help="clean-fid's mode, for inception")
    parser.add_argument(
        "--extractor-weights", default="", help="weight file for inception; downloaded once where none is given"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples; image i is a function of (seed, i)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the networks run")


def check(args: argparse.Namespace) -> None:
    """Refuses numbers that make no sense. Raises InputError."""
    for name, least in (("n", 2), ("mixture", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise InputError(f"--{name}: {getattr(args, name)} is below {least}")


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/fid-....json; a result that is there already is only printed."""
    check(args)
    with process_group(args.device) as ranks:
        question = _question(args, ranks)
        path = result_path(question)
        if ranks.any(ranks.is_main and _finished(path, question)):
            if ranks.is_main:
                print("measured before:")
                show(read_result(path), path)
            return
        reference = question.reference(ranks)
        compared = question.statistics(ranks)
        if ranks.is_main:
            result = scores(compared, reference, question)
            write_json(path, result)
            show(result, path)


def _question(args: argparse.Namespace, ranks: Ranks) -> Comparison:
    extractor = extractor_by_name(
        args.extractor,
        torch.device(ranks.device),
        size=args.extractor_size,
        mode=args.extractor_mode,
        weights=args.extractor_weights,
    )
    return comparison(open_run(args.run, args.weights, ranks.device), args, extractor)


def _finished(path: Path, question: Comparison) -> bool:
    return path.exists() and read_result(path)["protocol"] == question.protocol.record()


def show(result: dict[str, Any], path: Path) -> None:
    """Prints the result with what it depends on."""
    protocol = result["protocol"]
    for name, number in result["values"].items():
        error = "" if number["standard_error"] is None else f" +- {number['standard_error']:.4g}"
        print(f"{name.replace('_', ' '):24} {number['value']:12.4f}{error}  {number['unit']}")
    print(f"{'called':24} {result['label']}")
    print(
        f"{'compared':24} {protocol['n']:,} images, {protocol['source']} {protocol['mixture']}, with "
        f"{protocol['n_reference']:,} of split {protocol['split']}; {protocol['weights']} weights, "
        f"seed {protocol['seed']}"
    )
    for remark in result["remarks"]:
        print(f"{'remark':24} {remark}")
    print(f"written to {path}")
