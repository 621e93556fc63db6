"""The measures of the distance between two sets of images, one file each; a new one is a file here and a line below."""

from dataclasses import replace
from importlib import import_module

from eval.distance.measures import frechet
from eval.distance.measures.measure import Measure
from eval.results import DistanceResult

FRECHET = frechet.MEASURE
"""What every distance is answered with."""

FURTHER: dict[str, Measure] = {
    name: import_module(f"eval.distance.measures.{name}").MEASURE
    for name in (
        "infinite",
        "kernel",
        "neighbours",
    )
}
"""What else can be measured of the same features, by name, in the order of the report's columns."""


def of_these_versions(result: DistanceResult) -> DistanceResult | None:
    """A result without the numbers of further measures whose definition has changed; None where Frechet's has."""
    by_name = {"frechet": FRECHET, **FURTHER}
    changed = {name for name, measure in by_name.items() if result.versions.get(name, 1) != measure.version}
    if "frechet" in changed:
        return None
    old = {number.name for name in changed for number in by_name[name].numbers}
    return replace(
        result,
        values={name: value for name, value in result.values.items() if name not in old},
        also=tuple(name for name in result.also if name not in changed),
    )
