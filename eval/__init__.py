"""Measurement of trained runs.

    from eval import open_run
    run = open_run("runs/demo")
    z, x = run.sample(64)

The rooms, from the top; each imports only what stands below it:

    __main__, commands  one file a command: parse, call, print
    trained_run         what `open_run` returns, for notebooks and programs
    paper               the tables and figures of the paper, ours beside theirs
    report              one page with everything known of a run
    distance, likelihood, uncertainty, memorisation
                        one kind of measurement each: a question becomes a result with its protocol
    densities           what latents are drawn from, by name
    transport           maps of mean images to the distribution of real images
    images              generated, reconstructed and real images, block by block
    run                 a set of weights with its shards, as measurements see it
    questions, results, protocol, printed_results
                        what is asked, what comes back, what it depends on, what the paper prints
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.results import DistanceResult, LikelihoodResult, Measured, MemorisationResult, UncertaintyResult
    from eval.trained_run import TrainedRun, open_run

__all__ = [
    "DistanceResult",
    "LikelihoodResult",
    "Measured",
    "MemorisationResult",
    "TrainedRun",
    "UncertaintyResult",
    "open_run",
]


def __getattr__(name: str) -> Any:  # imported when first used: torch takes seconds
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "eval.trained_run" if name in ("TrainedRun", "open_run") else "eval.results"
    return getattr(import_module(module), name)
