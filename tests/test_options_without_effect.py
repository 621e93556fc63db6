"""Options that act only beside others: where one would be ignored, it is refused in one line that names it."""

import argparse
import importlib
import shlex

import pytest

from data_shards.__main__ import _COMMANDS as OF_SHARDS
from data_shards.io.errors import InputError, OneLineParser
from eval.__main__ import COMMANDS as OF_EVAL
from eval.images.densities import DENSITIES, SOURCES
from eval.protocol import (
    CompletionProtocol,
    DistanceProtocol,
    LikelihoodProtocol,
    MemorisationProtocol,
    ResidualsProtocol,
    UncertaintyProtocol,
)
from trainer.flow.__main__ import parser as flow_parser
from trainer.mixture.__main__ import parser as mixture_parser

EVAL = tuple(f"eval {name}" for name in OF_EVAL)
SHARDS = tuple(f"data_shards {name}" for name in OF_SHARDS)
OF_A_RUN = {"run", "weights", "device"}
OF_AN_EXTRACTOR = {"extractor", "extractor_size", "extractor_mode", "extractor_weights"}
OF_A_MIXTURE = {"mixture", "covariance"}

REFUSED = {
    "eval fid": [
        ("A B", "--run runs/demo"),
        ("A B", "--from prior"),
        ("A B", "--save-images png"),
        ("A B", "--dry-run"),
        ("A B", "--split test"),
        ("A B --out O", "--processes 2"),
        ("A B", "--density prior"),
        ("A B", "--mixture 7"),
        ("A B", "--covariance diag"),
        ("A B", "--temperature 0.8"),
        ("A B", "--weights best"),
        ("A B", "--seed 1"),
        ("A B --also kernel", "--seed 1"),
        ("A B", "--steal-lock"),
        ("A B", "--extractor-mode clean"),
        ("A run:demo --density prior", "--mixture 7"),
        ("A run:demo --density flow", "--covariance diag"),
        ("--run R --from q_hat", "--density mixture"),
        ("--run R --from q_hat", "--temperature 1"),
        ("--run R --from q_hat", "--out O"),
        ("--run R --from q_hat", "--skip-bad 1"),
        ("--run R --from q_hat", "--processes 2"),
        ("--run R --from q_hat --merge 2", "--save-images png"),
        *(("--run R --from " + name, "--mixture 7") for name in ("prior", "flow", "reconstruction", "train", "half")),
        ("--run R --from prior", "--covariance diag"),
        ("--run R --from half", "--n 100"),
        ("--run R --from reconstruction", "--seed 1"),
        ("--run R --from reconstruction --also kernel neighbours cmmd", "--seed 1"),
    ],
    "eval statistics": [
        ("A --out O", "--density prior"),
        ("A --out O", "--mixture 7"),
        ("A --out O", "--temperature 0.8"),
        ("A --out O", "--weights best"),
        ("A --out O", "--seed 1"),
        ("run:demo --density prior --out O", "--mixture 7"),
        ("run:demo --density prior --out O", "--covariance diag"),
        ("A --out O --extractor efficientnet-lite2", "--extractor-mode clean"),
    ],
    "eval sample": [
        ("--run R --out O --density prior", "--mixture 7"),
        ("--run R --out O --density prior", "--covariance full"),
        ("--run R --out O --density flow", "--mixture 7"),
    ],
    "eval interpolate": [
        ("--run R --out O --density prior", "--mixture 7"),
        ("--run R --out O --between A", "--density mixture"),
        ("--run R --out O --between A", "--mixture 7"),
        ("--run R --out O --between A", "--covariance diag"),
        ("--run R --out O --between A", "--temperature 0.8"),
    ],
    "eval traverse": [("--run R --out O", "--seed 1")],
    "eval reconstruct": [("A --run R --out O", "--seed 1")],
    "eval score": [
        ("A --run R --density prior", "--mixture 7"),
        ("A --run R --density flow", "--covariance diag"),
        ("A --run R", "--chains 1"),
        ("A --run R", "--steal-lock"),
    ],
    "eval residuals": [("--run R", "--mixture 7"), ("--run R --noise correlated", "--covariance diag")],
    "eval likelihood": [
        ("--run R --mixture 0", "--covariance diag"),
        ("--run R", "--floor none"),
        ("--run R", "--chains 2"),
    ],
    "eval uncertainty": [
        ("--run R", "--mixture 7"),
        ("--run R --noise correlated", "--mixture 7"),
        ("--run R", "--covariance diag"),
        ("--run R", "--floor algorithm1"),
    ],
    "eval report": [("--run R --make-nothing", "--steal-lock")],
    "eval reproduce": [
        *(("all --dataset mnist --pages-only", option) for option in ("--source A", "--processes 2", "--device cpu")),
        ("all --dataset mnist --pages-only", "--address auto"),
        ("all --dataset mnist --pages-only", "--dry-run"),
        ("all --dataset mnist --pages-only", "--part 0/2"),
        ("all --dataset mnist --address auto", "--part 0/2"),
        ("all --dataset mnist --address auto", "--processes 2"),
        ("all --dataset mnist --part 0/2", "--results R.md"),
    ],
    "data_shards build": [("folder A --out O --dry-run", "--part 0/2"), ("folder A --out O --dry-run", "--merge")],
    "data_shards verify": [("A", "--allow-pipe")],
    "data_shards simulate": [("A", f"--{name} 2") for name in ("images", "shard-images", "image-bytes", "window")],
    "data_shards info": [("A", "--allow-pipe")],
    "trainer.mixture": [
        ("--run R", "--processes 2"),
        ("--run R --start-from 4", "--starts 3"),
        ("--run R --start-from 4", "--seeding random"),
    ],
}
"""By command: words with which an option has no effect, and the option."""

ALWAYS = {
    "eval encode": OF_A_RUN | {"split", "steal_lock"},
    "eval transport": OF_A_RUN | OF_A_MIXTURE | {"seed", "rounds", "steal_lock"},
    "eval fid": OF_AN_EXTRACTOR - {"extractor_mode"} | {"device", "also", "part", "merge", "missing"},
    "eval statistics": OF_AN_EXTRACTOR - {"extractor_mode"} | {"device", "out", "n", "skip_bad", "steal_lock"},
    "eval sample": OF_A_RUN | {"out", "n", "format", "density", "temperature", "seed", "steal_lock"},
    "eval reconstruct": OF_A_RUN | {"out", "n", "skip_bad", "steal_lock"},
    "eval interpolate": OF_A_RUN | {"out", "rows", "steps", "between", "seed", "animation", "steal_lock"},
    "eval traverse": OF_A_RUN | {"out", "rows", "steps", "around", "animation", "steal_lock"},
    "eval score": OF_A_RUN | {"out", "n", "against", "samples", "annealing", "density", "seed", "skip_bad"},
    "eval residuals": OF_A_RUN | {"noise", "floor", "seed", "steal_lock"},
    "eval likelihood": OF_A_RUN | {"noise", "mixture", "images", "split", "seed", "samples", "annealing", "steal_lock"},
    "eval uncertainty": OF_A_RUN | {"noise", "calibrate", "images", "split", "seed", "steal_lock"},
    "eval complete": OF_A_RUN | OF_A_MIXTURE | {"hide", "noise", "floor", "images", "split", "seed", "steal_lock"},
    "eval memorisation": OF_A_RUN | OF_A_MIXTURE | {"images", "split", "seed", "source", "steal_lock"},
    "eval report": OF_A_MIXTURE | {"run", "device", "split", "make_nothing", "out"},
    "eval reproduce": {"dataset", "runs", "plan", "measured", "pages_only"},
    "data_shards build": {"source", "out", "size", "crop", "fit", "background", "channels", "encoding", "valid", "test"}
    | {"shard_images", "window", "skip_bad", "processes", "update", "check_content", "steal_lock", "dry_run"},
    "data_shards split": {"valid", "test", "processes", "steal_lock"},
    "data_shards verify": {"processes"},
    "data_shards info": {"contact_sheet"},
    "data_shards simulate": {"ranks", "ranks_per_node", "global_batch", "cache_bytes", "positions"},
    "trainer.mixture": {"run", "n_components", "covariance_type", "weights", "encodings", "max_iter", "tol"}
    | {"reg_covar", "prior_strength", "inflation", "annealing_iter", "candidates", "start_from", "random_state"}
    | {"device", "steal_lock", "dry_run"},
    "trainer.flow": {"run", "weights", "epochs", "seed", "steal_lock", "device"},
}
"""By command: the parameters of options that act beside any others, or are refused where the values are read."""


def parser_of(command):
    """The parser of a command."""
    program, _, name = command.partition(" ")
    if program.startswith("trainer."):
        return {"trainer.mixture": mixture_parser, "trainer.flow": flow_parser}[program]()
    parser = OneLineParser(prog=command)
    module = importlib.import_module(f"eval.commands.{name}") if program == "eval" else OF_SHARDS[name][0]
    module.add_arguments(parser)
    return parser


@pytest.mark.parametrize(
    ("command", "words", "option"),
    [(command, *one) for command, several in REFUSED.items() for one in several],
    ids=lambda value: value.replace(" ", "_"),
)
def test_an_option_that_would_be_ignored_is_refused_and_the_command_goes_without_it(command, words, option):
    parser = parser_of(command)
    parser.parse_args(words.split())
    (dest,) = (action.dest for action in parser._actions if option.split()[0] in action.option_strings)
    with pytest.raises(InputError) as refused:
        parser.parse_args([*words.split(), *option.split()])
    assert refused.value.parameter == dest
    assert "leave" in str(refused.value) or "give" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", [*EVAL, *SHARDS, "trainer.mixture", "trainer.flow"])
def test_of_every_option_it_is_known_where_it_acts(command):
    parser = parser_of(command)
    options = {action.dest for action in parser._actions if action.option_strings} - {"help"}
    words = {option.split()[0] for _, option in REFUSED.get(command, [])}
    conditional = {action.dest for action in parser._actions if words & {*action.option_strings}}
    assert conditional | ALWAYS[command] >= options, "say in REFUSED beside which others a new option has no effect"
    assert not conditional & ALWAYS[command]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("eval fid", "A run:demo --density prior --temperature 0.8 --seed 1"),
        ("eval fid", "A run:demo --mixture 7 --seed 1"),
        ("eval fid", "A B --n 10 --seed 1"),
        ("eval fid", "A B --also infinite --seed 1"),
        ("eval fid", "--run R --from transported --mixture 7 --seed 1"),
        ("eval fid", "--run R --from reconstruction --also infinite --seed 1"),
        ("eval fid", "--run R --from q_hat --mixture 7 --dry-run --processes 4 --steal-lock"),
        ("eval fid", "A B --extractor inception --extractor-mode clean"),
        ("eval sample", "--run R --out O --density transported --mixture 7"),
        ("eval reconstruct", "run:demo --run R --out O --seed 1"),
        ("eval score", "A --run R --annealing 10 --chains 2"),
        ("eval likelihood", "--run R --noise correlated --floor none --mixture 7 --covariance diag"),
        ("eval uncertainty", "--run R --noise correlated-component --mixture 7"),
        ("data_shards info", "pipe:cat --allow-pipe"),
        ("trainer.mixture", "--run R --start-from 4 --seed 1"),
    ],
)
def test_an_option_that_acts_is_taken(command, words):
    assert isinstance(parser_of(command).parse_args(words.split()), argparse.Namespace)


OF_ALL = {"run": "demo", "weights": "best", "checkpoint": "c", "data": "d", "split": "valid", "n": 100, "seed": 1}
OF_ALL |= {"image_shape": (1, 28, 28)}
OF_VARIANCE = {"measure": "x 1", "variance": "one", "variance_floor": 0.1}
OF_NOISE = {"noise": "correlated-component", "floor": "none"}
FOUR = {"mixture": "4-diag", "mixture_digest": "m"}
NO_MIXTURE = {"mixture": "", "mixture_digest": ""}
OF_FOUR_NOISES = {"noise_mixture": "4-diag", "noise_mixture_digest": "m"}


def distance(source, name="efficientnet-lite0", **extractor):
    """The protocol of a distance from a source."""
    density = DENSITIES.get(source)
    mixture = FOUR if density is not None and density.of_mixture else NO_MIXTURE
    seed = {"seed": 0} if source == "reconstruction" else {}
    return DistanceProtocol(
        **{**OF_ALL, **seed},
        **mixture,
        source=source,
        latents="",
        n_reference=10,
        channels="",
        extractor={"name": name, **(extractor or {"size": 64})},
    )


@pytest.mark.parametrize(
    "protocol",
    [
        *map(distance, SOURCES),
        distance("prior", "inception", mode="clean"),
        distance("prior", "efficientnet-lite2", size=64),
        distance("prior", "mine.pt", size=32),
        LikelihoodProtocol(**OF_ALL, **OF_VARIANCE, **FOUR, **OF_NOISE, importance_samples=3),
        LikelihoodProtocol(**OF_ALL, **OF_VARIANCE, **NO_MIXTURE, importance_samples=3),
        LikelihoodProtocol(
            **OF_ALL, **OF_VARIANCE, **NO_MIXTURE, importance_samples=3, annealing={"steps": 5, "chains": 2}
        ),
        UncertaintyProtocol(**OF_ALL, **OF_VARIANCE, **OF_NOISE, **OF_FOUR_NOISES, calibration="valid"),
        UncertaintyProtocol(**OF_ALL, **OF_VARIANCE),
        ResidualsProtocol(**OF_ALL, **OF_VARIANCE, **OF_NOISE, **FOUR, held_out="valid"),
        ResidualsProtocol(
            **OF_ALL, **OF_VARIANCE, **NO_MIXTURE, noise="correlated", floor="algorithm1", held_out="valid"
        ),
        CompletionProtocol(**OF_ALL, **OF_VARIANCE, **OF_NOISE, **FOUR, hide="left"),
        MemorisationProtocol(**OF_ALL, **OF_VARIANCE, **FOUR, train_split="train"),
    ],
    ids=lambda protocol: f"{type(protocol).__name__}-{getattr(protocol, 'source', '')}",
)
def test_the_command_that_a_page_names_is_one_that_is_taken(protocol):
    _, _, *words = shlex.split(protocol.command("runs/demo"))
    program, name, *options = words
    parser_of(f"{program} {name}").parse_args(options)


@pytest.mark.parametrize("command", [*EVAL, *SHARDS, "trainer.mixture", "trainer.flow"])
def test_the_help_shows_every_default(command):
    parser = parser_of(command)
    shown = " ".join(parser.format_help().split())
    for action in parser._actions:
        plain = isinstance(action.default, str | int | float) and not isinstance(action.default, bool)
        if action.option_strings and plain and action.default not in ("", argparse.SUPPRESS):
            words = " ".join((action.help or "").split()).replace("%%", "%")
            after = shown.partition(words)[2]
            assert "default" in words or after.startswith(f" (default: {action.default})"), action.option_strings
