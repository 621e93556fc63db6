"""What agrees with the paper, what does not, and what cannot be compared: every sentence follows from the numbers."""

import dataclasses
import math
from collections.abc import Iterator
from itertools import pairwise

from eval import printed_results as paper
from eval.paper.aims import aims
from eval.paper.asks import Ask
from eval.paper.claims import AGREES, DISAGREES, IMPOSSIBLE, Finding, below, verdict_of
from eval.paper.evidence import Evidence, Number
from eval.paper.jobs import Training
from eval.paper.latent_exhibits import (
    divergence,
    likelihood_ask,
    plane_trainings,
    sweep_trainings,
    variance_value,
)
from eval.paper.methods_exhibits import rows_of, sample_distance, trainings_of
from eval.paper.plan import LEARNED, REFERENCE
from eval.paper.sample_exhibits import component_labels, component_numbers

_SMALLEST_GAIN = 0.05
"""Nats an image: a smaller difference of two likelihoods is shown as 0.0 and decides nothing."""


def findings(evidence: Evidence) -> list[Finding]:
    """Every claim on which something was measured."""
    return [
        *_best_distance(evidence),
        *_mixture_beats_prior(evidence),
        *_divergence_rises(evidence),
        *_learned_is_balanced(evidence),
        *_likelihoods(evidence),
        *_components(evidence),
        *aims(evidence),
    ]


def _best_distance(evidence: Evidence) -> Iterator[Finding]:
    others = {m: sample_distance(evidence, m, "final") for m in evidence.plan.methods if m != REFERENCE}
    known = {method: number for method, number in others.items() if number is not None}
    for weights, title in (("stage1", "one variance, end of stage 1"), ("final", "per pixel, final")):
        ours = sample_distance(evidence, REFERENCE, weights)
        if ours is None or not known:
            continue
        name, best = min(known.items(), key=lambda pair: pair[1].value)
        missing = sorted(others.keys() - known.keys())
        yield Finding(
            claim=f"Table 2: the learned variance ({title}) has the smallest distance of all methods",
            verdict=verdict_of([below(ours, number) for number in known.values()] + ([None] if missing else [])),
            because=f"{ours.text(1)} against {best.text(1)} of the next, {name}"
            + (f"; {', '.join(missing)} not measured" if missing else ""),
        )


def _mixture_beats_prior(evidence: Evidence) -> Iterator[Finding]:
    answers, said = [], []
    for title, method, weights, _ in rows_of(evidence):
        ours, prior = (sample_distance(evidence, method, weights, source) for source in ("q_hat", "prior"))
        if ours is not None and prior is not None:
            answers.append(below(ours, prior))
            said.append(f"{title}: {ours.text(1)} against {prior.text(1)}")
    if answers:
        yield Finding(
            claim="Figure 2: samples from q̂ are nearer to real images than samples from the prior, for every method",
            verdict=verdict_of(answers),
            because="; ".join(said),
        )


def _divergence_rises(evidence: Evidence) -> Iterator[Finding]:
    plan = evidence.plan
    for title, variances, trainings_of_variance in (
        ("Table 1: with two latents KL(q̂ || p)", plan.plane.variances, plane_trainings),
        ("Figure 1c: KL(q̂ || p)", plan.sweep.variances, sweep_trainings),
    ):
        points: dict[float, Number] = {}
        for variance in variances:
            trainings = trainings_of_variance(evidence, variance)
            place, number = variance_value(evidence, trainings, variance), divergence(evidence, trainings)
            if place is not None and number is not None:
                points[place] = number
        if len(points) > 1:
            ordered = [points[place] for place in sorted(points)]
            yield Finding(
                claim=f"{title} rises as sigma² falls",
                verdict=verdict_of([below(b, a) for a, b in pairwise(ordered)]),
                because=", ".join(f"{points[place].text(3)} at {place:.4g}" for place in sorted(points, reverse=True)),
            )


def _learned_is_balanced(evidence: Evidence) -> Iterator[Finding]:
    variances = evidence.plan.sweep.variances
    if LEARNED not in variances:
        return
    q_hat = Ask(kind="fid", source="q_hat", mixture=evidence.plan.measure.mixture.label)
    measures = (
        ("Figure 1a: the learned sigma² has the highest ELBO of all", "ELBO", -1.0),
        ("Figure 1b: the learned sigma² has the smallest distance of all", "distance", 1.0),
    )
    # A single training's distance has no error; the reference method's seeds tell how much another would differ.
    reference = evidence.distance(trainings_of(evidence, REFERENCE), dataclasses.replace(q_hat, weights="stage1"))
    spread = reference.error * math.sqrt(reference.seeds) if reference and reference.error else None
    for claim, name, sign in measures:
        numbers = {}
        for variance in variances:
            trainings = sweep_trainings(evidence, variance)
            number = (
                evidence.likelihood(trainings, likelihood_ask(evidence), "elbo")
                if name == "ELBO"
                else evidence.distance(trainings, q_hat)
            )
            if number is not None:
                error = spread if number.error is None else number.error
                numbers[variance] = Number(value=sign * number.value, error=error, seeds=number.seeds)
        ours = numbers.pop(LEARNED, None)
        if ours is None or not numbers:
            continue
        best = min(numbers, key=lambda variance: numbers[variance].value)
        missing = len(variances) - 1 - len(numbers)
        yield Finding(
            claim=claim,
            verdict=verdict_of([below(ours, number) for number in numbers.values()] + [None] * missing),
            because=f"{name} {sign * ours.value:,.1f} when learned, {sign * numbers[best].value:,.1f} at the best "
            f"fixed value, {best}"
            + (f"; over seeds a distance of ours deviates by {spread:.1f}" if name == "distance" and spread else "")
            + (f"; {missing} not measured" if missing else ""),
        )


def _likelihoods(evidence: Evidence) -> Iterator[Finding]:
    plan = evidence.plan
    label = plan.measure.mixture.label
    gains: list[bool | None] = []
    said = []
    for title, _, weights, trainings in rows_of(evidence):
        ask = Ask(kind="likelihood", mixture=label, weights=weights)
        prior, q_hat = (evidence.likelihood(trainings, ask, f"iwae_{name}") for name in ("prior", "q_hat"))
        if prior is not None and q_hat is not None:
            gain = q_hat.value - prior.value
            gains.append(None if abs(gain) < _SMALLEST_GAIN else gain > 0)
            said.append(f"{title}: {gain:+.1f}")
    if gains:
        yield Finding(
            claim="Table 3: q̂ in place of the prior raises the likelihood, for every method",
            verdict=verdict_of(gains),
            because="nats gained: " + "; ".join(said),
        )
    printed = paper.LOG_LIKELIHOOD.get(plan.dataset)
    if printed is None:
        return
    for method, field in (("VAE", "vae"), ("beta-VAE", "beta_vae"), ("DIP-VAE", "dip_vae")):
        if method in plan.methods:
            theirs = float(getattr(printed["q_hat"], field))
            yield from _near(evidence, trainings_of(evidence, method), method, theirs)
    ask = Ask(kind="likelihood", mixture=label, weights="stage1")
    trainings = trainings_of(evidence, REFERENCE)
    ours = evidence.likelihood(trainings, ask, "iwae_q_hat")
    error = evidence.likelihood(trainings, ask, "mean_square_error")
    theirs = printed["q_hat"].one_variance
    results = evidence.results(trainings, ask)
    if ours is not None and error is not None:
        pixels = math.prod(results[0]["protocol"]["image_shape"])
        # The highest likelihood that a mean square error allows, at sigma^2 equal to it (equation 9).
        needed = math.exp(-2 * theirs / pixels - 1) / (2 * math.pi)
        yield Finding(
            claim=f"Table 3: one variance reaches {theirs:,} nats",
            verdict=AGREES if ours.value >= theirs else DISAGREES,
            because=f"{ours.text(1)} at a square error of {error.value:.5f} a pixel; {theirs:,} nats need an error of "
            f"{needed:.4f} or less, even at no cost in the latents (D12)",
        )
    yield from _cap(evidence, trainings, printed["q_hat"].per_pixel)


def _near(evidence: Evidence, trainings: list[Training], method: str, theirs: float) -> Iterator[Finding]:
    ours = evidence.likelihood(
        trainings, Ask(kind="likelihood", mixture=evidence.plan.measure.mixture.label), "iwae_q_hat"
    )
    if ours is not None:
        relative = abs(ours.value - theirs) / abs(theirs)
        yield Finding(
            claim=f"Table 3: {method} has {theirs:,.0f} nats",
            verdict=AGREES if relative <= 0.02 else DISAGREES,
            because=f"{ours.text(1)}, {relative:.1%} away (within 2% counts as agreement)",
        )


def _cap(evidence: Evidence, trainings: list[Training], theirs: float) -> Iterator[Finding]:
    label = evidence.plan.measure.mixture.label
    ask = Ask(kind="likelihood", mixture=label)
    cap, ours = evidence.number(trainings, ask, "cap"), evidence.likelihood(trainings, ask, "iwae_q_hat")
    if cap is None or ours is None:
        return
    pixels = math.prod(evidence.results(trainings, ask)[0]["protocol"]["image_shape"])
    most = pixels * math.log(256)
    reachable = theirs <= cap.value
    yield Finding(
        claim=f"Table 3: a variance a pixel reaches {theirs:,} nats",
        verdict=(AGREES if ours.value >= theirs else DISAGREES) if reachable else IMPOSSIBLE,
        because=f"{ours.text(1)}, {ours.value / cap.value:.0%} of the cap of {cap.value:,.0f} that Algorithm 1's own "
        f"floor sets; 8-bit images carry at most {most:,.0f}" + (" (D3)" if not reachable else ""),
    )


def _components(evidence: Evidence) -> Iterator[Finding]:
    found = {count: component_numbers(evidence, label) for count, label in component_labels(evidence).items()}
    points = {count: number for count, numbers in found.items() if (number := numbers["distance"]) is not None}
    if len(points) > 1:
        first, last = min(points), max(points)
        falls = points[last].value < points[first].value
        known = points[first].error is not None and points[last].error is not None
        yield Finding(
            claim="Table 4: the distance falls with the number of components",
            verdict=verdict_of([below(points[last], points[first]) if known else (None if falls else False)]),
            because=", ".join(f"{points[count].text(1)} with {count:,}" for count in sorted(points)),
        )
    for count in sorted(found, reverse=True)[:1]:
        train, held_out, code, image = (found[count][name] for name in ("train", "held_out", "code", "image"))
        if train is None or held_out is None or code is None or image is None:
            continue
        repeats = [number.value - 2 * (number.error or 0.0) > 0.5 for number in (code, image)]
        yield Finding(
            claim=f"The paper suspects that {count:,} components overfit",
            verdict=AGREES if any(repeats) else DISAGREES,
            because=f"with {count:,}: {train.text(2)} nats on training codes, {held_out.text(2)} on held-out ones; a "
            f"sample's code is nearer to a training code than a new image's with chance {code.text(2)}, its image with "
            f"{image.text(2)} (0.5 is no difference)",
        )
    if evidence.plan.dataset == "celeba":
        table2 = paper.FID["celeba"][0]
        table4 = paper.FID_OF_COMPONENTS[500]
        yield Finding(
            claim="Tables 2 and 4 report the same model with 500 components",
            verdict=AGREES if table2 == table4 else IMPOSSIBLE,
            because=f"they print {table2} and {table4} for it (D8)",
        )
