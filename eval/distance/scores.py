"""The numbers that answer how far a set of images is from another, from their feature statistics."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from data_shards.io.errors import InputError
from eval.distance.comparison import Comparison
from eval.distance.image_sets import SOURCES
from eval.distance.measures.frechet import frechet_distance
from eval.distance.measures.infinite import frechet_at_infinity
from eval.distance.measures.kernel import kernel_distance
from eval.distance.measures.neighbours import neighbours
from eval.distance.protocol import sufficient
from eval.distance.statistics import FeatureStatistics

Values = dict[str, dict[str, Any]]
_DISTANCE = "squared feature units"


def _kernel(compared: Tensor, reference: FeatureStatistics, features: Tensor, seed: int) -> Values:
    estimate = kernel_distance(compared, features, seed=seed)
    return {"kernel_distance": {**estimate._asdict(), "unit": "squared MMD"}}


def _neighbours(compared: Tensor, reference: FeatureStatistics, features: Tensor, seed: int) -> Values:
    shares = asdict(neighbours(compared, features))
    return {name: {"value": value, "standard_error": None, "unit": "of 1"} for name, value in shares.items()}


def _infinite(compared: Tensor, reference: FeatureStatistics, features: Tensor, seed: int) -> Values:
    line = frechet_at_infinity(compared, reference, seed=seed)
    interval = [line.low, line.high]
    return {
        "frechet_distance_at_infinite_n": {
            "value": line.value,
            "standard_error": None,
            "interval_95": interval,
            "unit": _DISTANCE,
        }
    }


ALSO: dict[str, Callable[[Tensor, FeatureStatistics, Tensor, int], Values]] = {
    "kernel": _kernel,
    "neighbours": _neighbours,
    "infinite": _infinite,
}
"""Further measures by name. Each takes features of the compared set, the reference, its features, and a seed."""


def scores(
    compared: FeatureStatistics, reference: FeatureStatistics, question: Comparison, also: Sequence[str]
) -> dict[str, Any]:
    """The result as it is stored: label, values, remarks, protocol. also: names in ALSO.

    Raises InputError where a measure needs feature vectors that were not kept.
    """
    distance = frechet_distance(compared.mean(), compared.covariance(), reference.mean(), reference.covariance())
    values: Values = {"frechet_distance": {"value": distance, "standard_error": None, "unit": _DISTANCE}}
    for name in also:
        if compared.features is None or reference.features is None:
            raise InputError(
                f"--also: {name} needs feature vectors, but the parts hold sums only; give --also to each part"
            )
        values |= ALSO[name](compared.features, reference, reference.features, question.protocol.seed)
    smaller = min(compared.n, reference.n)
    return {
        "label": question.extractor.label,
        "values": values,
        "also": sorted(also),
        "below_protocol": smaller < sufficient(question.protocol.split),
        "remarks": _remarks(question, smaller),
        "protocol": question.protocol.record(),
    }


def _remarks(question: Comparison, smaller: int) -> list[str]:
    """What a reader must know to read the numbers right. smaller: number of images on the smaller side."""
    protocol = question.protocol
    remarks = [SOURCES[protocol.source]]
    if question.run.manifest.image_shape[0] == 1:
        remarks.append(f"images are {protocol.channels}")
    if smaller < (least := sufficient(protocol.split)):
        remarks.append(
            f"BELOW PROTOCOL: {smaller:,} images on the smaller side, fewer than {least:,}; "
            "the distance is too large by an unknown amount and compares only with others of the same n"
        )
    return remarks
