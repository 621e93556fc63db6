"""What agrees with the paper, what does not, and what cannot: a row for each claim, computed from the numbers."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Literal, NamedTuple

from data_shards.io.tables import Table
from eval.paper.evidence import Evidence, Mean, mean_of, too_few
from eval.paper.plan import LEARNED, REFERENCE, variant_trainings
from eval.paper.tables import component_rows, method_rows, printed_likelihood, reference_row, row, variance_rows, wanted
from eval.report import printed_results

AGREES, DISAGREES, OPEN, CANNOT = "agrees", "does not", "not settled", "cannot"
_SMALLEST_GAIN = 0.05
"""Nats an image: a smaller difference of two likelihoods is shown as 0.0 and decides nothing."""


class Verdict(NamedTuple):
    """One claim beside our numbers."""

    claim: str
    """What the paper says, or what was to be shown."""
    paper: str
    """Its numbers; empty for aims of our own."""
    ours: str
    agrees: str
    """AGREES, DISAGREES, OPEN (within twice the standard error, or something is missing) or CANNOT; or how many seeds
    there are where they are too few for a claim."""
    seeds: str
    """Trainings that our numbers are the mean of; the fewest where several numbers are compared."""


def claims(evidence: Evidence) -> list[Verdict]:
    """Every claim of the paper on which something was measured."""
    parts = (_best_distance, _mixture_or_prior, _divergence_rises, _learned, _gains, _likelihoods, _components)
    return [one for part in parts for one in part(evidence)]


def is_decided(verdict: Verdict) -> bool:
    """Whether a claim rests on enough seeds to be decided."""
    return verdict.agrees in (AGREES, DISAGREES, OPEN, CANNOT)


def verdict_table(evidence: Evidence) -> Table:
    """Every claim of the paper, and every aim of our own, on which something was measured."""
    caption = f"Claims on {printed_results.DATASETS[evidence.plan.dataset]}, beside our numbers"
    return Table(head=Verdict._fields, rows=[*claims(evidence), *aims(evidence)], caption=caption)


def count_of(verdicts: Iterable[Verdict]) -> str:
    """How many claims agree, do not, cannot, or are not settled, in words."""
    counts = Counter(one.agrees for one in verdicts)
    said = {
        AGREES: "agrees|agree",
        DISAGREES: "does not|do not",
        CANNOT: "cannot (the printed number is impossible)|cannot (the printed numbers are impossible)",
        OPEN: "is not settled|are not settled",
    }
    parts = []
    for answer, forms in said.items():
        if count := counts[answer]:
            one, many = forms.split("|")
            parts.append(f"{count} {one if count == 1 else many}")
    return ", ".join(parts)


def _verdict(claim: str, paper: str, ours: str, agrees: str | bool, numbers: Iterable[Mean]) -> Verdict:
    if isinstance(agrees, bool):
        agrees = AGREES if agrees else DISAGREES
    seeds = min(one.seeds for one in numbers)
    # What an algorithm cannot reach does not depend on the seed.
    agrees = agrees if agrees == CANNOT else too_few(seeds) or agrees
    return Verdict(claim, paper, ours, agrees, f"{seeds}")


def all_below(pairs: Iterable[tuple[Mean, Mean]], missing: int = 0) -> str:
    """AGREES where the first of every pair is the smaller, DISAGREES where one is the larger, else OPEN.

    A difference within twice its standard error is neither, nor one whose error is unknown. missing: pairs that were
    not measured.
    """
    answers: list[bool | None] = [None] * missing
    for ours, theirs in pairs:
        if ours.standard_error is None or theirs.standard_error is None:
            answers.append(None)
        else:
            error = math.hypot(ours.standard_error, theirs.standard_error)
            answers.append(None if abs(ours.value - theirs.value) <= 2 * error else ours.value < theirs.value)
    return DISAGREES if False in answers else OPEN if None in answers else AGREES


def reaches(ours: Mean, least: float) -> str:
    """AGREES where a number is above `least`, DISAGREES where it is below, OPEN within twice its standard error.

    Also OPEN where that error is unknown.
    """
    return all_below([(Mean(value=least, standard_error=0.0, unit=ours.unit), ours)])


def _times(error: float | None, factor: float) -> float | None:
    return None if error is None else factor * error


def _any_above_half(chances: Iterable[Mean]) -> str:
    """AGREES where a chance is above 0.5 by more than twice its standard error, OPEN where an error is unknown."""
    answers = [None if one.standard_error is None else one.value - 2 * one.standard_error > 0.5 for one in chances]
    return AGREES if True in answers else OPEN if None in answers else DISAGREES


def _best_distance(evidence: Evidence) -> Iterator[Verdict]:
    plan = evidence.plan
    printed = dict(zip(printed_results.METHODS, printed_results.FID[plan.dataset], strict=True))
    others = {one.method: one.want("q_hat") for one in method_rows(plan) if one.method != REFERENCE}
    known = evidence.numbers(others)
    theirs = {printed[method]: method for method in others if method in printed}
    for weights, title in (("stage1", "one variance, end of stage 1"), ("final", "per pixel, final")):
        ours = evidence.number(reference_row(plan, weights).want("q_hat"))
        if ours is not None and known:
            name, best = min(known.items(), key=lambda pair: pair[1].value)
            yield _verdict(
                f"Table 2: the learned variance ({title}) has the smallest distance of all methods",
                f"{printed[REFERENCE]}; next {min(theirs)} ({theirs[min(theirs)]})" if theirs else "",
                f"{ours.plain(1)}; next {best.plain(1)} ({name})",
                all_below([(ours, number) for number in known.values()], missing=len(others) - len(known)),
                [ours, *known.values()],
            )


def _mixture_or_prior(evidence: Evidence) -> Iterator[Verdict]:
    for one in method_rows(evidence.plan):
        known = evidence.numbers(wanted(one, "q_hat", "prior"))
        if len(known) == 2:
            claim = f"Figure 2: samples from q̂ are nearer to real images than from the prior: {one.title}"
            q_hat, prior = known.values()
            ours = f"{q_hat.plain(1)} against {prior.plain(1)}"
            yield _verdict(claim, "drawn", ours, all_below([(q_hat, prior)]), known.values())


def _divergence_rises(evidence: Evidence) -> Iterator[Verdict]:
    printed = ", ".join(f"{kl[0]:.3f} at {variance:g}" for variance, kl in printed_results.LATENT_KL.items())
    parts: tuple[tuple[Literal["plane", "sweep"], str, str], ...] = (
        ("plane", "Table 1: with two latents KL(q̂ || p)", f"{printed} (MNIST)"),
        ("sweep", "Figure 1c: KL(q̂ || p)", "drawn"),
    )
    for part, title, theirs in parts:
        rows = {evidence.place(place): one.want("KL") for _, place, one in variance_rows(evidence.plan, part)}
        points = dict(sorted(evidence.numbers(rows).items(), reverse=True))
        if len(points) > 1:
            said = ", ".join(f"{number.plain(3)} at {place:.4g}" for place, number in points.items())
            rises = all_below(pairwise(points.values()))
            yield _verdict(f"{title} rises as sigma² falls", theirs, said, rises, points.values())


def _learned(evidence: Evidence) -> Iterator[Verdict]:
    # The reference method's seeds show how much another training would differ where one has a single seed.
    reference = evidence.number(reference_row(evidence.plan, "stage1").want("q_hat"))
    error = reference and reference.standard_error
    spread = error * math.sqrt(reference.seeds) if reference and error else None
    for claim, name, sign in (
        ("Figure 1a: the learned sigma² has the highest ELBO of all", "elbo", -1.0),
        ("Figure 1b: the learned sigma² has the smallest distance of all", "q_hat", 1.0),
    ):
        rows = {variance: one.want(name) for variance, _, one in variance_rows(evidence.plan, "sweep")}
        numbers = {
            variance: replace(number, value=sign * number.value) for variance, number in evidence.numbers(rows).items()
        }
        ours = numbers.pop(LEARNED, None)
        if ours is not None and numbers:
            best = min(numbers, key=lambda variance: numbers[variance].value)
            said = f"{sign * ours.value:,.1f}; best fixed value, {best}: {sign * numbers[best].value:,.1f}"
            said += f"; deviation over seeds {spread:.1f}" if name == "q_hat" and spread else ""
            missing = len(rows) - 1 - len(numbers)
            agrees = all_below([(ours, number) for number in numbers.values()], missing)
            yield _verdict(claim, "drawn", said, agrees, [ours, *numbers.values()])


def _gains(evidence: Evidence) -> Iterator[Verdict]:
    for one in method_rows(evidence.plan):
        known = evidence.numbers(wanted(one, "iwae_prior", "iwae_q_hat"))
        if len(known) == 2:
            prior, q_hat = (printed_likelihood(evidence.plan, one, density) for density in ("prior", "q_hat"))
            paper = f"{q_hat - prior:+g} nats" if prior is not None and q_hat is not None else ""
            gain = evidence.difference(one.want("iwae_q_hat"), one.want("iwae_prior"))
            if gain is None:
                continue
            agrees = OPEN if abs(gain.value) < _SMALLEST_GAIN else reaches(gain, 0.0)
            claim = f"Table 3: q̂ in place of the prior raises the likelihood: {one.title}"
            yield _verdict(claim, paper, f"{gain.value:+.1f} nats", agrees, [gain])


def _likelihoods(evidence: Evidence) -> Iterator[Verdict]:
    for one in method_rows(evidence.plan):
        theirs = printed_likelihood(evidence.plan, one, "q_hat")
        known = evidence.numbers(wanted(one, "iwae_q_hat", "square error", "cap"))
        if theirs is None or len(known) < 3:
            continue
        ours, error, cap = known.values()
        (first, *_) = evidence.answers(one.want("cap")).values()
        pixels = math.prod(first.protocol.image_shape)
        claim, paper = f"Table 3: likelihood of {one.method} (within 2%)", f"{theirs:,.0f} nats"
        agrees: str | bool = reaches(ours, theirs)
        if one.method != REFERENCE:
            away = abs(ours.value - theirs) / abs(theirs)
            said, agrees = f"{ours.plain(1)} ({away:.1%} away)", away <= 0.02
        elif one.weights == "stage1":
            claim = "Table 3: one variance reaches the printed likelihood (D12)"
            # The highest likelihood that a mean square error allows, at sigma^2 equal to it (equation 9).
            needed = math.exp(-2 * theirs / pixels - 1) / (2 * math.pi)
            paper += f", which need a square error of {needed:.4f} or less"
            said = f"{ours.plain(1)} at a square error of {error.value:.5f}"
        else:
            claim = "Table 3: a variance a pixel reaches the printed likelihood (D3)"
            paper += f"; 8-bit images have at most {pixels * math.log(256):,.0f}"
            said = f"{ours.plain(1)}, {ours.value / cap.value:.0%} of the cap {cap.value:,.0f} of Algorithm 1's floor"
            agrees = agrees if theirs <= cap.value else CANNOT
        yield _verdict(claim, paper, said, agrees, [ours])


def _components(evidence: Evidence) -> Iterator[Verdict]:
    rows = component_rows(evidence.plan)
    points = evidence.numbers({count: one["q_hat"] for count, one in rows.items()})
    if len(points) > 1:
        first, last = points[min(points)], points[max(points)]
        falls = all_below([(last, first)])
        printed = printed_results.FID_OF_COMPONENTS.items()
        yield _verdict(
            "Table 4: the distance falls with the number of components",
            ", ".join(f"{value} with {count:,}" for count, value in printed) + " (CelebA)",
            ", ".join(f"{points[count].plain(1)} with {count:,}" for count in points),
            falls,
            points.values(),
        )
    largest = max(rows)
    names = ("training codes", "held-out codes", "nearer code", "nearer image")
    known = evidence.numbers({name: rows[largest][name] for name in names})
    if len(known) == len(names):
        train, held_out, code, image = known.values()
        yield _verdict(
            f"{largest:,} components overfit: samples nearer to training data than new images (chance above 0.5)",
            "suspected",
            f"codes {code.plain(2)}, images {image.plain(2)}; nats of codes {train.plain(2)} in training, "
            f"{held_out.plain(2)} held out",
            _any_above_half([code, image]),
            known.values(),
        )
    if evidence.plan.dataset == "celeba" and points:
        claim = "Tables 2 and 4 report the same model with 500 components (D8)"
        paper = f"{printed_results.FID['celeba'][0]} and {printed_results.FID_OF_COMPONENTS[500]}"
        yield _verdict(claim, paper, "", CANNOT, points.values())


def aims(evidence: Evidence) -> Iterator[Verdict]:
    """The plan's own aims on which something was measured."""
    plan = evidence.plan
    least, nats = plan.aims.one_variance_nats, evidence.number(reference_row(plan, "stage1").want("iwae_q_hat"))
    if least is not None and nats is not None:
        claim = f"Our aim: one variance reaches {least:g} nats"
        yield _verdict(claim, "", nats.plain(1), reaches(nats, least), [nats])
    for model, most in plan.aims.distance_of_peers.items():
        theirs, of_which = _best_peer(evidence, model, "frechet_distance")
        # The field has the name under which it was first written.
        peer_transported, _ = _best_peer(evidence, model, "carried_frechet_distance")
        if theirs is None:
            continue
        for title, ours, transported in _samples(evidence):
            said = f"{ours.plain(1)} against {theirs.plain(1)} ({of_which}): {ours.value / theirs.value:.2f} times"
            numbers = [ours, theirs]
            if transported and peer_transported is not None:
                times = ours.value / peer_transported.value
                said += f"; against its own, transported, {peer_transported.plain(1)}: {times:.2f} times"
                numbers.append(peer_transported)
            name = model.replace("_", "-")
            claim = f"Our aim: {title}, at most {most:g} times the distance of pythae's {name} with its mixture"
            most_allowed = replace(
                theirs, value=most * theirs.value, standard_error=_times(theirs.standard_error, most)
            )
            yield _verdict(claim, "", said, all_below([(ours, most_allowed)]), numbers)


def _best_peer(evidence: Evidence, model: str, field: str) -> tuple[Mean | None, str]:
    """The smallest distance of a model of pythae over the sizes of its sampler, and which of these that is."""
    found: dict[int, list[float]] = defaultdict(list)
    for key, result in ((key, r) for record in evidence.records.values() for key, r in record.results.items()):
        if key.startswith("pythae ") and result["model"] == model and field in result:
            found[result["components"]].append(float(result[field]))
    means = {components: number for components, values in sorted(found.items()) if (number := mean_of(values))}
    if not means:
        return None, ""
    best = min(means, key=lambda components: means[components].value)
    return means[best], f"{best} components, the best of {', '.join(map(str, means))}"


def _samples(evidence: Evidence) -> Iterator[tuple[str, Mean, bool]]:
    """(title, distance, whether transported) of our samples, for each kind that was measured."""
    plan = evidence.plan
    for weights, title in (("stage1", "one variance"), ("final", "per pixel")):
        kinds = [(title, reference_row(plan, weights).want("q_hat"))]
        kinds += [
            (f"{title}, {variant.name}", row(plan, variant_trainings(plan, variant), weights).want("transported"))
            for variant in plan.variants
            if variant.density == "transported"
        ]
        for name, one in kinds:
            if (number := evidence.number(one)) is not None:
                yield name, number, one.question.source == "transported"
