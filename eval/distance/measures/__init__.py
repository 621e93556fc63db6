"""The measures of the distance between two sets of images, one file each: a new one is a file here and nothing else.

A file counts where it declares `MEASURE`. The command's `--also`, the results, the report, sweeps and the tables of the
paper read the tables below.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

from eval.distance.measures.measure import Measure, Number
from eval.results import DistanceResult


def _declared() -> Iterator[Measure]:
    """The measure of each file of this package that declares one, by the names of the files."""
    for module in sorted(iter_modules(__path__), key=lambda found: found.name):
        declared = getattr(import_module(f"{__name__}.{module.name}"), "MEASURE", None)
        if declared is not None:
            yield declared


def table_of(measures: Iterable[Measure]) -> dict[str, Measure]:
    """Measures by their names. Raises ValueError where two share a name, or the name of a number."""
    found: dict[str, Measure] = {}
    numbers: dict[str, str] = {}
    for measure in measures:
        if measure.name in found:
            raise ValueError(f"two files of {__name__} declare a measure {measure.name!r}; rename one of them")
        for number in measure.numbers:
            if number.name in numbers:
                both = f"{numbers[number.name]!r} and {measure.name!r}"
                raise ValueError(f"the measures {both} both give a number {number.name!r}; rename one of them")
            numbers[number.name] = measure.name
        found[measure.name] = measure
    return found


FURTHER: dict[str, Measure] = table_of(_declared())
"""What else can be measured of the same features, by name, in the order of the report's columns."""

FRECHET = FURTHER.pop("frechet")
"""What every distance is answered with."""


def numbers_of(measures: Mapping[str, Measure] = FURTHER) -> list[Number]:
    """The numbers that measures give, in the order of a table's columns."""
    return [number for measure in measures.values() for number in measure.numbers]


def command_of(result: DistanceResult, run: str, also: Iterable[str]) -> str:
    """The command that measures a distance of what the run folder `run` holds now, to which `--also ALSO` is added."""
    return result.command(run, draws=any(FURTHER[name].draws for name in also if name in FURTHER))


def of_these_versions(result: DistanceResult) -> DistanceResult | None:
    """A result without the numbers of further measures whose definition has changed; None where Frechet's has."""
    known = {FRECHET.name: FRECHET, **FURTHER}
    changed = {name for name, measure in known.items() if result.versions.get(name, 1) != measure.version}
    if FRECHET.name in changed:
        return None
    old = {number.name for name in changed for number in known[name].numbers}
    return replace(
        result,
        values={name: value for name, value in result.values.items() if name not in old},
        also=tuple(name for name in result.also if name not in changed),
    )
