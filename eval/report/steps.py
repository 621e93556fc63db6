"""What a report shows, in the order in which it is made: codes, mixture, transport, numbers.

Every step knows whether what it makes is there and how long it takes. Sizes are those of the demo where the data has as
many images, and smaller where it has not.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from data_shards.io.errors import InputError
from data_shards.io.progress import duration
from eval.distance.comparison import measure_distance
from eval.images.densities import SOURCES
from eval.images.encoding import encode_split, is_encoded
from eval.images.stored_transport import fitted_before, make_transport
from eval.images.transport import MOST_DIRECTIONS
from eval.measurements.likelihood import measure_likelihood
from eval.measurements.memorisation import measure_memorisation, memorisation_path, stored_pictures
from eval.measurements.uncertainty import measure_uncertainty
from eval.questions import DistanceQuestion, LikelihoodQuestion, MemorisationQuestion, UncertaintyQuestion
from eval.report.known import Subject, is_plain
from eval.report.pace import Pace
from eval.report.sizes import Sizes
from eval.run import MeasuredRun, load_run
from trainer.dry_run import SUSTAINED
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import CovarianceType, Settings
from trainer.process_group import Ranks

# Iterations of a mixture's fit, k-means and the choice of its prior strength included.
_MIXTURE_ITERATIONS = 100
# Of what the processor does in large products, the part that small ones reach.
_SMALL_PRODUCTS = 0.1
# One representation alone can misrank. Of the always available extractors the other one; it takes so much longer.
_SECOND_EXTRACTOR, _SECOND_COST = "efficientnet-lite2", 2.5
# What starting a stream, reading a split and writing a result take.
_OVERHEAD_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that a report shows."""

    title: str
    is_done: Callable[[], bool]
    """Whether it is there, and of what the run is now."""
    make: Callable[[], object]
    """Makes it; every process calls it."""
    seconds: Callable[[Pace], float]
    """How long that takes the whole job."""


def make_missing(steps: Sequence[Step], pace: Callable[[], Pace], ranks: Ranks) -> None:
    """Makes what is not there, in order, and says so before each with the time that it takes. Every process calls it.

    Raises InputError where a step cannot be made; what was made before it stays.
    """
    missing = [step for step in steps if _is_missing(step, ranks)]
    say = print if ranks.is_main else _say_nothing
    if not missing:
        say(f"all {len(steps)} parts of the report were made before", flush=True)
        return
    speed = pace()
    total = duration(sum(step.seconds(speed) for step in missing))
    there = f"; {len(steps) - len(missing)} were made before" if len(missing) < len(steps) else ""
    say(f"{len(missing)} of the report's {len(steps)} parts are to be made, in about {total}{there}", flush=True)
    for number, step in enumerate(steps, start=1):
        # Asked again: a part made now, such as new codes, may make a later one out of date.
        if not _is_missing(step, ranks):
            continue
        say(f"[{number}/{len(steps)}] {step.title}: about {duration(step.seconds(speed))}", flush=True)
        began = time.monotonic()
        step.make()
        say(f"[{number}/{len(steps)}] took {duration(time.monotonic() - began)}", flush=True)


def _say_nothing(*words: object, flush: bool) -> None:
    """For all processes but the first."""


def _is_missing(step: Step, ranks: Ranks) -> bool:
    """As the first process sees it, so that all take the same way."""
    return ranks.any(ranks.is_main and not step.is_done())


def report_steps(
    final: MeasuredRun, sizes: Sizes, covariance: CovarianceType, ranks: Ranks, *, steal: bool = False
) -> list[Step]:
    """The steps of a run's report: of the end of stage 1, where it has one of its own, and of its final weights.

    steal: takes over what another job makes.
    """
    measured = [*end_of_stage1(final, ranks), final]
    subject = Subject(final)
    per_weights = [_Parts(run, subject, sizes, covariance, ranks, steal=steal) for run in measured]
    densities = (step for parts in per_weights for step in parts.densities())
    numbers = (step for parts in per_weights for step in parts.numbers())
    return [*densities, *numbers, *per_weights[-1].numbers_once()]


def end_of_stage1(final: MeasuredRun, ranks: Ranks) -> list[MeasuredRun]:
    """The weights at the end of stage 1 where stage 2 has begun and they are kept, else nothing."""
    if not (final.config.two_stages and final.model.per_pixel):
        return []
    try:
        return [load_run(final.folder, "stage1", ranks.device)]
    except InputError:
        return []


class _Parts:
    """The steps of one set of weights."""

    def __init__(
        self,
        run: MeasuredRun,
        subject: Subject,
        sizes: Sizes,
        covariance: CovarianceType,
        ranks: Ranks,
        *,
        steal: bool,
    ) -> None:
        self.run, self.subject, self.sizes, self.covariance, self.ranks = run, subject, sizes, covariance, ranks
        self.steal = steal
        self.name = "final weights" if run.weights == "final" else "end of stage 1"
        data = run.config.data
        self.mixture = f"{sizes.components}-{covariance}"
        self.train, self.valid = data.train_split, data.valid_split

    def densities(self) -> Iterable[Step]:
        """Codes, the mixture fitted to them, and the transport of its samples."""
        run, components, covariance = self.run, self.sizes.components, self.covariance
        for split in dict.fromkeys((self.train, self.valid)):
            yield self.codes(split)
        dim, pixels, images = run.model.latent_dim, run.model.pixels, run.manifest.num_samples(self.train)
        settings = Settings(n_components=components, covariance_type=covariance)
        products = 4.0 * images * components * dim**2 * _MIXTURE_ITERATIONS
        yield self.step(
            f"a mixture of {components} components",
            lambda: run.has_mixture(components, covariance),
            lambda: fit_run_mixture(run.folder, settings, weights=run.weights, ranks=self.ranks, show_progress=True),
            lambda pace: products / (pace.processes * _SMALL_PRODUCTS * SUSTAINED["cpu"]),
        )
        directions = min(pixels, MOST_DIRECTIONS)
        sums = 4.0 * images * directions * (directions + (pixels if pixels > directions else 0))
        # A component of few images has no map of its own.
        maps = 60.0 * min(components, 1 + 2 * images // directions) * directions**3
        yield self.step(
            "the transport of samples to the distribution of real images",
            lambda: run.has_mixture(components, covariance) and fitted_before(run, components, covariance) is not None,
            lambda: make_transport(run, components, covariance, self.ranks, steal=self.steal),
            lambda pace: (
                images * (pace.encode + 2 * pace.decode)
                + sums / (pace.processes * 0.5 * SUSTAINED["cpu"])
                + maps / (0.5 * SUSTAINED["cpu"])
            ),
        )

    def codes(self, split: str) -> Step:
        """The step that encodes a split."""
        run, images = self.run, self.run.manifest.num_samples(split)
        return self.step(
            f"codes of split {split}",
            lambda: is_encoded(run, split),
            lambda: encode_split(run, split, self.ranks, steal=self.steal),
            lambda pace: images * pace.encode,
        )

    def numbers(self) -> Iterable[Step]:
        """Distances of generated images, likelihood and calibration."""
        run, sizes = self.run, self.sizes
        if sizes.distance:
            for source in ("q_hat", "transported", "prior"):
                yield self.distance(source, sizes.distance)
        if sizes.likelihood:
            question = LikelihoodQuestion(
                images=sizes.likelihood, mixture=sizes.components, covariance=self.covariance, split=sizes.split
            )
            yield self.step(
                f"the likelihood of {sizes.likelihood:,} images of split {sizes.split}",
                lambda: any(
                    is_plain(r)
                    and (r.protocol.weights, r.protocol.split, r.protocol.mixture)
                    == (run.weights, sizes.split, self.mixture)
                    for r in self.subject.results().likelihoods
                ),
                lambda: measure_likelihood(run, question, self.ranks, steal=self.steal),
                lambda pace: sizes.likelihood * (pace.encode + 1.5 * question.samples * pace.decode),
            )
        if sizes.uncertainty:
            of = UncertaintyQuestion(images=sizes.uncertainty, split=sizes.split)
            yield self.step(
                f"the calibration of the predicted variance on {sizes.uncertainty:,} images of split {sizes.split}",
                lambda: any(
                    is_plain(r) and (r.protocol.weights, r.protocol.split) == (run.weights, sizes.split)
                    for r in self.subject.results().uncertainties
                ),
                lambda: measure_uncertainty(run, of, self.ranks, steal=self.steal),
                lambda pace: sizes.uncertainty * (pace.encode + pace.decode),
            )

    def numbers_once(self) -> Iterable[Step]:
        """What is measured of the final weights only."""
        run, sizes = self.run, self.sizes
        if sizes.real:
            yield self.distance("train", sizes.real)
        if sizes.distance:
            for source in ("q_hat", "transported", "prior"):
                yield self.distance(source, sizes.distance, _SECOND_EXTRACTOR)
        if sizes.real:
            yield self.distance("train", sizes.real, _SECOND_EXTRACTOR)
        if sizes.memorisation:
            question = MemorisationQuestion(
                images=sizes.memorisation, mixture=sizes.components, covariance=self.covariance, split=sizes.split
            )
            products = 4.0 * sizes.memorisation * run.manifest.num_samples(self.train) * run.model.pixels
            yield self.step(
                f"the training images nearest to {sizes.memorisation:,} samples",
                lambda: any(
                    (r.protocol.source, r.protocol.split, r.protocol.mixture) == ("q_hat", sizes.split, self.mixture)
                    and stored_pictures(memorisation_path(run, r.protocol)) is not None
                    for r in self.subject.results().memorisations
                ),
                lambda: measure_memorisation(run, question, self.ranks, steal=self.steal),
                lambda pace: products / (pace.processes * 0.5 * SUSTAINED["cpu"]),
            )

    def distance(self, source: str, n: int, extractor: str = DistanceQuestion.extractor) -> Step:
        """The step of one distance."""
        run, sizes = self.run, self.sizes
        question = DistanceQuestion(
            source=source,
            n=n,
            split=sizes.split,
            mixture=sizes.components,
            covariance=self.covariance,
            extractor=extractor,
        )
        second = extractor == _SECOND_EXTRACTOR
        cost = _SECOND_COST if second else 1.0
        generated = 0 if source == "train" else 1
        mixture = self.mixture if source in ("q_hat", "transported") else ""
        found = run.manifest.num_samples(sizes.split)
        return self.step(
            f"the distance of {n:,} {SOURCES[source].title} to the {found:,} images of split {sizes.split}"
            + (f" by {extractor}" if second else ""),
            # Any extractor but the second stands for the first: who has Inception's weights measures by them.
            lambda: any(
                (p.source, p.weights, p.split, p.mixture) == (source, run.weights, sizes.split, mixture)
                and (p.extractor["name"] == _SECOND_EXTRACTOR) == second
                for p in (result.protocol for result in self.subject.results().distances)
            ),
            lambda: measure_distance(run, question, self.ranks, steal=self.steal),
            # The reference is made once; counted with every distance, the estimate is an upper one.
            lambda pace: n * (generated * pace.decode + cost * pace.extract) + found * cost * pace.extract,
        )

    def step(
        self,
        title: str,
        is_done: Callable[[], bool],
        make: Callable[[], object],
        seconds: Callable[[Pace], float],
    ) -> Step:
        """A step of these weights."""
        return Step(
            title=f"{title}, {self.name}",
            is_done=is_done,
            make=make,
            seconds=lambda pace: _OVERHEAD_SECONDS + seconds(pace),
        )
