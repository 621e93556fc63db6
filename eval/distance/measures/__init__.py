"""The measures of the distance between two sets of images, one file each; a new one is a file here and a line below."""

from importlib import import_module

from eval.distance.measures import frechet
from eval.distance.measures.measure import Measure

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
