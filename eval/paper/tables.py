"""The paper's tables and figures, and one table of our own, as rows of what is wanted in each cell."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from data_shards.io.tables import plus_minus
from eval.distance.measures import FURTHER, numbers_of
from eval.paper.evidence import Cell, Change, Chart, Drawing, Exhibit, Mean, Row, Wanted, too_few
from eval.paper.plan import (
    LEARNED,
    REFERENCE,
    Plan,
    Training,
    Variance,
    Variant,
    method_trainings,
    variance_trainings,
    variant_trainings,
)
from eval.paper.record import BEST
from eval.report import printed_results

STAGES = {"stage1": "end of stage 1", "final": "final"}


def row(plan: Plan, trainings: tuple[Training, ...], weights: str = "final", title: str = "", method: str = "") -> Row:
    """Trainings with the plan's own mixture."""
    label = plan.measure.mixture.label
    return Row(trainings=trainings, mixture=label, weights=weights, title=title, method=method)


def reference_row(plan: Plan, weights: str = "final", seeds: Sequence[int] | None = None) -> Row:
    """The reference method's trainings: of all seeds, or of some."""
    trainings = method_trainings(plan, REFERENCE)
    return row(plan, tuple(one for one in trainings if seeds is None or one.seed in seeds), weights)


def wanted(one: Row, *names: str) -> dict[str, Wanted]:
    """Several numbers of a row, by their names."""
    return {name: one.want(name) for name in names}


def method_rows(plan: Plan) -> list[Row]:
    """The rows of tables 2 and 3: the reference method has one for each stage."""
    stages = {"stage1": ", one variance (end of stage 1)", "final": ", per pixel"}
    return [
        row(plan, trainings, weights, method + (stages[weights] if method == REFERENCE else ""), method)
        for method in plan.methods
        for trainings in [method_trainings(plan, method)]
        for weights in trainings[0].weights
    ]


def variance_rows(plan: Plan, part: Literal["plane", "sweep"]) -> list[tuple[Variance, float | Wanted, Row]]:
    """(variance, its place on an axis, trainings) of table 1 or figure 1. The place of a learned one is wanted too."""
    variances, decimals = (plan.plane.variances, 5) if part == "plane" else (plan.sweep.variances, 6)
    found: list[tuple[Variance, float | Wanted, Row]] = []
    for variance in variances:
        one = row(plan, variance_trainings(plan, part, variance))
        learned = one.want("variance", decimals=decimals, form="learned: {}")
        found.append((variance, learned if variance == LEARNED else float(variance), one))
    return found


def table1(plan: Plan) -> Exhibit:
    """KL(q_hat || p) for two latents, with the densities."""
    rows, drawings = [], []
    for variance, place, one in variance_rows(plan, "plane"):
        at = printed_results.LEARNED_VARIANCE if variance == LEARNED else float(variance)
        theirs = printed_results.LATENT_KL.get(at)
        printed = plus_minus(f"{theirs[0]}", f"{theirs[1]}") if theirs else ""
        printed += f" at {at:g}" if variance == LEARNED else ""
        rows.append((place, one.want("KL"), printed, one.want("elbo")))
        caption = f"Log-densities over the two latents, sigma² {variance}:"
        drawings += [Drawing(training=t, name="density", caption=f"{caption} {t.name}.") for t in one.trainings]
    fields = ", ".join(f"{name} {value}" for name, value in plan.plane.fields.items())
    return Exhibit(
        title=f"Table 1: divergence of q̂ from the prior, {fields}",
        text=["KL(q̂ || p) by Monte Carlo, 10,000 samples; for one training ± is over 10 runs, as in print."],
        caption="Divergence of q̂ from the prior by sigma²",
        head=("sigma²", "KL(q̂ || p), nats", "paper, MNIST", "ELBO, nats"),
        rows=rows,
        drawings=drawings,
    )


def figure1(plan: Plan) -> Exhibit:
    """ELBO, distances and divergence over the variance."""
    points = [
        (place, wanted(one, "elbo", "q_hat", "prior") | {"KL": one.want("KL", decimals=2)})
        for _, place, one in variance_rows(plan, "sweep")
    ]
    return Exhibit(
        title="Figure 1: what the variance balances",
        text=["Every training is of one stage with the whole budget. The paper draws this of MNIST, without numbers."],
        caption="ELBO, distances and divergence by sigma²",
        head=("sigma²", "ELBO, nats", "distance, q̂", "distance, prior", "KL(q̂ || p), nats"),
        rows=[(place, *numbers.values()) for place, numbers in points],
        chart=Chart(
            name="figure1",
            caption="ELBO, distance of samples and divergence over sigma²; the star is the learned one.",
            axis="sigma²",
            points=points,
            panels={
                "(a) ELBO, nats": {"ELBO": "elbo"},
                "(b) distance of samples": {"from q̂": "q_hat", "from the prior": "prior"},
                "(c) KL(q̂ || p), nats": {"KL": "KL"},
            },
        ),
    )


def table2(plan: Plan) -> Exhibit:
    """Distances of samples by method, beside the paper's FID."""
    printed = dict(zip(printed_results.METHODS, map(str, printed_results.FID[plan.dataset]), strict=True))
    further = numbers_of({name: FURTHER[name] for name in plan.measure.also})
    rows: list[tuple[Cell, ...]] = []
    for one in method_rows(plan):
        first = replace(one, trainings=one.trainings[:1]).want("reconstruction")
        more = [one.further(number) for number in further]
        rows.append((one.title, one.want("q_hat"), one.want("prior"), first, printed.get(one.method, ""), *more))
    ours, none = reference_row(plan, seeds=plan.seeds[:1]), [""] * len(further)
    rows.append(("real training images", ours.want("train"), "", "", printed["real images"], *none))
    rows.append(("half of the real test images, against the rest", ours.want("half"), "", "", "", *none))
    return Exhibit(
        title="Table 2: how far samples are from real images",
        caption="Frechet distances by method: lower is better",
        head=(
            "method",
            "samples from q̂",
            "samples from the prior",
            "reconstructions",
            "paper, FID (q̂)",
            *(f"{number.column}, samples from q̂" for number in further),
        ),
        rows=rows,
        remarks=("protocol", "two_scores", *(["components"] if plan.dataset == "celeba" else [])),
    )


def figure2(plan: Plan) -> Exhibit:
    """Distances by sampler, and samples of both."""
    caption = "Mean images of {}: z from q̂ in the upper three rows, from the prior in the lower. Not chosen by eye."
    return Exhibit(
        title="Figure 2: samples from q̂ and from the prior",
        text=["The numbers behind the bars are in table 2."],
        chart=Chart(
            name="figure2a",
            caption="Distance of samples from q̂ and from the prior to real images, by method; lower is better.",
            axis="Frechet distance",
            points=[
                (
                    one.title.replace(", ", ",\n").replace(" (end of stage 1)", ""),
                    {"from q̂": one.want("q_hat"), "from the prior": one.want("prior")},
                )
                for one in method_rows(plan)
            ],
        ),
        drawings=[_drawing(plan, "figure2", caption)],
    )


def _drawing(plan: Plan, name: str, caption: str) -> Drawing:
    """A drawing of the reference method's first training, whose name goes into the caption."""
    first = method_trainings(plan, REFERENCE)[0]
    return Drawing(training=first, name=name, caption=caption.format(first.name))


def printed_likelihood(plan: Plan, one: Row, density: str) -> float | None:
    """The paper's table 3 for a row. density: prior or q_hat."""
    field = one.method.lower().replace("-", "_")
    if one.method == REFERENCE:
        field = "one_variance" if one.weights == "stage1" else "per_pixel"
    printed = printed_results.LOG_LIKELIHOOD.get(plan.dataset)
    return getattr(printed[density], field, None) if printed else None


def table3(plan: Plan) -> Exhibit:
    """Importance-weighted likelihoods under both densities, with the largest value possible."""
    rows = []
    for one in method_rows(plan):
        if one.method == "WAE":
            continue  # its encoder is trained without the bound
        cells: list[Cell] = [one.title]
        for density in ("prior", "q_hat"):
            theirs = printed_likelihood(plan, one, density)
            cells += [one.want(f"iwae_{density}"), "" if theirs is None else f"{theirs:,.0f}"]
        rows.append(cells + [one.want(name) for name in ("cap", "variance", "square error", "bits")])
    titles = ("largest possible (cap)", "sigma²", "square error a pixel", "bits per dimension")
    return Exhibit(
        title="Table 3: importance-weighted log-likelihood",
        text=[
            "Nats per image. The cap is -d/2 log(2 pi f) for d pixels and the smallest variance f that the weights "
            "allow; 8-bit images have at most d log 256."
        ],
        caption="Log-likelihoods by method, nats per image",
        head=("method", "IWAE, prior", "paper", "IWAE, q̂", "paper", *titles),
        rows=rows,
        remarks=("cap", "one_variance", "scale") if plan.dataset in printed_results.LOG_LIKELIHOOD else ("scale",),
    )


def component_rows(plan: Plan) -> dict[int, dict[str, Wanted]]:
    """What table 4 has of each mixture of the reference's codes, by its number of components."""
    mixture, found = plan.measure.mixture, {}
    for count in sorted({mixture.components, *plan.components.numbers}):
        label = replace(mixture, components=count).label
        one = replace(reference_row(plan, seeds=plan.components.seeds), mixture=label)
        found[count] = wanted(one, "training codes", "held-out codes", "q_hat", "nearer image", "nearer code")
    return found


def table4(plan: Plan) -> Exhibit:
    """More and more components on the same codes: distances, and whether the mixture repeats its codes."""
    numbers, printed = component_rows(plan), printed_results.FID_OF_COMPONENTS
    titles = ("training codes, nats", "held-out codes, nats", "distance, q̂", "nearer image", "nearer code")
    return Exhibit(
        title="Table 4: more components",
        text=[
            "A mixture that repeats its codes has a lower likelihood of held-out codes than of training codes, and "
            "samples that are nearer to training images (or codes) than new images (or their codes) are: the columns "
            "nearer image and nearer code are the chance of that, 0.5 where it makes no difference.",
        ],
        caption="Mixtures of the same codes by their number of components",
        head=("components", *titles, "paper, FID, CelebA"),
        rows=[(f"{count:,}", *found.values(), f"{printed.get(count, '')}") for count, found in numbers.items()],
        chart=Chart(
            name="table4",
            caption="Distance, likelihood of codes, and chance of being nearer to training data than new images are.",
            axis="components",
            points=[(float(count), found) for count, found in numbers.items()],
            panels={
                "distance of samples": {"distance": "q_hat"},
                "log-likelihood of codes, nats": {name: name for name in ("training codes", "held-out codes")},
                "chance that a sample is nearer": {"images": "nearer image", "codes": "nearer code"},
            },
        ),
        remarks=("components",),
    )


def figure3(plan: Plan) -> Exhibit:
    """Reconstructions with their variance maps, and whether the variance is calibrated."""
    caption = "{}, from the top: test images, reconstructions, |x - g|, predicted sigma of each pixel."
    return Exhibit(
        title="Figure 3: reconstructions and their uncertainty",
        calibration=reference_row(plan, seeds=plan.seeds[:1]).want("calibration"),
        drawings=[_drawing(plan, "figure3", caption)],
    )


def figure4(plan: Plan) -> Exhibit:
    """Samples with their variance maps."""
    caption = "{}: samples from q̂, below each row their predicted sigma of each pixel. Not chosen by eye."
    return Exhibit(title="Figure 4: samples and their uncertainty", drawings=[_drawing(plan, "figure4", caption)])


def beyond(plan: Plan) -> Exhibit:
    """Variants of the reference method, each with one change, at the same budget."""
    references = {weights: reference_row(plan, weights, plan.variant_seeds) for weights in STAGES}
    text: list[str | Wanted] = [
        "Each row changes one thing of the reference method; differences are taken seed by seed. A variant without a "
        "second stage is compared with the reference's end of stage 1."
    ]
    rows: list[tuple[Cell, ...]] = [
        (f"{REFERENCE}: the reference", STAGES[weights], one.want("q_hat"), "", "", one.want("iwae_q_hat"))
        for weights, one in references.items()
    ]
    drawings = []
    for variant in plan.variants:
        trainings = variant_trainings(plan, variant)
        source, label = density_of(plan, variant)
        for weights in trainings[0].weights:
            one = Row(trainings=trainings, mixture=label, weights=weights)
            # One variance is compared with one variance.
            theirs = references[weights if len(trainings[0].weights) > 1 else "stage1"].want("q_hat")
            ours = one.want(source)
            changes = [Change(ours=ours, theirs=theirs, show=show) for show in (_difference, effect)]
            nats: Cell = one.want("iwae_q_hat") if label else "not measured"
            if source == "transported":
                nats = ""  # another way from latents to images leaves the likelihood of the model as it is
                form = (
                    f"{STAGES[weights].capitalize()}: a transported sample is nearer to a training image than a "
                    "transported reconstruction of a new image is with chance {}; 0.5 is no difference, more would "
                    "mean that samples repeat training images."
                )
                text.append(one.want("nearer image", source=source, form=form))
            rows.append((f"{variant.name}: {variant.meaning}", STAGES[weights], ours, *changes, nats))
        if source == "transported":
            caption = "Upper rows: mean images of samples from q̂, not chosen by eye. Lower rows: the same, transported."
            drawings.append(Drawing(training=trainings[0], name=source, caption=caption))
    return Exhibit(
        title="Beyond the paper: what helps",
        text=text,
        caption="Variants of the reference method, beside it",
        head=("variant", "weights", "distance, samples", "against the reference", "verdict", "IWAE, q̂, nats"),
        rows=rows,
        drawings=drawings,
    )


def density_of(plan: Plan, variant: Variant) -> tuple[str, str]:
    """(source of samples, label of the mixture) that a variant is measured with."""
    return {
        "mixture": ("q_hat", replace(plan.measure.mixture, encodings=variant.encodings).label),
        "best_mixture": ("q_hat", BEST),
        "flow": ("flow", ""),
        "transported": ("transported", plan.measure.mixture.label),
    }[variant.density]


def _difference(difference: Mean | None) -> str:
    return "not measured" if difference is None else difference.text(1)


def effect(difference: Mean | None) -> str:
    """Whether a change of the distance helps or harms, by twice its standard error over seeds."""
    if difference is None:
        return "not measured"
    if difference.standard_error is None or too_few(difference.seeds):
        return f"{too_few(difference.seeds)}: no error is known"
    if abs(difference.value) <= 2 * difference.standard_error:
        return "no difference beyond twice its error"
    return "helps" if difference.value < 0 else "harms"


EXHIBITS: Mapping[str, Callable[[Plan], Exhibit]] = {
    make.__name__: make for make in (table1, figure1, table2, figure2, table3, table4, figure3, figure4, beyond)
}
"""By their name on the command line, in the order in which they are read."""


def exhibits(plan: Plan, targets: Sequence[str]) -> dict[str, Exhibit]:
    """Those of EXHIBITS that are among `targets` and in the plan."""
    parts = {"table1": plan.plane.variances, "figure1": plan.sweep.variances, "table4": plan.components.numbers}
    planned = {**parts, "beyond": plan.variants}
    return {key: make(plan) for key, make in EXHIBITS.items() if key in targets and planned.get(key, True)}
