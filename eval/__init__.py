"""Measurement of trained runs.

    from eval import open_run
    run = open_run("runs/demo")
    z, x = run.sample(64)

The rooms, from the top; each imports only what stands below it:

    __main__, commands  one file a command: parse, call, print
    trained_run         what `open_run` returns, for notebooks and programs
    paper               the tables and figures of the paper, ours beside theirs
    export              samples, walks, reconstructions and scores in files of their own
    report              one page with everything known of a run
    distance, measurements
                        one kind of measurement a file: a question becomes a result with its protocol
    residuals           how the errors of reconstructions vary together, for noise with correlated pixels
    image_sets          any images: of a folder, zip, array, tar, shard set or run
    images              generated, transported, reconstructed and real images, block by block; `densities` is the table
                        of what latents are drawn from
    run                 a set of weights with its shards, as measurements see it
    questions, results, calibration, protocol
                        what is asked, what comes back, what it depends on
"""

from typing import TYPE_CHECKING

from data_shards.io.lazy_names import lazy_names

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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DistanceResult": "eval.results",
        "LikelihoodResult": "eval.results",
        "Measured": "eval.results",
        "MemorisationResult": "eval.results",
        "TrainedRun": "eval.trained_run",
        "UncertaintyResult": "eval.results",
        "open_run": "eval.trained_run",
    },
)
