"""`python -m eval fid`: the distance of samples, reconstructions or real images from the real images of a split."""

import argparse
import re
from pathlib import Path
from typing import Any

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError
from eval.distance.comparison import Comparison, comparison
from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.extractors.inception import MODES
from eval.distance.image_sets import SOURCES
from eval.distance.parts import finished, merge, part_path
from eval.distance.protocol import sufficient
from eval.distance.scores import ALSO, scores
from eval.distance.statistics import FeatureStatistics
from eval.images.files import FORMATS, ImageFolder
from eval.run import measured_before, open_run, read_result
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
    parser.add_argument("--n", type=int, help="number of images compared; 10000, or 50000 against split train")
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
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        choices=tuple(ALSO),
        help="kernel: KID with its standard error; neighbours: precision, recall, density, coverage; "
        "infinite: the distance at infinite n with an interval. They keep feature vectors, not only sums",
    )
    parser.add_argument("--save-images", choices=FORMATS, help="also write the images compared, under RUN/samples")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--part", metavar="I/N", help="make only part I of N, I from 0 to N - 1, as one job of an array")
    parts.add_argument("--merge", type=int, metavar="N", help="answer from N finished parts")
    parts.add_argument("--missing", type=int, metavar="N", help="tell which of N parts are to be made, as 0,2,3")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the networks run")


def check(args: argparse.Namespace) -> None:
    """Fills in the number of images, and refuses numbers that make no sense. Raises InputError."""
    if args.n is None:
        args.n = sufficient(args.split)
    for name, least in (("n", 2), ("mixture", 1), ("seed", 0), ("merge", 1), ("missing", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"--{name}: {value} is below {least}")
    if args.merge is not None and args.save_images:
        raise InputError("--save-images: a merge sees no images; give it to each part")


def chosen_part(text: str) -> tuple[int, int]:
    """(I, N) of "I/N". Raises InputError where that is not a part."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise InputError(f"--part: {text!r} is no part; use I/N with I from 0 to N - 1, such as 0/8")
    return int(found[1]), int(found[2])


def run(args: argparse.Namespace) -> None:
    """Measures and writes RUN/eval/fid-....json, or one part of it; what is there already is not made again."""
    check(args)
    with process_group(args.device) as ranks:
        question = _question(args, ranks)
        if args.missing is not None:
            print(",".join(str(part) for part in _missing_parts(question, args.missing)))
        elif args.part is not None:
            _make_part(question, *chosen_part(args.part), args, ranks)
        elif ranks.any(ranks.is_main and _answered(question, args)):
            if ranks.is_main:
                print("measured before:")
                show(read_result(question.result_path), question.result_path)
        else:
            _answer(question, args, ranks)


def _question(args: argparse.Namespace, ranks: Ranks) -> Comparison:
    extractor = extractor_by_name(
        args.extractor,
        ranks.device,
        size=args.extractor_size,
        mode=args.extractor_mode,
        weights=args.extractor_weights,
    )
    return comparison(open_run(args.run, args.weights, ranks.device), args, extractor)


def _answered(question: Comparison, args: argparse.Namespace) -> bool:
    path = question.result_path
    if not path.exists() or (args.save_images and not _images_folder(question, args.save_images).exists()):
        return False
    result = read_result(path)
    return result["protocol"] == question.protocol.record() and set(args.also) <= set(result["also"])


def _answer(question: Comparison, args: argparse.Namespace, ranks: Ranks) -> None:
    """Measures the whole set, or merges its parts, and writes the result."""
    if args.merge is not None:
        paths = [part_path(question.run.folder, question.protocol, part, args.merge) for part in range(args.merge)]
        compared = merge(paths, question.protocol)
    else:
        compared = _measure(question, _images_folder(question, args.save_images), args, ranks)
    reference = question.reference(ranks)
    if ranks.is_main:
        result = _with_earlier(question, scores(compared, reference, question, args.also))
        write_json(question.result_path, result)
        show(result, question.result_path)


def _with_earlier(question: Comparison, result: dict[str, Any]) -> dict[str, Any]:
    """`result` with the further measures that the same question was answered with before."""
    earlier = measured_before(question.result_path, question.protocol)
    if earlier is None:
        return result
    return result | {
        "values": earlier["values"] | result["values"],
        "also": sorted(set(earlier["also"]) | set(result["also"])),
    }


def _make_part(question: Comparison, part: int, parts: int, args: argparse.Namespace, ranks: Ranks) -> None:
    """Writes one part's statistics, unless they are there."""
    path = part_path(question.run.folder, question.protocol, part, parts)
    folder = _images_folder(question, args.save_images) / path.stem
    done = finished(path, question.protocol, with_features=question.keep_features)
    if ranks.any(ranks.is_main and done and (not args.save_images or folder.exists())):
        if ranks.is_main:
            print(f"{path}: finished before")
        return
    statistics = _measure(question, folder, args, ranks, part=part, parts=parts)
    if ranks.is_main:
        statistics.save(path)
        print(
            f"{path}: {statistics.n:,} images; when all {parts} parts are done: the same command with --merge {parts}"
        )


def _missing_parts(question: Comparison, parts: int) -> list[int]:
    paths = [part_path(question.run.folder, question.protocol, part, parts) for part in range(parts)]
    return [
        part
        for part, path in enumerate(paths)
        if not finished(path, question.protocol, with_features=question.keep_features)
    ]


def _measure(
    question: Comparison, folder: Path, args: argparse.Namespace, ranks: Ranks, *, part: int = 0, parts: int = 1
) -> FeatureStatistics:
    """The statistics of a part, whose images are written to `folder` on the way if that is asked for."""
    if not args.save_images:
        return question.statistics(ranks, part=part, parts=parts)
    images = ImageFolder(folder, args.save_images, ranks)
    statistics = question.statistics(ranks, images=images.saving(question.compared.images), part=part, parts=parts)
    images.finish()
    return statistics


def _images_folder(question: Comparison, file_format: str) -> Path:
    return question.run.folder / "samples" / f"{question.result_path.stem}-{file_format}"


def show(result: dict[str, Any], path: Path) -> None:
    """Prints the result with what it depends on."""
    protocol = result["protocol"]
    for name, number in result["values"].items():
        error = "" if number["standard_error"] is None else f" +- {number['standard_error']:.4g}"
        if "interval_95" in number:
            error = f" ({number['interval_95'][0]:.4f} to {number['interval_95'][1]:.4f})"
        print(f"{name.replace('_', ' '):32} {number['value']:12.4f}{error}  {number['unit']}")
    print(f"{'called':32} {result['label']}")
    source = " ".join(word for word in (protocol["source"], protocol["mixture"]) if word)
    print(
        f"{'compared':32} {protocol['n']:,} images, {source}, with {protocol['n_reference']:,} of split "
        f"{protocol['split']}; {protocol['weights']} weights, seed {protocol['seed']}"
    )
    for remark in result["remarks"]:
        print(f"{'remark':32} {remark}")
    print(f"written to {path}")
