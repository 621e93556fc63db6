"""Options that several commands have, and the questions that parsed options make."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, TypeVar

from data_shards.io.errors import InputError, OneLineParser
from data_shards.io.options import seed
from eval.images.densities import BY_OPTION, DENSITIES
from eval.questions import DEFAULT_COMPONENTS, FLOORS, INCEPTION_MODES
from trainer.device import DEVICES
from trainer.mixture.settings import COVARIANCE_TYPES
from trainer.run_folder.latents import WEIGHTS

if TYPE_CHECKING:
    import torch
    from _typeshed import DataclassInstance

    from eval.distance.extractors.extractor import Extractor

    AnyQuestion = TypeVar("AnyQuestion", bound=DataclassInstance)


def add_run_options(
    parser: OneLineParser, *, weights_help: str = "which weights to measure", required: bool = True
) -> None:
    """Adds --run, --weights and --device."""
    parser.add_argument("--run", required=required, help="run folder")
    parser.add_argument("--weights", default="final", choices=WEIGHTS, help=weights_help)
    add_device_option(parser)


def add_device_option(parser: OneLineParser) -> None:
    """Adds --device."""
    parser.add_argument(
        "--device", default="auto", choices=DEVICES, help="where the networks run; auto is cuda where there is a GPU"
    )


def add_animation_option(parser: OneLineParser) -> None:
    """Adds --animation."""
    parser.add_argument(
        "--animation", default="gif", choices=("gif", "mp4"), help="kind of moving picture (default: gif)"
    )


def add_mixture_options(parser: OneLineParser, mixture_help: str, *, default: int | None = DEFAULT_COMPONENTS) -> None:
    """Adds --mixture and --covariance."""
    parser.add_argument("--mixture", type=int, default=default, help=mixture_help)
    parser.add_argument("--covariance", default="full", choices=COVARIANCE_TYPES, help="the mixture's covariance type")


def add_extractor_options(parser: OneLineParser) -> None:
    """Adds --extractor and what belongs to it."""
    parser.add_argument(
        "--extractor",
        default="efficientnet-lite0",
        help="efficientnet-lite0 or efficientnet-lite2, which are always there; inception; dinov2 or clip, with their "
        "weights; a TorchScript file, or MODULE:FUNCTION, which is called with a device and returns a network; the "
        "last two are given (B, 3, size, size) float pixels in 0 to 255",
    )
    parser.add_argument(
        "--extractor-size",
        type=int,
        default=0,
        help="input size in pixels; 64 for efficientnet-lite, 224 for dinov2 and your own, clip's own for clip",
    )
    parser.add_argument(
        "--extractor-mode", default="clean", choices=INCEPTION_MODES, help="clean-fid's mode, for inception"
    )
    parser.add_argument(
        "--extractor-weights",
        default="",
        help="weights of inception (downloaded once where none are given), dinov2 or clip: a state dict of torch.hub "
        "or timm (.pth, .safetensors), or a Hugging Face folder",
    )
    parser.acts_only(
        lambda args: args.extractor == "inception",
        "extractor_mode",
        otherwise="is not for the extractor {extractor}; leave it out",
    )


def add_sampling_options(parser: OneLineParser) -> None:
    """Adds --density, --mixture, --covariance, --temperature and --seed."""
    parser.add_argument(
        "--density", default="mixture", choices=tuple(BY_OPTION), help="what a run's latents are drawn from"
    )
    add_mixture_options(parser, "components of a run's mixture (default: of the one that is fitted)", default=None)
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="factor on the deviations of the density (default: 1)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of latents and choices; image i is of (seed, i)")


def of_mixture(density: str) -> bool:
    """Whether a density that `--density` names is a mixture, so that `--mixture` says which."""
    return DENSITIES[BY_OPTION[density]].of_mixture


def refuse_mixture_of_other_densities(parser: OneLineParser) -> None:
    """Has --mixture and --covariance refused where --density is no mixture."""
    parser.acts_only(
        lambda args: of_mixture(args.density),
        "mixture",
        "covariance",
        otherwise="chooses a mixture, and --density {density} is none; leave it out",
    )


def chosen_extractor(args: argparse.Namespace, device: "torch.device") -> "Extractor":
    """The extractor that the options of `add_extractor_options` name."""
    from eval.distance.extractors.by_name import extractor_by_name

    return extractor_by_name(
        args.extractor,
        device,
        size=args.extractor_size,
        mode=args.extractor_mode,
        weights=args.extractor_weights,
    )


def refuse_sampling_without_run(parser: OneLineParser, sets: Callable[[argparse.Namespace], Sequence[str]]) -> None:
    """Has options of a run's samples refused where none of the sets of images is of a run. sets: the words given."""
    parser.acts_only(
        lambda args: any(word.startswith("run:") for word in sets(args)),
        *("density", "mixture", "covariance", "temperature", "weights"),
        otherwise="is of samples of a run, and no set is run:RUN; leave it out",
    )


def refuse_seed_without_choice(
    parser: OneLineParser,
    sets: Callable[[argparse.Namespace], Sequence[str]],
    draws: Callable[[argparse.Namespace], bool] = lambda args: False,
) -> None:
    """Has --seed refused where sets of images are taken whole, and nothing is drawn.

    sets: the words given; draws: whether something else is drawn.
    """
    parser.acts_only(
        lambda args: args.n is not None or any(word.startswith("run:") for word in sets(args)) or draws(args),
        "seed",
        otherwise="nothing is drawn or chosen; give --n too, or leave it out",
    )


def refuse_mixture_of_other_noise(parser: OneLineParser) -> None:
    """Has --mixture and --covariance refused where only noise that differs between components takes a mixture."""
    parser.acts_only(
        lambda args: args.noise == "correlated-component",
        "mixture",
        "covariance",
        otherwise="chooses a mixture, which --noise {noise} does not depend on; leave it out",
    )


def add_skip_bad_option(parser: OneLineParser) -> None:
    """Adds --skip-bad."""
    parser.add_argument(
        "--skip-bad", type=int, default=0, metavar="N", help="leave out up to N images that cannot be read (default: 0)"
    )


def add_noise_options(parser: OneLineParser, noises: tuple[str, ...]) -> None:
    """Adds --noise, whose default is the first of `noises`, and --floor."""
    parser.add_argument(
        "--noise",
        default=noises[0],
        choices=noises,
        help="of an image given its latents: one covariance of its pixels for all, or one a component of the mixture",
    )
    parser.add_argument(
        "--floor",
        default=FLOORS[0],
        choices=FLOORS,
        help="least eigenvalue of correlated noise: the floor of Algorithm 1, or none",
    )
    parser.acts_only(
        lambda args: args.noise != "independent",
        "floor",
        otherwise="is of correlated noise; give --noise correlated too, or leave it out",
    )


def add_annealing_options(parser: OneLineParser) -> None:
    """Adds --annealing and --chains."""
    parser.add_argument(
        "--annealing",
        type=int,
        default=0,
        metavar="STEPS",
        help="also the tighter bound of annealed importance sampling through so many densities, 100 for instance",
    )
    parser.add_argument("--chains", type=int, default=1, help="annealed samples for each image (default: 1)")
    parser.acts_only(
        lambda args: args.annealing != 0,
        "chains",
        otherwise="is of annealed importance sampling; give --annealing too, or leave it out",
    )


def add_subset_options(parser: OneLineParser, images: int, images_help: str) -> None:
    """Adds --images, whose default is `images`, --split and --seed."""
    parser.add_argument("--images", type=int, default=images, help=images_help)
    parser.add_argument("--split", default="test", help="split of the data")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the noise")


def question_of(kind: "type[AnyQuestion]", args: argparse.Namespace) -> "AnyQuestion":
    """The question that options with the names of its fields ask. Raises InputError for values that make no sense."""
    given = {field.name: getattr(args, field.name, MISSING) for field in fields(kind)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return kind(**{name: value for name, value in values.items() if value is not MISSING})


def chosen_part(text: str) -> tuple[int, int]:
    """(I, N) of "I/N". Raises InputError where that is not a part."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise InputError(f"{text!r} is not a part; use I/N with I from 0 to N - 1, such as 0/8", parameter="part")
    return int(found[1]), int(found[2])
