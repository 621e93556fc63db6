"""What helps and what does not: variants of the reference method, each with one change, at the same budget."""

from data_shards.io.tables import Table
from eval import printed_results as paper
from eval.paper.asks import Ask, weights_of
from eval.paper.evidence import READING, Evidence, Number, at, text_of
from eval.paper.exhibits import Exhibit
from eval.paper.jobs import Training, density_of, method_training, two_stages, variant_training
from eval.paper.kept_pictures import KeptPictures
from eval.paper.plan import REFERENCE, Variant
from eval.paper.protocols import distance_protocol, likelihood_protocol, training_protocol

_STAGES = {"stage1": "end of stage 1", "final": "final"}


def variant_distances(evidence: Evidence, variant: Variant, weights: str) -> dict[int, float]:
    """The distance of a variant's samples by seed."""
    source, label = density_of(evidence.plan, variant)
    ask = Ask(kind="fid", source=source, mixture=label, weights=weights)
    return _by_seed(
        evidence, {s: variant_training(evidence.plan, variant, s) for s in evidence.plan.variant_seeds}, ask
    )


def reference_distances(evidence: Evidence, weights: str) -> dict[int, float]:
    """The distance of the reference method's samples by seed, of the seeds that variants have."""
    ask = Ask(kind="fid", source="q_hat", mixture=evidence.plan.measure.mixture.label, weights=weights)
    trainings = {seed: method_training(evidence.plan, REFERENCE, seed) for seed in evidence.plan.variant_seeds}
    return _by_seed(evidence, trainings, ask)


def _by_seed(evidence: Evidence, trainings: dict[int, Training], ask: Ask) -> dict[int, float]:
    found = {seed: evidence.result(training, ask) for seed, training in trainings.items()}
    return {seed: at(result, ("values", "frechet_distance", "value")) for seed, result in found.items() if result}


def compared_with(weights: str, two: bool) -> str:
    """The reference's weights that a variant's are held against: one variance with one variance."""
    return weights if two else "stage1"


def judgement(difference: Number | None) -> str:
    """Whether a change of the distance is one, by twice its standard error over seeds."""
    if difference is None:
        return "not measured"
    if difference.error is None:
        return "one seed: no error is known"
    if abs(difference.value) <= 2 * difference.error:
        return "no difference beyond twice its error"
    return "helps" if difference.value < 0 else "harms"


def carried_variants(evidence: Evidence) -> list[Variant]:
    """The variants whose mean images are carried; at most one makes sense."""
    return [variant for variant in evidence.plan.variants if variant.density == "transported"]


def _carried_text(evidence: Evidence) -> list[str]:
    """Whether carried samples repeat training images."""
    found = []
    for variant in carried_variants(evidence):
        trainings = [variant_training(evidence.plan, variant, seed) for seed in evidence.plan.variant_seeds]
        source, label = density_of(evidence.plan, variant)
        ask = Ask(kind="memorisation", source=source, mixture=label)
        path = ("pixel_distance", "chance_nearer", "value")
        chance = evidence.number(trainings, ask, *path, error="standard_error")
        if chance is not None:
            found.append(
                f"A carried sample is nearer to a training image than a carried reconstruction of a new image is with "
                f"chance {chance.text(2)}; 0.5 is no difference, and more would tell of samples that repeat training "
                "images."
            )
    return found


def beyond(evidence: Evidence, kept: KeptPictures) -> Exhibit:
    """The table of variants."""
    plan = evidence.plan
    trainings = [method_training(plan, REFERENCE, seed) for seed in plan.variant_seeds]
    label = plan.measure.mixture.label
    rows: list[tuple[str, ...]] = []
    for weights in weights_of(two_stages(trainings[0])):
        distance = evidence.distance(trainings, Ask(kind="fid", source="q_hat", mixture=label, weights=weights))
        nats = evidence.likelihood(trainings, Ask(kind="likelihood", mixture=label, weights=weights), "iwae_q_hat")
        rows.append((f"{REFERENCE}: the reference", _STAGES[weights], text_of(distance, 1), "", "", text_of(nats, 1)))
    for variant in plan.variants:
        rows += _rows(evidence, variant)
    pictures = []
    for variant in carried_variants(evidence):
        caption = "Upper rows: mean images of samples from q̂, not chosen by eye. Lower rows: the same, carried."
        pictures += kept.of(variant_training(plan, variant, plan.variant_seeds[0]), "transported", caption)
    ask = Ask(kind="fid", source="q_hat", mixture=label)
    likelihood = Ask(kind="likelihood", mixture=label)
    return Exhibit(
        key="beyond",
        title=f"Beyond the paper: what helps, {paper.DATASETS[plan.dataset]}",
        text=[
            "Each row changes one thing of the reference method; differences are taken seed by seed. A variant without "
            "a second stage is held against the reference's end of stage 1.",
            *_carried_text(evidence),
            *distance_protocol(evidence.results(trainings, ask)),
            *likelihood_protocol(evidence.results(trainings, likelihood)),
        ],
        shared=[*training_protocol(evidence), READING],
        tables=[
            Table(
                head=("variant", "weights", "distance, samples", "against the reference", "so it", "IWAE, q̂, nats"),
                rows=rows,
            )
        ],
        pictures=pictures,
    )


def _rows(evidence: Evidence, variant: Variant) -> list[tuple[str, ...]]:
    plan = evidence.plan
    trainings = [variant_training(plan, variant, seed) for seed in plan.variant_seeds]
    source, label = density_of(plan, variant)
    two = two_stages(trainings[0])
    rows: list[tuple[str, ...]] = []
    for weights in weights_of(two):
        ours = evidence.distance(trainings, Ask(kind="fid", source=source, mixture=label, weights=weights))
        reference = reference_distances(evidence, compared_with(weights, two))
        difference = evidence.difference(variant_distances(evidence, variant, weights), reference)
        nats = evidence.likelihood(
            trainings, Ask(kind="likelihood", mixture=label, weights=weights), "iwae_q_hat" if label else "iwae_prior"
        )
        change = "not measured" if difference is None else difference.text(1)
        title = f"{variant.name}: {variant.meaning}"
        # Another way from latents to images leaves the likelihood of the model as it is.
        shown = "" if source == "transported" else text_of(nats, 1) if label else "not measured"
        rows.append((title, _STAGES[weights], text_of(ours, 1), change, judgement(difference), shown))
    return rows
