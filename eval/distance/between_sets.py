"""The distance between any two sets of images, or saved statistics of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from data_shards.io.disk import cache_folder
from data_shards.io.errors import InputError
from eval.distance.extractors.extractor import Extractor
from eval.distance.features import extract, features_of
from eval.distance.measures import FRECHET, FURTHER
from eval.distance.parts import PartFiles
from eval.distance.saved_statistics import is_statistics, load_statistics
from eval.distance.statistics import FeatureStatistics
from eval.image_sets.by_name import open_set
from eval.image_sets.image_set import ImageSet
from eval.image_sets.remarks import decisions_of, remarks_of, remarks_on
from eval.image_sets.run_samples import Sampling
from eval.measured_once import held_result
from eval.protocol import fingerprint
from eval.questions import sufficient
from eval.results import Measured, Result
from trainer.full_precision import allowed_precision
from trainer.process_group import Ranks


@dataclass(frozen=True, kw_only=True)
class SetsProtocol:
    """Everything that a distance between two sets depends on."""

    compared: Mapping[str, Any]
    """The first set: digests of its content, and how many of its images."""
    reference: Mapping[str, Any]
    """The second."""
    n: int
    """Images of the first."""
    extractor: Mapping[str, Any]
    """How images become features."""
    precision: str = "highest"
    """Of matrix products in float32."""
    seed: int
    """Of the choice of images, and of measures that draw."""

    def record(self) -> dict[str, Any]:
        """The fields as JSON stores them."""
        content: dict[str, Any] = json.loads(json.dumps(self.__dict__))
        return content

    def address(self) -> str:
        """16 hexadecimal digits that differ where anything differs that the number depends on."""
        return fingerprint(self.record())


@dataclass(frozen=True, kw_only=True)
class SetsResult(Result):
    """How far a set of images is from another."""

    label: str
    """What the Frechet distance of this extractor is called in print."""
    values: Mapping[str, Measured]
    """"frechet_distance", and what the further measures gave, by name."""
    sets: tuple[str, str]
    """What the user called them."""
    n_reference: int
    """Images of the second set; 0 where its statistics do not say."""
    remarks: tuple[str, ...]
    """What was decided about the images, and what a reader must know to read the numbers right."""
    protocol: SetsProtocol
    """What the numbers depend on."""
    versions: Mapping[str, int]
    """Version of the definition of each measure that gave the values."""
    n_compared: int = 0
    """Images of the first set that could be read; 0 where an earlier version did not count them."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two sets."""

    name: str
    """What the user called it."""
    n: int
    """Images; 0 where saved statistics do not say."""
    identity: Mapping[str, Any]
    """What it is, for the protocol."""
    images: ImageSet | None
    """Its images; None for saved statistics."""
    statistics: FeatureStatistics | None
    """Saved statistics."""


def open_side(word: str, extractor: Extractor, ranks: Ranks, *, n: int | None, sampling: Sampling) -> Side:
    """A set by its name, see `eval.image_sets.by_name.KINDS`, or a file of statistics of this extractor.

    Raises InputError where there is no such set, or its statistics are of another extractor.
    """
    if ranks.agree(lambda: is_statistics(word)):
        saved = ranks.agree(lambda: load_statistics(Path(word), extractor))
        if n is not None:
            raise InputError(f"{word} holds statistics of all its images; leave it out", parameter="n")
        digest = xxhash.xxh3_128_hexdigest(saved.mean().numpy().tobytes() + saved.covariance().numpy().tobytes())
        return Side(
            name=word, n=saved.n, identity={"kind": "statistics", "content": digest}, images=None, statistics=saved
        )
    found = open_set(word, ranks, n=n, sampling=sampling)
    if found.n < 2:
        raise InputError(f"{word} has one image; a distance between distributions needs at least 2")
    return Side(name=word, n=found.n, identity=found.identity, images=found, statistics=None)


@dataclass(frozen=True, kw_only=True)
class SetComparison:
    """Two sets and how they are compared."""

    compared: Side
    """The first set."""
    reference: Side
    """The second, whose features are kept in the shared cache."""
    extractor: Extractor
    """How images become features."""
    also: tuple[str, ...]
    """Further measures."""
    seed: int
    """See `SetsProtocol`."""
    out: Path | None
    """Folder of results and parts; None keeps neither."""
    skip_bad: int = 0
    """Unreadable images of a set that are left out before the set is refused."""
    steal: bool = False
    """Whether the answer is taken from another job that measures the same."""

    def __post_init__(self) -> None:
        for name in self.also:
            saved = next((side for side in (self.compared, self.reference) if side.images is None), None)
            if FURTHER[name].needs_features and saved is not None:
                raise InputError(
                    f"{name} needs images on both sides, not the statistics {saved.name}", parameter="also"
                )

    @property
    def protocol(self) -> SetsProtocol:
        """What the answer depends on."""
        return SetsProtocol(
            compared=self.compared.identity,
            reference=self.reference.identity,
            n=self.compared.n,
            extractor=self.extractor.description,
            precision=allowed_precision(self.extractor.device)[0],
            seed=self.seed,
        )

    @property
    def path(self) -> Path | None:
        """OUT/fid-ADDRESS.json, where the answer is stored."""
        return None if self.out is None else self.out / f"fid-{self.protocol.address()}.json"

    def stored(self) -> SetsResult | None:
        """What was measured before, by measures as they are now, with all that is asked for."""
        if self.path is None or not self.path.exists():
            return None
        found = SetsResult.load(self.path)
        wanted = {measure.name: measure.version for measure in self._measures}
        read = ((found.n_compared, self.compared), (found.n_reference, self.reference))
        allowed = all(not n or side.n - n <= self.skip_bad for n, side in read)
        return found if allowed and wanted.items() <= dict(found.versions).items() else None

    def earlier(self, ranks: Ranks) -> SetsResult | None:
        """`stored`, the same on every process: the first one alone decides."""
        found = self.stored()
        if self.path is None or not ranks.any(ranks.is_main and found is not None):
            return None
        return found or SetsResult.load(self.path)

    @property
    def _measures(self) -> list[Any]:
        return [FRECHET, *(FURTHER[name] for name in self.also)]

    @property
    def keep_features(self) -> bool:
        """Whether the answer needs feature vectors and not only their sums."""
        return any(measure.needs_features for measure in self._measures)

    @property
    def part_files(self) -> PartFiles:
        """The parts of the first set, in the folder of results. Raises InputError without one, or without images."""
        if self.out is None:
            raise InputError("parts need a folder that all jobs share; give it", parameter="out")
        if self.compared.images is None:
            raise InputError(
                f"{self.compared.name} holds statistics, which are read and not made in parts; leave out --part, "
                "--merge and --missing"
            )
        return PartFiles(beside=self.out, protocol=self.protocol, keep_features=self.keep_features)

    def make_part(self, part: int, parts: int, ranks: Ranks) -> Path:
        """Writes the statistics of a part of the first set, unless they are there."""
        files = self.part_files
        path = files.path(part, parts)

        def before() -> Path | None:
            return path if ranks.any(ranks.is_main and files.is_finished(path)) else None

        with held_result(path, ranks, before, question=self.protocol.record(), steal=self.steal) as place:
            if place.found is not None:
                return path
            made, remarks = statistics_of(
                self.compared,
                self.extractor,
                ranks,
                keep_features=self.keep_features,
                skip_bad=self.skip_bad,
                protocol=self.protocol.record(),
                part=part,
                parts=parts,
            )
            if ranks.is_main:
                print("\n".join(remarks), end="\n" if remarks else "", flush=True)
            assert self.compared.images is not None  # `part_files` would have refused
            made.decisions = decisions_of(self.compared.images, ranks)
            place.save(made)
        return path

    def measure(self, ranks: Ranks, *, merged: int | None = None) -> SetsResult:
        """The answer, the same on every process, stored where there is a folder for it. merged: number of parts."""
        if self.path is None:
            return self._measured(ranks, merged)
        before = lambda: self.earlier(ranks)  # noqa: E731
        with held_result(self.path, ranks, before, question=self.protocol.record(), steal=self.steal) as place:
            if place.found is not None:
                return place.found
            result = self._with_earlier(self._measured(ranks, merged))
            place.save(result)
        return result

    def _with_earlier(self, result: SetsResult) -> SetsResult:
        """`result` with the further measures of as many images that the same question was answered with before."""
        if self.path is None or not self.path.exists():
            return result
        earlier = SetsResult.load(self.path)
        if (earlier.n_compared, earlier.n_reference) != (result.n_compared, result.n_reference):
            return result
        kept = [
            measure
            for measure in FURTHER.values()
            if measure.name not in result.versions and earlier.versions.get(measure.name) == measure.version
        ]
        numbers = {number.name for measure in kept for number in measure.numbers}
        values = {name: value for name, value in earlier.values.items() if name in numbers}
        versions = {measure.name: measure.version for measure in kept}
        return replace(result, values={**result.values, **values}, versions={**result.versions, **versions})

    def _measured(self, ranks: Ranks, merged: int | None) -> SetsResult:
        keep, remarks = self.keep_features, []
        if merged is None:
            compared, said = statistics_of(
                self.compared, self.extractor, ranks, keep_features=keep, skip_bad=self.skip_bad
            )
            remarks += said
        else:
            compared = self.part_files.merged(merged, unreadable=self.skip_bad)
            assert self.compared.images is not None  # `part_files` would have refused
            remarks += remarks_on(self.compared.images, compared.decisions, skip_bad=self.skip_bad)
        reference, said = self._reference(ranks)
        return self._result(compared, reference, [*remarks, *said])

    def _reference(self, ranks: Ranks) -> tuple[FeatureStatistics, list[str]]:
        side, keep = self.reference, self.keep_features
        asked = {"images": side.identity, **features_of(self.extractor), "skip_bad": self.skip_bad}
        path = cache_folder("references") / f"{fingerprint(asked)}{'-features' if keep else ''}.safetensors"
        # All take the same way, even if the file appears meanwhile or lies in the cache of one machine only.
        if side.images is not None and not ranks.any(not path.exists()):
            found = FeatureStatistics.load(path)
            return found, list(found.protocol["remarks"])
        made, remarks = statistics_of(side, self.extractor, ranks, keep_features=keep, skip_bad=self.skip_bad)
        if side.images is not None and ranks.is_main:
            made.protocol = asked | {"remarks": remarks}
            made.save(path)
        return made, remarks

    def _result(self, compared: FeatureStatistics, reference: FeatureStatistics, remarks: Sequence[str]) -> SetsResult:
        values: dict[str, Measured] = {}
        for measure in self._measures:
            try:
                values |= measure(compared, reference, self.seed)
            except InputError as error:
                # Of the measure, not of an option --n, which the user need not have given.
                raise InputError(f"{measure.name}: {error.named(None)}") from error
        least = sufficient(of_training=False)
        few = min((n for n in (compared.n, reference.n) if n), default=0)
        remarks = list(remarks)
        if 0 < few < least:
            remarks.append(
                f"{few:,} images on the smaller side, fewer than {least:,}: the distance is too large by an unknown "
                "amount and compares only with others of the same numbers"
            )
        if self.compared.images is not None and self.compared.identity == self.reference.identity:
            remarks.append("both sets hold the same images")
        if not (compared.n and reference.n):
            remarks.append("the statistics do not say of how many images they are")
        return SetsResult(
            label=self.extractor.label,
            values=values,
            sets=(self.compared.name, self.reference.name),
            n_compared=compared.n,
            n_reference=reference.n,
            remarks=tuple(dict.fromkeys(remarks)),
            protocol=self.protocol,
            versions={measure.name: measure.version for measure in self._measures},
        )


def statistics_of(
    side: Side,
    extractor: Extractor,
    ranks: Ranks,
    *,
    keep_features: bool = False,
    skip_bad: int = 0,
    protocol: Mapping[str, Any] | None = None,
    part: int = 0,
    parts: int = 1,
) -> tuple[FeatureStatistics, list[str]]:
    """The statistics of a part of a set, and what was decided about its images; the same on every process.

    Raises InputError where more than `skip_bad` images cannot be read, naming some of them.
    """
    if side.images is None:
        assert side.statistics is not None
        return side.statistics, []
    images = side.images
    made = extract(
        images.images,
        extractor,
        ranks,
        n=images.n,
        title=f"features of {images.name}",
        protocol=protocol or {"images": dict(images.identity), "extractor": dict(extractor.description)},
        keep_features=keep_features,
        part=part,
        parts=parts,
    )
    return made, remarks_of(images, ranks, skip_bad=skip_bad)
