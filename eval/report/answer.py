"""What a run's page leads with: the best number there is, on a scale from real images to samples from the prior."""

from collections.abc import Sequence

from eval.images.densities import DENSITIES, SOURCES
from eval.protocol import fingerprint
from eval.report.document import Answer, Mark
from eval.report.known import final
from eval.report.tables import image_set, weights_title, with_error
from eval.results import DistanceResult, LikelihoodResult

_ONE_TRAINING = "All of it is of one training; how much another seed would change is not known from this page."


def answer(distances: Sequence[DistanceResult], likelihoods: Sequence[LikelihoodResult]) -> Answer:
    """The best distance of generated images where one was measured, else the best likelihood, else that nothing was."""
    generated = [result for result in distances if result.protocol.source in DENSITIES]
    if generated:
        return _of_distances(min(_newest_kind(generated), key=lambda result: result.value), distances)
    if likelihoods:
        shown = final(likelihoods) or likelihoods[-1]
        number, density = _likelihood(shown)
        meaning = f"is the log-likelihood of an image of split {shown.protocol.split}, latents from {density}."
        return Answer(number=f"{number} nats", meaning=meaning, text=[_ONE_TRAINING])
    return Answer(number="Nothing has been measured yet", meaning="The commands that measure stand below.")


def _comparable(result: DistanceResult) -> str:
    """Equal for distances that may be compared with each other."""
    protocol = result.protocol
    of = [result.label, protocol.n, protocol.n_reference, protocol.split, protocol.data, dict(protocol.extractor)]
    return fingerprint({"of": of})


def _newest_kind(generated: Sequence[DistanceResult]) -> list[DistanceResult]:
    """Those that may be compared with the most others: the largest group, of equal ones that of more images."""
    groups: dict[str, list[DistanceResult]] = {}
    for result in generated:
        groups.setdefault(_comparable(result), []).append(result)
    return max(groups.values(), key=lambda group: (len(group), group[0].protocol.n))


def _of_distances(best: DistanceResult, distances: Sequence[DistanceResult]) -> Answer:
    beside = sorted((one for one in distances if _comparable(one) == _comparable(best)), key=lambda one: one.value)
    largest = max(one.value for one in beside) or 1.0
    protocol = best.protocol
    marks = [
        Mark(
            title=_title(one),
            value=with_error(one.values["frechet_distance"], 1),
            part=one.value / largest,
            best=one is best,
        )
        for one in beside
    ]
    by_source = {one.protocol.source: one.value for one in reversed(beside)}
    real, prior = by_source.get("train"), by_source.get("prior")
    text = []
    if real is not None and prior is not None and real < prior:
        text.append(
            f"Real training images have {real:,.1f} and samples from the prior {prior:,.1f}: the best samples go "
            f"{(prior - best.value) / (prior - real):.0%} of the way from the prior to real images."
        )
    elif real is None:
        text.append("What real images have was not measured, so the scale has no lower end.")
    if best.below_protocol:
        text.append("From so few images all of these distances are too large, and compare with each other only.")
    return Answer(
        number=f"{best.label.split(' (')[0]} {with_error(best.values['frechet_distance'], 1)}",
        meaning=f"is the best distance reached: of {protocol.n:,} {_title(best)}. Lower is better.",
        scale=marks,
        caption=f"{best.label} to {protocol.n_reference:,} images of split {protocol.split}; lower is better",
        text=[*text, _ONE_TRAINING],
    )


def _title(result: DistanceResult) -> str:
    if result.protocol.source not in DENSITIES:
        known = SOURCES.get(result.protocol.source)
        return known.title if known else result.protocol.source
    weights = "final weights" if result.protocol.weights == "final" else weights_title(result)
    return f"{image_set(result)}, {weights}"


def _likelihood(result: LikelihoodResult) -> tuple[str, str]:
    name, density = ("iwae_q_hat", "q̂") if "iwae_q_hat" in result.values else ("iwae_prior", "the prior")
    return with_error(result.values[name], 1), density
