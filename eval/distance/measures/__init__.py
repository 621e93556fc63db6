"""The measures of the distance between two sets of images, one file each; a new one is a file here and a line below."""

from eval.distance.measures import frechet, infinite, kernel, neighbours
from eval.distance.measures.measure import Measure

FRECHET = frechet.MEASURE
"""What every distance is answered with."""

FURTHER: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        infinite.MEASURE,
        kernel.MEASURE,
        neighbours.MEASURE,
    )
}
"""What else can be measured of the same features, by name, in the order of the report's columns."""
