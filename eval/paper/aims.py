"""What was to be shown beside the paper: a likelihood, and the distance against another library's autoencoders."""

from collections.abc import Iterator

from eval.paper.asks import Ask
from eval.paper.beyond import carried_variants, variant_distances
from eval.paper.claims import AGREES, DISAGREES, Finding
from eval.paper.evidence import Evidence, Number, mean_of
from eval.paper.methods_exhibits import sample_distance, trainings_of
from eval.paper.peers import PEER_MODELS, peer_results
from eval.paper.plan import REFERENCE


def aims(evidence: Evidence) -> Iterator[Finding]:
    """The plan's aims on which something was measured."""
    aimed = evidence.plan.aims
    label = evidence.plan.measure.mixture.label
    ask = Ask(kind="likelihood", mixture=label, weights="stage1")
    nats = evidence.likelihood(trainings_of(evidence, REFERENCE), ask, "iwae_q_hat")
    if aimed.one_variance_nats is not None and nats is not None:
        yield Finding(
            claim=f"Our aim: one variance reaches {aimed.one_variance_nats:g} nats",
            verdict=AGREES if nats.value >= aimed.one_variance_nats else DISAGREES,
            because=nats.text(1),
        )
    for model, most in aimed.distance_of_peers.items():
        peers = peer_results(evidence.records, model)
        if not peers:
            continue
        components, theirs = _best(peers)
        carried = peer_results(evidence.records, model, carried=True)
        for title, ours, moved in _samples(evidence):
            beside = ""
            if moved and carried:
                also = _best(carried)[1]
                beside = f"; its own, carried, have {also.text(1)}: {ours.value / also.value:.2f} times"
            yield Finding(
                claim=f"Our aim: {title}, at most {most:g} times the distance of pythae's {PEER_MODELS[model]}",
                verdict=AGREES if ours.value <= most * theirs.value else DISAGREES,
                because=f"{ours.text(1)} against {theirs.text(1)} with its sampler of {components} components, the "
                f"best of {', '.join(map(str, sorted(peers)))}: {ours.value / theirs.value:.2f} times{beside}",
            )


def _best(peers: dict[int, list[float]]) -> tuple[int, Number]:
    """The number of components with the smallest distance, and that distance."""
    best = min(peers, key=lambda components: _mean(peers[components]).value)
    return best, _mean(peers[best])


def _samples(evidence: Evidence) -> Iterator[tuple[str, Number, bool]]:
    """What our samples are called, their distance, and whether they are carried, for each kind that was measured."""
    for weights, title in (("stage1", "one variance"), ("final", "per pixel")):
        ours = sample_distance(evidence, REFERENCE, weights)
        if ours is not None:
            yield title, ours, False
        for variant in carried_variants(evidence):
            carried = mean_of(list(variant_distances(evidence, variant, weights).values()))
            if carried is not None:
                yield f"{title}, {variant.name}", carried, True


def _mean(values: list[float]) -> Number:
    number = mean_of(values)
    assert number is not None
    return number
