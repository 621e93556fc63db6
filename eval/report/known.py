"""What has been measured of a run: numbers of what the run is now, and numbers of what it was before.

A result is current where the weights, the data and the fitted density that it was measured on are those of the run
folder now. A page shows current results only, and names the command that renews each of the others.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from data_shards.io.errors import InputError
from eval.distance.extractors.unloaded import compare_unloaded
from eval.distance.measures import command_of, of_these_versions
from eval.images.densities import DENSITIES, SOURCES
from eval.protocol import DistanceProtocol, MemorisationProtocol, Protocol
from eval.questions import NOISES
from eval.results import (
    CompletionResult,
    DistanceResult,
    LikelihoodResult,
    MemorisationResult,
    Result,
    UncertaintyResult,
    stored,
    without_protocol,
)
from eval.run import MeasuredRun, load_run

AnyMeasured = TypeVar(
    "AnyMeasured", CompletionResult, DistanceResult, LikelihoodResult, MemorisationResult, UncertaintyResult
)
_Measurement = CompletionResult | DistanceResult | LikelihoodResult | MemorisationResult | UncertaintyResult


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A result of what the run was before."""

    measurement: str
    """The command that measures the same of what the run is now, without further measures."""
    also: tuple[str, ...] = ()
    """Further measures."""
    reason: str
    """What has changed since."""

    @property
    def command(self) -> str:
        """The whole command."""
        return " ".join([self.measurement, "--also", *self.also] if self.also else [self.measurement])


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """Results by kind; within a kind the end of stage 1 comes first, then the final weights."""

    likelihoods: list[LikelihoodResult] = field(default_factory=list)
    uncertainties: list[UncertaintyResult] = field(default_factory=list)
    distances: list[DistanceResult] = field(default_factory=list)
    memorisations: list[MemorisationResult] = field(default_factory=list)
    completions: list[CompletionResult] = field(default_factory=list)
    earlier: list[Earlier] = field(default_factory=list)
    """Results that are not current."""

    def shown(self, split: str, mixture: str) -> "RunResults":
        """One result of each kind but distances for each set of weights, kind of noise and hidden part; all distances.

        Of several, the one that is of this split and mixture, COMPONENTS-COVARIANCE, and of most images.
        """

        def best(results: list[AnyMeasured]) -> list[AnyMeasured]:
            def fit(result: AnyMeasured) -> tuple[bool, bool, int]:
                protocol = result.protocol
                return getattr(protocol, "mixture", mixture) == mixture, protocol.split == split, protocol.n

            by_weights: dict[tuple[str, ...], AnyMeasured] = {}
            for result in sorted(results, key=fit):
                own: list[str] = [str(getattr(result.protocol, name, "")) for name in ("noise", "floor", "hide")]
                annealed = "annealed" if getattr(result.protocol, "annealing", None) else ""
                by_weights[result.protocol.weights, *own, annealed] = result
            return sorted(by_weights.values(), key=_place)

        return replace(
            self,
            likelihoods=best(self.likelihoods),
            uncertainties=best(self.uncertainties),
            completions=best(self.completions),
            memorisations=best([result for result in self.memorisations if result.protocol.source == "q_hat"]),
        )


def _place(result: _Measurement) -> tuple[bool, int, bool, bool]:
    """Where a result stands among others of its kind: the end of stage 1 first, the plainest noise first."""
    protocol = result.protocol
    noise = getattr(protocol, "noise", NOISES[0])
    floor, annealing = getattr(protocol, "floor", ""), getattr(protocol, "annealing", None)
    return protocol.weights != "stage1", NOISES.index(noise), floor == "none", bool(annealing)


def is_plain(result: AnyMeasured) -> bool:
    """Whether it is of independent pixels, and without annealing, where it is of one or the other."""
    protocol = result.protocol
    independent = getattr(protocol, "noise", "independent") == "independent"
    return independent and not getattr(protocol, "annealing", None)


def final(results: Sequence[AnyMeasured]) -> AnyMeasured | None:
    """The plain result for the final weights, see `is_plain`."""
    return next((one for one in results if one.protocol.weights == "final" and is_plain(one)), None)


class Subject:
    """The weights, data and densities that lie in a run folder now, and what has been measured of them."""

    def __init__(self, run: MeasuredRun) -> None:
        self._run = run
        self._weights = cache(self._load_weights)
        self._digest = cache(self._load_digest)

    def results(self) -> RunResults:
        """Every result there is. Raises InputError for a damaged file."""
        run = self._run.folder
        digest = partial(self._digest, self._fitted())
        earlier = [
            Earlier(measurement=_by_name(path, run), reason=f"{path.name} does not say what was measured")
            for path in without_protocol(run / "eval")
        ]

        def command(result: _Measurement, also: Iterable[str] | None = None) -> str:
            if isinstance(result, DistanceResult):
                return command_of(result, str(run), result.also if also is None else also)
            return result.protocol.command(str(run))

        def current(kind: type[AnyMeasured], pattern: str) -> list[AnyMeasured]:
            found = stored(kind, run / "eval", pattern)
            kept = []
            for result in sorted(found, key=lambda one: one.protocol.weights != "stage1"):
                if reason := self._changed(result, digest):
                    earlier.append(Earlier(measurement=command(result), also=_also(result), reason=reason))
                else:
                    kept.append(result)
            return kept

        # A command names an extractor: of two extractors that had one name, the newest counts.
        newest = {command(result): result for result in current(DistanceResult, "fid-*.json")}
        distances = []
        for result in newest.values():
            if (shown := of_these_versions(result)) is None:
                continue
            distances.append(shown)
            if changed := tuple(name for name in result.also if name not in shown.also):
                reason = f"the definition of {' and '.join(changed)} has changed since"
                earlier.append(Earlier(measurement=command(result, changed), also=changed, reason=reason))
        results = RunResults(
            likelihoods=current(LikelihoodResult, "likelihood*.json"),
            uncertainties=current(UncertaintyResult, "uncertainty*.json"),
            distances=distances,
            memorisations=current(MemorisationResult, "*memorisation*.json"),
            completions=current(CompletionResult, "complete*.json"),
        )
        measured: list[_Measurement] = [
            *results.likelihoods,
            *results.uncertainties,
            *results.distances,
            *results.memorisations,
            *results.completions,
        ]
        answered = {command(result): {*_also(result)} for result in measured}
        return replace(
            results,
            earlier=[
                one for one in earlier if not (one.measurement in answered and answered[one.measurement] >= {*one.also})
            ],
        )

    def _changed(self, result: AnyMeasured, digest: Callable[[str, str, str], str]) -> str:
        """What has changed since a result was measured; empty where nothing has."""
        protocol = result.protocol
        run = self._weights(protocol.weights)
        if run is None or run.checkpoint != protocol.checkpoint:
            return "the weights have changed since"
        if run.manifest.hash != protocol.data:
            return "the shards have changed since"
        if isinstance(result, DistanceResult):
            current = of_these_versions(result) is not None
            own = compare_unloaded(protocol.extractor, result.extractor_file)
            if own is not None and own.changed:
                return f"the extractor {protocol.extractor['name']} has changed since"
        else:
            current = result.is_of_this_version
        if not current:
            return "the definition of the measure has changed since"
        prefix = "noise_" if isinstance(result, UncertaintyResult) else ""
        measured = getattr(protocol, f"{prefix}mixture_digest", "")
        mixture = getattr(protocol, f"{prefix}mixture", "")
        if measured and digest(protocol.weights, _density(protocol), mixture) != measured:
            return "what samples are drawn from has changed since"
        return ""

    def _load_weights(self, weights: str) -> MeasuredRun | None:
        if weights == self._run.weights:
            return self._run
        try:
            return load_run(self._run.folder, weights)
        except InputError:  # no such checkpoint is kept
            return None

    def _fitted(self) -> tuple[tuple[str, int], ...]:
        """Names and times of the records of all fitted densities: while these stay, so do the digests."""
        folders = ("mixtures", "transports", "flows")
        records = (path for folder in folders for path in sorted((self._run.folder / folder).glob("*/*.json")))
        return tuple((str(path), path.stat().st_mtime_ns) for path in records)

    def _load_digest(self, fitted: tuple[tuple[str, int], ...], weights: str, density: str, mixture: str) -> str:
        """The digest of a density as it is now. fitted: see `_fitted`."""
        run = self._weights(weights)
        if run is None or density not in DENSITIES:
            return ""
        components, _, covariance = (mixture or "1-full").partition("-")
        try:
            return DENSITIES[density].load(run, int(components), covariance).digest
        except InputError:  # it is not fitted, or was fitted to other weights
            return ""


def _by_name(path: Path, run: Path) -> str:
    """The command that measures what the file of a result is named after; of a distance, NAME-SOURCE-..."""
    name, _, rest = path.stem.partition("-")
    words = f"python -m eval {name} --run {shlex.quote(str(run))}"
    if name != "fid":
        return words
    source = next((source for source in SOURCES if rest.startswith(source)), "q_hat")
    mixture = re.match(rf"{source}-(\d+)-", rest) if source in DENSITIES and DENSITIES[source].of_mixture else None
    return f"{words} --from {source}" + (f" --mixture {mixture[1]}" if mixture else "")


def _also(result: Result) -> tuple[str, ...]:
    """The further measures of a distance."""
    return result.also if isinstance(result, DistanceResult) else ()


def _density(protocol: Protocol) -> str:
    """The name of the density whose digest a protocol records."""
    return protocol.source if isinstance(protocol, DistanceProtocol | MemorisationProtocol) else "q_hat"
