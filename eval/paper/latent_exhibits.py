"""Table 1 and figure 1: what a variance does to the likelihood, to samples, and to the distance from the prior."""

from collections.abc import Sequence

from data_shards.io.tables import Table, plus_minus
from eval import printed_results as paper
from eval.paper.asks import Ask
from eval.paper.charts import line_panels
from eval.paper.evidence import READING, Evidence, Number, text_of
from eval.paper.exhibits import Exhibit
from eval.paper.jobs import Training, plane_training, sweep_training
from eval.paper.kept_pictures import KeptPictures
from eval.paper.plan import LEARNED, Variance
from eval.paper.protocols import distance_protocol, likelihood_protocol, training_protocol
from eval.report.document import Picture


def likelihood_ask(evidence: Evidence) -> Ask:
    """The likelihood of the final weights, with q_hat and its divergence from the prior."""
    return Ask(kind="likelihood", mixture=evidence.plan.measure.mixture.label)


def sweep_trainings(evidence: Evidence, variance: Variance) -> list[Training]:
    """Figure 1's trainings with one variance, one a seed."""
    return [sweep_training(evidence.plan, variance, seed) for seed in evidence.plan.sweep.seeds]


def plane_trainings(evidence: Evidence, variance: Variance) -> list[Training]:
    """Table 1's trainings with one variance, one a seed."""
    return [plane_training(evidence.plan, variance, seed) for seed in evidence.plan.plane.seeds]


def divergence(evidence: Evidence, trainings: Sequence[Training]) -> Number | None:
    """KL(q_hat || p), with its deviation over Monte Carlo runs where there is one training."""
    return evidence.number(trainings, likelihood_ask(evidence), "latent_kl", "value", error="standard_deviation")


def variance_value(evidence: Evidence, trainings: Sequence[Training], variance: Variance) -> float | None:
    """sigma^2 of trainings: as fixed, or the mean of what was learned."""
    if variance != LEARNED:
        return float(variance)
    number = evidence.number(trainings, likelihood_ask(evidence), "dataset_variance")
    return None if number is None else number.value


def _title(variance: Variance, value: float | None) -> str:
    if variance != LEARNED:
        return f"{variance:g}"
    return "learned" if value is None else f"{value:.4g} (learned)"


def table1(evidence: Evidence, kept: KeptPictures) -> Exhibit:
    """KL(q_hat || p) for two latents, with the densities."""
    plan = evidence.plan
    rows, measured, pictures = [], [], []
    for variance in plan.plane.variances:
        trainings = plane_trainings(evidence, variance)
        measured += evidence.results(trainings, likelihood_ask(evidence))
        value = variance_value(evidence, trainings, variance)
        theirs = paper.LATENT_KL.get(paper.LEARNED_VARIANCE if variance == LEARNED else float(variance))
        shown = plus_minus(f"{theirs[0]}", f"{theirs[1]}") if theirs else ""
        if variance == LEARNED and theirs:
            shown += f" at {paper.LEARNED_VARIANCE:g}"
        elbo = evidence.likelihood(trainings, likelihood_ask(evidence), "elbo")
        rows.append((_title(variance, value), text_of(divergence(evidence, trainings), 3), shown, text_of(elbo, 1)))
        for training in trainings:
            title = f"Log-densities over the two latents, sigma² {_title(variance, value)}: {training.name}."
            pictures += kept.of(training, "density", title, pixels=False)
    text = [
        "KL(q̂ || p) by Monte Carlo, 10,000 samples; where there is one training, ± is the deviation over 10 runs, as "
        "in the paper.",
        *likelihood_protocol(measured),
    ]
    if plan.dataset != "mnist":
        text.append(f"The paper's numbers are of MNIST, ours of {paper.DATASETS[plan.dataset]}.")
    fields = ", ".join(f"{name} {value}" for name, value in plan.plane.fields.items())
    return Exhibit(
        key="table1",
        title=f"Table 1: divergence of q̂ from the prior, {paper.DATASETS[plan.dataset]}, {fields}",
        text=text,
        shared=[*training_protocol(evidence), READING],
        tables=[Table(head=("sigma²", "KL(q̂ || p), nats", "paper, MNIST", "ELBO, nats"), rows=rows)],
        pictures=pictures,
    )


def figure1(evidence: Evidence) -> Exhibit:
    """ELBO, distances and divergence over the variance."""
    plan = evidence.plan
    mixture = plan.measure.mixture.label
    q_hat, prior = Ask(kind="fid", source="q_hat", mixture=mixture), Ask(kind="fid", source="prior")
    lines: dict[str, dict[float, Number]] = {name: {} for name in ("ELBO", "from q̂", "from the prior", "KL")}
    rows, measured, star = [], [], None
    for variance in plan.sweep.variances:
        trainings = sweep_trainings(evidence, variance)
        place = variance_value(evidence, trainings, variance)
        numbers = {
            "ELBO": evidence.likelihood(trainings, likelihood_ask(evidence), "elbo"),
            "from q̂": evidence.distance(trainings, q_hat),
            "from the prior": evidence.distance(trainings, prior),
            "KL": divergence(evidence, trainings),
        }
        measured += evidence.results(trainings, q_hat)
        rows.append(
            (place or 0.0, (_title(variance, place), *(text_of(n, 2 if k == "KL" else 1) for k, n in numbers.items())))
        )
        if place is not None:
            star = place if variance == LEARNED else star
            for name, number in numbers.items():
                lines[name] |= {} if number is None else {place: number}
    pictures = []
    if any(lines.values()):
        panels = {
            "(a) ELBO, nats": {"ELBO": lines["ELBO"]},
            "(b) distance of samples": {name: lines[name] for name in ("from q̂", "from the prior")},
            "(c) KL(q̂ || p), nats": {"KL": lines["KL"]},
        }
        data = line_panels(panels, axis="sigma²", star=star, star_title="star: learned" if star else "")
        caption = "ELBO, distance of samples and divergence over sigma²; the star is the learned one."
        pictures.append(Picture(name="figure1", caption=caption, data=data))
    return Exhibit(
        key="figure1",
        title=f"Figure 1: what the variance balances, {paper.DATASETS[plan.dataset]}",
        text=[
            "Every training is of one stage with the whole budget. The paper draws this figure on MNIST and prints no "
            "numbers of it.",
            *distance_protocol(measured),
        ],
        shared=[*training_protocol(evidence), READING],
        tables=[
            Table(
                head=("sigma²", "ELBO, nats", "distance, q̂", "distance, prior", "KL(q̂ || p), nats"),
                rows=[cells for _, cells in sorted(rows, key=lambda row: row[0])],
            )
        ],
        pictures=pictures,
    )
