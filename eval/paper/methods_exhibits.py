"""Tables 2 and 3 and figure 2a: five methods on the same networks with the same budget."""

import math
from collections.abc import Iterator

from data_shards.io.tables import Table
from eval import printed_results as paper
from eval.paper.asks import Ask, weights_of
from eval.paper.charts import bars
from eval.paper.evidence import READING, Evidence, Number, text_of
from eval.paper.exhibits import Exhibit
from eval.paper.jobs import Training, method_training, two_stages
from eval.paper.plan import REFERENCE
from eval.paper.protocols import distance_protocol, likelihood_protocol, training_protocol
from eval.report.document import Picture

_PAPER_FIELDS = {"VAE": "vae", "beta-VAE": "beta_vae", "DIP-VAE": "dip_vae"}


def trainings_of(evidence: Evidence, method: str) -> list[Training]:
    """A method's trainings, one a seed."""
    return [method_training(evidence.plan, method, seed) for seed in evidence.plan.seeds]


def rows_of(evidence: Evidence) -> Iterator[tuple[str, str, str, list[Training]]]:
    """(title, method, weights, trainings) of each row: the reference method has one for each of its stages."""
    for method in evidence.plan.methods:
        trainings = trainings_of(evidence, method)
        for weights in weights_of(two_stages(trainings[0])):
            title = method
            if method == REFERENCE:
                title = f"{method}, one variance (end of stage 1)" if weights == "stage1" else f"{method}, per pixel"
            yield title, method, weights, trainings


def sample_distance(evidence: Evidence, method: str, weights: str, source: str = "q_hat") -> Number | None:
    """The distance of a method's samples."""
    label = evidence.plan.measure.mixture.label if source == "q_hat" else ""
    return evidence.distance(
        trainings_of(evidence, method), Ask(kind="fid", source=source, mixture=label, weights=weights)
    )


def table2(evidence: Evidence) -> Exhibit:
    """Distances of samples by method, beside the paper's FID."""
    plan = evidence.plan
    printed = dict(zip(paper.METHODS, paper.FID[plan.dataset], strict=True))
    label = plan.measure.mixture.label
    rows = []
    for title, method, weights, trainings in rows_of(evidence):
        first = trainings[:1]
        cells = [
            text_of(sample_distance(evidence, method, weights), 1),
            text_of(sample_distance(evidence, method, weights, "prior"), 1),
            text_of(evidence.distance(first, Ask(kind="fid", source="reconstruction", weights=weights)), 1),
        ]
        rows.append((title, *cells, f"{printed[method]}" if method in printed else ""))
    first = trainings_of(evidence, REFERENCE)[:1]
    for source, title in (
        ("train", "real training images"),
        ("half", "half of the real test images, against the rest"),
    ):
        number = evidence.distance(first, Ask(kind="fid", source=source))
        rows.append((title, text_of(number, 1), "", "", f"{printed['real images']}" if source == "train" else ""))
    asks = [
        Ask(kind="fid", source=source, mixture=label if source == "q_hat" else "", weights="final")
        for source in ("q_hat", "half")
    ]
    measured = [found for ask in asks for found in evidence.results(first, ask)]
    remarks = [paper.REMARKS["protocol"], paper.REMARKS["two_scores"]]
    return Exhibit(
        key="table2",
        title=f"Table 2: how far samples are from real images, {paper.DATASETS[plan.dataset]}",
        text=distance_protocol(measured),
        shared=[*training_protocol(evidence), READING],
        tables=[
            Table(
                head=("method", "samples from q̂", "samples from the prior", "reconstructions", "paper, FID (q̂)"),
                rows=rows,
            )
        ],
        remarks=[*remarks, paper.REMARKS["components"]] if plan.dataset == "celeba" else remarks,
    )


def table3(evidence: Evidence) -> Exhibit:
    """Importance-weighted likelihoods under both densities, with the largest value possible."""
    plan = evidence.plan
    printed = paper.LOG_LIKELIHOOD.get(plan.dataset, {})
    label = plan.measure.mixture.label
    rows, measured = [], []
    for title, method, weights, trainings in rows_of(evidence):
        if method == "WAE":
            continue  # its encoder is trained without the bound
        ask = Ask(kind="likelihood", mixture=label, weights=weights)
        measured += evidence.results(trainings, ask)
        field = _PAPER_FIELDS.get(method) or ("one_variance" if weights == "stage1" else "per_pixel")
        theirs = [f"{getattr(printed[name], field):,}" if printed else "" for name in ("prior", "q_hat")]
        rows.append(
            (
                title,
                text_of(evidence.likelihood(trainings, ask, "iwae_prior"), 1),
                theirs[0],
                text_of(evidence.likelihood(trainings, ask, "iwae_q_hat"), 1),
                theirs[1],
                text_of(evidence.number(trainings, ask, "cap"), 0),
                text_of(evidence.number(trainings, ask, "dataset_variance"), 5),
                text_of(evidence.likelihood(trainings, ask, "mean_square_error"), 5),
                text_of(evidence.likelihood(trainings, ask, "bits_per_dimension_q_hat"), 3),
            )
        )
    head = (
        "method",
        "IWAE, prior",
        "paper",
        "IWAE, q̂",
        "paper",
        "largest possible (cap)",
        "sigma²",
        "square error a pixel",
        "bits per dimension",
    )
    text = likelihood_protocol(measured)
    if measured:
        pixels = math.prod(measured[0]["protocol"]["image_shape"])
        text.append(
            f"Nats per image. The cap is -d/2 log(2 pi f) for the smallest variance f that the weights allow; no "
            f"8-bit images of d = {pixels} pixels can carry more than d log 256 = {pixels * math.log(256):,.0f} nats."
        )
    remarks = [paper.REMARKS["cap"], paper.REMARKS["one_variance"], paper.REMARKS["scale"]]
    return Exhibit(
        key="table3",
        title=f"Table 3: importance-weighted log-likelihood, {paper.DATASETS[plan.dataset]}",
        text=text,
        shared=[*training_protocol(evidence), READING],
        tables=[Table(head=head, rows=rows)],
        remarks=remarks if printed else remarks[2:],
    )


def distance_bars(evidence: Evidence) -> Picture | None:
    """Figure 2a: distances from q_hat and from the prior, by method; None where nothing was measured."""
    groups = {
        _short(title): {
            "from q̂": sample_distance(evidence, method, weights),
            "from the prior": sample_distance(evidence, method, weights, "prior"),
        }
        for title, method, weights, _ in rows_of(evidence)
    }
    if not any(number for group in groups.values() for number in group.values()):
        return None
    return Picture(
        name="figure2a",
        caption="Distance of samples from q̂ and from the prior to real images, by method; lower is better.",
        data=bars(groups, axis="Frechet distance"),
    )


def _short(title: str) -> str:
    return title.replace(", ", ",\n").replace(" (end of stage 1)", "")
