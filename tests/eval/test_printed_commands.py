"""Each command that a page or message prints for a measurement is taken by that command, and asks the same question."""

import importlib
import itertools
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from support.running import ROOT

from data_shards.io.errors import OneLineParser
from eval.__main__ import COMMANDS
from eval.commands.options import question_of
from eval.distance.measures import FURTHER, command_of
from eval.images.densities import DENSITIES, SOURCES
from eval.protocol import (
    CompletionProtocol,
    DistanceProtocol,
    LikelihoodProtocol,
    MemorisationProtocol,
    ResidualsProtocol,
    UncertaintyProtocol,
)
from eval.questions import (
    CompletionQuestion,
    DistanceQuestion,
    LikelihoodQuestion,
    MemorisationQuestion,
    ResidualsQuestion,
    UncertaintyQuestion,
)
from eval.report.known import _by_name
from eval.results import DistanceResult

RUN = "my runs/it's one"
EXTRACTORS = {
    "efficientnet-lite0": {"size": 64},
    "efficientnet-lite2": {"size": 96},
    "inception": {"mode": "legacy_pytorch"},
    "dinov2": {"size": 224},
    "module:function": {"size": 32},
}


def parsed(command: str):
    """What the command's own parser makes of a printed line."""
    python, dash, package, name, *words = shlex.split(command)
    assert (python, dash, package) == ("python", "-m", "eval")
    parser = OneLineParser(prog=name)
    importlib.import_module(f"eval.commands.{name}").add_arguments(parser)
    args = parser.parse_args(words)
    assert args.run == RUN
    return args


def protocol(kind, seed, weights, **own):
    shared = {"checkpoint": "c", "data": "d", "image_shape": (1, 2, 2)}
    return kind(run="r", seed=seed, weights=weights, **({"split": "valid", "n": 30} | shared | own))


def of_variance(kind, seed, weights, **own):
    return protocol(kind, seed, weights, **({"measure": "m", "variance": "one", "variance_floor": 0.1} | own))


SEEDS_AND_WEIGHTS = list(itertools.product((0, 3), ("final", "stage1", "best")))


@pytest.mark.parametrize(("seed", "weights"), SEEDS_AND_WEIGHTS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_the_command_of_a_distance_measures_it_again(source, extractor, seed, weights):
    mixture = "4-diag" if source in DENSITIES and DENSITIES[source].of_mixture else ""
    number = {"extractor": {"name": extractor, **EXTRACTORS[extractor]}, "channels": "x", "n_reference": 30}
    own = protocol(DistanceProtocol, seed, weights, source=source, latents="z", mixture=mixture, **number)
    for also in ((), *((name,) for name in FURTHER)):
        result = DistanceResult(
            label="FD", values={}, also=also, below_protocol=False, remarks=(), protocol=own, extractor_weights="a b"
        )
        args = parsed(" ".join([command_of(result, RUN, also), *(["--also", *also] if also else [])]))
        draws = source != "reconstruction" or any(FURTHER[name].draws for name in also)
        expected = DistanceQuestion(
            source=source,
            n=None if source == "half" else 30,
            split="valid",
            seed=seed if draws else 0,
            extractor=extractor,
            extractor_size=0 if extractor in ("inception", "efficientnet-lite0") else EXTRACTORS[extractor]["size"],
            extractor_mode="legacy_pytorch" if extractor == "inception" else "clean",
            extractor_weights="a b",
            also=also,
        )
        asked = question_of(DistanceQuestion, args)
        assert replace(asked, mixture=32, covariance="full") == expected
        assert (asked.mixture, asked.covariance) == ((4, "diag") if mixture else (None, "full"))
        assert args.weights == weights


NOISES = [("independent", ""), *itertools.product(("correlated", "correlated-component"), ("algorithm1", "none"))]


@pytest.mark.parametrize(("seed", "weights"), SEEDS_AND_WEIGHTS)
@pytest.mark.parametrize(("noise", "floor"), NOISES)
def test_the_commands_of_what_depends_on_noise_measure_it_again(noise, floor, seed, weights):
    kinds = {"noise": noise, "floor": floor or "algorithm1"}
    of_component = {"mixture": 4, "covariance": "diag"} if noise == "correlated-component" else {}
    name = "4-diag" if of_component else ""
    shared = {"images": 30, "split": "valid", "seed": seed}
    found = []
    for calibration in ("", "valid"):
        own = of_variance(
            UncertaintyProtocol, seed, weights, noise=noise, floor=floor, calibration=calibration, noise_mixture=name
        )
        found.append((own, UncertaintyQuestion(calibrate=bool(calibration), **shared, **kinds, **of_component)))
    for mixture, annealing in itertools.product(
        ("", "4-diag"), (None, {"steps": 9, "chains": 1}, {"steps": 9, "chains": 2})
    ):
        if of_component and not mixture:
            continue
        own = of_variance(
            LikelihoodProtocol,
            seed,
            weights,
            noise=noise,
            floor=floor,
            importance_samples=7,
            mixture=mixture,
            mixture_digest="m",
            annealing=annealing,
        )
        chosen = {"mixture": 4, "covariance": "diag"} if mixture else {"mixture": 0}
        annealed = {"annealing": annealing["steps"], "chains": annealing["chains"]} if annealing else {}
        found.append((own, LikelihoodQuestion(samples=7, **shared, **kinds, **chosen, **annealed)))
    if noise != "independent":
        own = of_variance(
            CompletionProtocol,
            seed,
            weights,
            noise=noise,
            floor=floor,
            hide="square",
            mixture="4-diag",
            mixture_digest="",
        )
        found.append((own, CompletionQuestion(hide="square", mixture=4, covariance="diag", **shared, **kinds)))
        own = of_variance(
            ResidualsProtocol,
            seed,
            weights,
            noise=noise,
            floor=floor,
            held_out="valid",
            mixture=name,
            mixture_digest="",
        )
        found.append((own, ResidualsQuestion(seed=seed, **kinds, **of_component)))
    for measured, question in found:
        args = parsed(measured.command(RUN))
        assert question_of(type(question), args) == question
        assert args.weights == weights


@pytest.mark.parametrize(("seed", "weights"), SEEDS_AND_WEIGHTS)
@pytest.mark.parametrize("source", ["q_hat", "transported"])
def test_the_command_of_memorisation_measures_it_again(source, seed, weights):
    measure = "nearest, transported" if source == "transported" else "nearest"
    own = of_variance(
        MemorisationProtocol, seed, weights, measure=measure, mixture="4-diag", mixture_digest="m", train_split="train"
    )
    args = parsed(own.command(RUN))
    shared = {"images": 30, "split": "valid", "seed": seed}
    assert question_of(MemorisationQuestion, args) == MemorisationQuestion(
        source=source, mixture=4, covariance="diag", **shared
    )
    assert args.weights == weights


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("likelihood.json", {}),
        ("uncertainty-stage1.json", {}),
        ("memorisation.json", {}),
        ("fid-q_hat-32-full-10000-test-efficientnet-lite0-64.json", {"source": "q_hat", "mixture": 32}),
        ("fid-prior-10000-test-efficientnet-lite0-64.json", {"source": "prior"}),
        ("fid-reconstruction-100-test-x.json", {"source": "reconstruction"}),
        ("fid.json", {"source": "q_hat"}),
    ],
)
def test_the_command_for_a_file_that_does_not_say_what_was_measured_is_taken(file, options):
    args = parsed(_by_name(Path("eval") / file, Path(RUN)))
    assert {name: getattr(args, name) for name in options} == options


def test_the_readme_lists_every_command():
    rows = [f"| `{name}` | {made} |".replace(" || ", r" \|\| ") for name, made in COMMANDS.items()]
    assert [row for row in rows if row not in (ROOT / "eval/README.md").read_text()] == []
