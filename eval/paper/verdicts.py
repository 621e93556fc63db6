"""What agrees with the paper, what does not, and what cannot: a row for each claim, computed from the numbers."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import pairwise

from data_shards.io.tables import Table
from eval import printed_results
from eval.paper.evidence import Evidence, Number, mean_of
from eval.paper.plan import LEARNED, REFERENCE
from eval.paper.tables import (
    FIGURE1,
    component_rows,
    method_rows,
    printed_likelihood,
    reference_row,
    row,
    variance_rows,
)
from eval.paper.trainings import variant_trainings

AGREES, DISAGREES, OPEN, CANNOT = "agrees", "does not", "not settled", "cannot"
_SMALLEST_GAIN = 0.05
"""Nats an image: a smaller difference of two likelihoods is shown as 0.0 and decides nothing."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One claim beside our numbers."""

    claim: str
    """What the paper says, or what was to be shown."""
    paper: str
    """Its numbers; empty for aims of our own."""
    ours: str
    agrees: str
    """AGREES, DISAGREES, OPEN (within twice the standard error, or something is missing) or CANNOT."""
    seeds: str
    """Trainings that our numbers are the mean of; the fewest where several numbers are compared."""


def verdict_table(evidence: Evidence) -> Table:
    """Every claim on which something was measured."""
    rows = [astuple(one) for one in verdicts(evidence)]
    return Table(head=("claim", "paper", "ours", "agrees", "seeds"), rows=rows)


def verdicts(evidence: Evidence) -> list[Verdict]:
    """The rows of `verdict_table`."""
    parts = (_best_distance, _mixture_or_prior, _divergence_rises, _learned, _gains, _likelihoods, _components, aims)
    return [one for part in parts for one in part(evidence)]


def _verdict(claim: str, paper: str, ours: str, agrees: str | bool, numbers: Sequence[Number]) -> Verdict:
    if isinstance(agrees, bool):
        agrees = AGREES if agrees else DISAGREES
    return Verdict(claim=claim, paper=paper, ours=ours, agrees=agrees, seeds=f"{min(one.seeds for one in numbers)}")


def below(ours: Number, theirs: Number) -> bool | None:
    """Whether `ours` is the smaller; None where the difference is within twice its standard error."""
    error = math.hypot(ours.standard_error or 0.0, theirs.standard_error or 0.0)
    return None if abs(ours.value - theirs.value) <= 2 * error else ours.value < theirs.value


def judged(answers: Sequence[bool | None]) -> str:
    """AGREES where all hold, DISAGREES where one fails, else OPEN."""
    if any(answer is False for answer in answers):
        return DISAGREES
    return AGREES if all(answers) else OPEN


def _best_distance(evidence: Evidence) -> Iterator[Verdict]:
    plan = evidence.plan
    printed = dict(zip(printed_results.METHODS, printed_results.FID[plan.dataset], strict=True))
    rows = [one for one in method_rows(plan) if one.method != REFERENCE and one.weights == "final"]
    known = {one.method: number for one in rows if (number := evidence.number(one.distance()))}
    theirs = {printed[one.method]: one.method for one in rows if one.method in printed}
    missing: list[bool | None] = [None] if len(known) < len(rows) else []
    for weights, title in (("stage1", "one variance, end of stage 1"), ("final", "per pixel, final")):
        ours = evidence.number(reference_row(plan, weights).distance())
        if ours is not None and known:
            name, best = min(known.items(), key=lambda pair: pair[1].value)
            yield _verdict(
                f"Table 2: the learned variance ({title}) has the smallest distance of all methods",
                f"{printed[REFERENCE]}; next {min(theirs)} ({theirs[min(theirs)]})" if theirs else "",
                f"{ours.plain(1)}; next {best.plain(1)} ({name})",
                judged([below(ours, number) for number in known.values()] + missing),
                [ours, *known.values()],
            )


def _mixture_or_prior(evidence: Evidence) -> Iterator[Verdict]:
    for one in method_rows(evidence.plan):
        q_hat, prior = evidence.number(one.distance()), evidence.number(one.distance("prior"))
        if q_hat is not None and prior is not None:
            claim = f"Figure 2: samples from q̂ are nearer to real images than from the prior: {one.title}"
            ours = f"{q_hat.plain(1)} against {prior.plain(1)}"
            yield _verdict(claim, "drawn", ours, judged([below(q_hat, prior)]), [q_hat, prior])


def _divergence_rises(evidence: Evidence) -> Iterator[Verdict]:
    printed = ", ".join(f"{kl[0]:.3f} at {variance:g}" for variance, kl in printed_results.LATENT_KL.items())
    for table, title, theirs in (
        ("table1", "Table 1: with two latents KL(q̂ || p)", f"{printed} (MNIST)"),
        ("figure1", "Figure 1c: KL(q̂ || p)", "drawn"),
    ):
        points = {}
        for _, place, one in variance_rows(evidence.plan, table):
            at, number = evidence.place(place), evidence.number(one.divergence())
            if at is not None and number is not None:
                points[at] = number
        if len(points) > 1:
            order = sorted(points, reverse=True)
            said = ", ".join(f"{points[place].plain(3)} at {place:.4g}" for place in order)
            rises = judged([below(points[a], points[b]) for a, b in pairwise(order)])
            yield _verdict(f"{title} rises as sigma² falls", theirs, said, rises, [*points.values()])


def _learned(evidence: Evidence) -> Iterator[Verdict]:
    # A single training's distance has no error; the reference method's seeds show how much another would differ.
    reference = evidence.number(reference_row(evidence.plan, "stage1").distance())
    spread = None
    if reference is not None and reference.standard_error:
        spread = reference.standard_error * math.sqrt(reference.seeds)
    for claim, name, sign in (
        ("Figure 1a: the learned sigma² has the highest ELBO of all", "ELBO", -1.0),
        ("Figure 1b: the learned sigma² has the smallest distance of all", "from q̂", 1.0),
    ):
        rows = variance_rows(evidence.plan, "figure1")
        found = {variance: evidence.number(FIGURE1[name](one)) for variance, _, one in rows}
        numbers = {
            variance: replace(number, value=sign * number.value, standard_error=number.standard_error or spread)
            for variance, number in found.items()
            if number is not None
        }
        ours = numbers.pop(LEARNED, None)
        if ours is not None and numbers:
            best = min(numbers, key=lambda variance: numbers[variance].value)
            missing: list[bool | None] = [None] * (len(found) - 1 - len(numbers))
            said = f"{sign * ours.value:,.1f}; best fixed value, {best}: {sign * numbers[best].value:,.1f}"
            said += f"; deviation over seeds {spread:.1f}" if name != "ELBO" and spread else ""
            agrees = judged([below(ours, number) for number in numbers.values()] + missing)
            yield _verdict(claim, "drawn", said, agrees, [ours, *numbers.values()])


def _gains(evidence: Evidence) -> Iterator[Verdict]:
    for one in method_rows(evidence.plan):
        prior, q_hat = (evidence.number(one.likelihood(f"iwae_{density}")) for density in ("prior", "q_hat"))
        if prior is not None and q_hat is not None:
            theirs = [printed_likelihood(evidence.plan, one, density) for density in ("prior", "q_hat")]
            paper = f"{theirs[1] - theirs[0]:+g} nats" if theirs[0] is not None and theirs[1] is not None else ""
            gain = q_hat.value - prior.value
            agrees = OPEN if abs(gain) < _SMALLEST_GAIN else gain > 0
            claim = f"Table 3: q̂ in place of the prior raises the likelihood: {one.title}"
            yield _verdict(claim, paper, f"{gain:+.1f} nats", agrees, [prior, q_hat])


def _likelihoods(evidence: Evidence) -> Iterator[Verdict]:
    for one in method_rows(evidence.plan):
        theirs = printed_likelihood(evidence.plan, one, "q_hat")
        names = ("iwae_q_hat", "mean_square_error", "cap")
        ours, error, cap = (evidence.number(one.likelihood(name)) for name in names)
        if theirs is None or ours is None or error is None or cap is None:
            continue
        (first, *_) = evidence.answers(one.likelihood("cap")).values()
        pixels = math.prod(first.protocol.image_shape)
        if one.method != REFERENCE:
            away = abs(ours.value - theirs) / abs(theirs)
            claim, paper = f"Table 3: likelihood of {one.method} (within 2%)", f"{theirs:,.0f} nats"
            yield _verdict(claim, paper, f"{ours.plain(1)} ({away:.1%} away)", away <= 0.02, [ours])
        elif one.weights == "stage1":
            # The highest likelihood that a mean square error allows, at sigma^2 equal to it (equation 9).
            needed = math.exp(-2 * theirs / pixels - 1) / (2 * math.pi)
            yield _verdict(
                "Table 3: one variance reaches the printed likelihood (D12)",
                f"{theirs:,.0f} nats, which need a square error of {needed:.4f} or less",
                f"{ours.plain(1)} at a square error of {error.value:.5f}",
                ours.value >= theirs,
                [ours],
            )
        else:
            yield _verdict(
                "Table 3: a variance a pixel reaches the printed likelihood (D3)",
                f"{theirs:,.0f} nats; 8-bit images have at most {pixels * math.log(256):,.0f}",
                f"{ours.plain(1)}, {ours.value / cap.value:.0%} of the cap {cap.value:,.0f} of Algorithm 1's floor",
                ours.value >= theirs if theirs <= cap.value else CANNOT,
                [ours],
            )


def _components(evidence: Evidence) -> Iterator[Verdict]:
    rows = component_rows(evidence.plan)
    points = {count: number for count, one in rows.items() if (number := evidence.number(one["distance"]))}
    if len(points) > 1:
        first, last = points[min(points)], points[max(points)]
        known = first.standard_error is not None and last.standard_error is not None
        falls = below(last, first) if known else (None if last.value < first.value else False)
        printed = printed_results.FID_OF_COMPONENTS.items()
        yield _verdict(
            "Table 4: the distance falls with the number of components",
            ", ".join(f"{value} with {count:,}" for count, value in printed) + " (CelebA)",
            ", ".join(f"{points[count].plain(1)} with {count:,}" for count in sorted(points)),
            judged([falls]),
            [*points.values()],
        )
    names = ("training codes", "held-out codes", "codes", "images")
    numbers = [number for name in names if (number := evidence.number(rows[max(rows)][name]))]
    if len(numbers) == len(names):
        train, held_out, code, image = numbers
        yield _verdict(
            f"{max(rows):,} components overfit: samples nearer to training data than new images (chance above 0.5)",
            "suspected",
            f"codes {code.plain(2)}, images {image.plain(2)}; nats of codes {train.plain(2)} in training, "
            f"{held_out.plain(2)} held out",
            any(number.value - 2 * (number.standard_error or 0.0) > 0.5 for number in (code, image)),
            numbers,
        )
    if evidence.plan.dataset == "celeba" and points:
        claim = "Tables 2 and 4 report the same model with 500 components (D8)"
        paper = f"{printed_results.FID['celeba'][0]} and {printed_results.FID_OF_COMPONENTS[500]}"
        yield _verdict(claim, paper, "", CANNOT, [*points.values()])


def aims(evidence: Evidence) -> Iterator[Verdict]:
    """The plan's own aims on which something was measured."""
    plan = evidence.plan
    least, nats = plan.aims.one_variance_nats, evidence.number(reference_row(plan, "stage1").likelihood("iwae_q_hat"))
    if least is not None and nats is not None:
        claim = f"Our aim: one variance reaches {least:g} nats"
        yield _verdict(claim, "", nats.plain(1), nats.value >= least, [nats])
    for model, most in plan.aims.distance_of_peers.items():
        theirs, of_which = _best_peer(evidence, model, "frechet_distance")
        if theirs is None:
            continue
        # The field has the name under which it was first written.
        peer_transported, _ = _best_peer(evidence, model, "carried_frechet_distance")
        for title, ours, transported in _samples(evidence):
            said = f"{ours.plain(1)} against {theirs.plain(1)} ({of_which}): {ours.value / theirs.value:.2f} times"
            numbers = [ours, theirs]
            if transported and peer_transported is not None:
                times = ours.value / peer_transported.value
                said += f"; against its own, transported, {peer_transported.plain(1)}: {times:.2f} times"
                numbers.append(peer_transported)
            name = model.replace("_", "-")
            claim = f"Our aim: {title}, at most {most:g} times the distance of pythae's {name} with its mixture"
            yield _verdict(claim, "", said, ours.value <= most * theirs.value, numbers)


def _best_peer(evidence: Evidence, model: str, field: str) -> tuple[Number | None, str]:
    """The smallest distance of a model of pythae over the sizes of its sampler, and which of these that is."""
    found: dict[int, list[float]] = defaultdict(list)
    for key, result in ((key, r) for record in evidence.records.values() for key, r in record.results.items()):
        if key.startswith("pythae ") and result["model"] == model and field in result:
            found[result["components"]].append(float(result[field]))
    numbers = {components: number for components, values in found.items() if (number := mean_of(values))}
    if not numbers:
        return None, ""
    best = min(numbers, key=lambda components: numbers[components].value)
    return numbers[best], f"{best} components, the best of {', '.join(map(str, sorted(numbers)))}"


def _samples(evidence: Evidence) -> Iterator[tuple[str, Number, bool]]:
    """(title, distance, whether transported) of our samples, for each kind that was measured."""
    plan = evidence.plan
    for weights, title in (("stage1", "one variance"), ("final", "per pixel")):
        wanted = [(title, reference_row(plan, weights).distance(), False)]
        for variant in plan.variants:
            if variant.density == "transported":
                transported = row(plan, variant_trainings(plan, variant), weights).distance("transported")
                wanted.append((f"{title}, {variant.name}", transported, True))
        for name, one, moved in wanted:
            if (number := evidence.number(one)) is not None:
                yield name, number, moved
