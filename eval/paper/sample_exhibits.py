"""Figures 2, 3, 4 and table 4: samples, how sure the model is of them, and whether they repeat training images."""

from data_shards.io.tables import Table
from eval import printed_results as paper
from eval.paper.asks import Ask
from eval.paper.charts import line_panels
from eval.paper.evidence import READING, Evidence, Number, text_of
from eval.paper.exhibits import Exhibit
from eval.paper.jobs import Training, method_training
from eval.paper.kept_pictures import KeptPictures
from eval.paper.methods_exhibits import distance_bars, trainings_of
from eval.paper.plan import REFERENCE, MixtureForm
from eval.paper.protocols import distance_protocol
from eval.report.document import Picture
from eval.report.sections import verdict
from eval.report.tables import uncertainty_table

_CHOSEN = "Not chosen by eye."


def _first(evidence: Evidence) -> Training:
    return trainings_of(evidence, REFERENCE)[0]


def figure2(evidence: Evidence, kept: KeptPictures) -> Exhibit:
    """Distances by sampler, and samples of both."""
    first = _first(evidence)
    caption = f"Mean images of {first.name}: z from q̂ in the upper three rows, from the prior in the lower. {_CHOSEN}"
    drawn = distance_bars(evidence)
    return Exhibit(
        key="figure2",
        title=f"Figure 2: samples from q̂ and from the prior, {paper.DATASETS[evidence.plan.dataset]}",
        text=["The numbers behind the bars are in table 2."],
        shared=[READING],
        pictures=[*([drawn] if drawn else []), *kept.of(first, "figure2", caption)],
    )


def figure3(evidence: Evidence, kept: KeptPictures) -> Exhibit:
    """Reconstructions with their variance maps, and whether the variance may be trusted."""
    first = _first(evidence)
    caption = f"{first.name}, from the top: test images, reconstructions, |x - g|, predicted sigma of each pixel."
    measured = evidence.results([first], Ask(kind="uncertainty"))
    return Exhibit(
        key="figure3",
        title=f"Figure 3: reconstructions and their uncertainty, {paper.DATASETS[evidence.plan.dataset]}",
        text=[verdict(result) for result in measured],
        tables=[uncertainty_table(measured)] if measured else [],
        pictures=kept.of(first, "figure3", caption),
    )


def figure4(evidence: Evidence, kept: KeptPictures) -> Exhibit:
    """Samples with their variance maps."""
    first = _first(evidence)
    caption = f"{first.name}: samples from q̂, below each row their predicted sigma of each pixel. {_CHOSEN}"
    return Exhibit(
        key="figure4",
        title=f"Figure 4: samples and their uncertainty, {paper.DATASETS[evidence.plan.dataset]}",
        pictures=kept.of(first, "figure4", caption),
    )


def component_trainings(evidence: Evidence) -> list[Training]:
    """Table 4's trainings: the reference method's."""
    return [method_training(evidence.plan, REFERENCE, seed) for seed in evidence.plan.components.seeds]


def component_labels(evidence: Evidence) -> dict[int, str]:
    """Label of each mixture of table 4 by its number of components."""
    mixture = evidence.plan.measure.mixture
    numbers = sorted({mixture.components, *evidence.plan.components.numbers})
    return {number: MixtureForm(components=number, encodings=mixture.encodings).label for number in numbers}


def component_numbers(evidence: Evidence, label: str) -> dict[str, Number | None]:
    """What table 4 holds of one mixture."""
    trainings = component_trainings(evidence)
    fit, near = Ask(kind="mixture", mixture=label), Ask(kind="memorisation", mixture=label)
    chance = ("chance_nearer", "value")
    return {
        "distance": evidence.distance(trainings, Ask(kind="fid", source="q_hat", mixture=label)),
        "train": evidence.number(trainings, fit, "train", "nats", error="standard_error"),
        "held_out": evidence.number(trainings, fit, "held_out", "nats", error="standard_error"),
        "image": evidence.number(trainings, near, "pixel_distance", *chance, error="standard_error"),
        "code": evidence.number(trainings, near, "code_distance", *chance, error="standard_error"),
    }


def table4(evidence: Evidence) -> Exhibit:
    """More and more components on the same codes: distances, and whether the mixture repeats its codes."""
    plan = evidence.plan
    rows, lines = [], {name: dict[float, Number]() for name in ("distance", "train", "held_out", "image", "code")}
    for count, label in component_labels(evidence).items():
        numbers = component_numbers(evidence, label)
        for name, number in numbers.items():
            lines[name] |= {} if number is None else {float(count): number}
        theirs = paper.FID_OF_COMPONENTS.get(count)
        decimals = {"distance": 1, "image": 2, "code": 2}
        cells = [text_of(number, decimals.get(name, 3)) for name, number in numbers.items()]
        rows.append((f"{count:,}", *cells, f"{theirs}" if theirs else ""))
    label = plan.measure.mixture.label
    measured = evidence.results(component_trainings(evidence), Ask(kind="fid", source="q_hat", mixture=label))
    pictures = []
    if any(lines.values()):
        panels = {
            "distance of samples": {"distance": lines["distance"]},
            "log-likelihood of codes, nats": {"training codes": lines["train"], "held-out codes": lines["held_out"]},
            "chance that a sample is nearer": {"images": lines["image"], "codes": lines["code"]},
        }
        caption = "Distance, likelihood of codes, and the chance of being nearer to training data than new images are."
        pictures.append(Picture(name="table4", caption=caption, data=line_panels(panels, axis="components")))
    return Exhibit(
        key="table4",
        title=f"Table 4: more components, {paper.DATASETS[plan.dataset]}",
        text=[
            "A mixture that repeats its codes has a likelihood of held-out codes below that of training codes, and "
            "samples that are nearer to training images (or codes) than new images (or their codes) are: the last "
            "columns give the chance of that, 0.5 where it makes no difference.",
            *distance_protocol(measured),
        ],
        shared=[READING],
        tables=[
            Table(
                head=(
                    "components",
                    "distance, q̂",
                    "training codes, nats",
                    "held-out codes, nats",
                    "nearer image",
                    "nearer code",
                    "paper, FID, CelebA",
                ),
                rows=rows,
            )
        ],
        pictures=pictures,
        remarks=[paper.REMARKS["components"]],
    )
