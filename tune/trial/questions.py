"""What is measured of a trial at its end, and which of the results in its run folder answer that."""

from collections.abc import Sequence

from eval.protocol import DistanceProtocol, LikelihoodProtocol
from eval.questions import DistanceQuestion, LikelihoodQuestion
from eval.results import DistanceResult, LikelihoodResult
from tune.sweep_config import MeasureConfig


def sample_distance(measure: MeasureConfig, weights: str) -> DistanceQuestion | None:
    """The distance of samples of some weights; None where there is none. Further measures are of the final ones."""
    if not measure.images:
        return None
    return DistanceQuestion(
        source="q_hat" if measure.mixture else "prior",
        n=measure.images,
        split=measure.split,
        mixture=measure.mixture or DistanceQuestion.mixture,
        also=measure.also if weights == "final" else (),
    )


def reconstruction_distance(measure: MeasureConfig) -> DistanceQuestion | None:
    """The distance of reconstructions by the final weights; None where there is none."""
    if not measure.images:
        return None
    return DistanceQuestion(source="reconstruction", n=measure.images, split=measure.split)


def likelihood(measure: MeasureConfig) -> LikelihoodQuestion | None:
    """The likelihood of some weights; None where there is none."""
    if not measure.likelihood_images:
        return None
    return LikelihoodQuestion(
        images=measure.likelihood_images,
        samples=measure.likelihood_samples,
        mixture=measure.mixture,
        split=measure.split,
    )


def answer_of_distance(
    question: DistanceQuestion | None, weights: str, results: Sequence[DistanceResult]
) -> DistanceResult | None:
    """The newest of the results, the newest last, that answers a question; None where there is none."""
    if question is None:
        return None
    mixture = f"{question.mixture}-{question.covariance}" if question.source == "q_hat" else ""
    asked = (weights, question.source, question.n, question.split, question.seed, mixture, question.extractor)

    def answers(protocol: DistanceProtocol) -> bool:
        own = (protocol.weights, protocol.source, protocol.n, protocol.split, protocol.seed, protocol.mixture)
        return (*own, protocol.extractor["name"]) == asked

    return next((result for result in reversed(results) if answers(result.protocol)), None)


def answer_of_likelihood(
    question: LikelihoodQuestion | None, weights: str, results: Sequence[LikelihoodResult]
) -> LikelihoodResult | None:
    """The newest of the results, the newest last, that answers a question; None where there is none."""
    if question is None:
        return None
    mixture = f"{question.mixture}-{question.covariance}" if question.mixture else ""
    asked = (weights, question.images, question.samples, question.split, question.seed, mixture, question.noise)

    def answers(protocol: LikelihoodProtocol) -> bool:
        own = (protocol.weights, protocol.n, protocol.importance_samples, protocol.split, protocol.seed)
        return (*own, protocol.mixture, protocol.noise) == asked and protocol.annealing is None

    return next((result for result in reversed(results) if answers(result.protocol)), None)
