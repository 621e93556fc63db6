"""The paper's tables and figures, and one table of our own, as rows of what is wanted in each cell."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from data_shards.io.tables import plus_minus
from eval import printed_results
from eval.paper.evidence import Number
from eval.paper.plan import LEARNED, REFERENCE, MixtureForm, Plan, Variance, Variant
from eval.paper.trainings import Training, method_trainings, plane_trainings, sweep_trainings, variant_trainings
from eval.paper.wanted import BEST, Cell, Change, Chart, Drawing, Exhibit, Row, Wanted


def row(plan: Plan, trainings: tuple[Training, ...], weights: str = "final", title: str = "", method: str = "") -> Row:
    """Trainings with the plan's own mixture."""
    label = plan.measure.mixture.label
    return Row(trainings=trainings, mixture=label, weights=weights, title=title, method=method)


def reference_row(plan: Plan, weights: str = "final", seeds: Sequence[int] | None = None) -> Row:
    """The reference method's trainings: of all seeds, or of some."""
    trainings = method_trainings(plan, REFERENCE)
    return row(plan, tuple(one for one in trainings if seeds is None or one.seed in seeds), weights)


def method_rows(plan: Plan) -> list[Row]:
    """The rows of tables 2 and 3: the reference method has one for each stage."""
    stages = {"stage1": ", one variance (end of stage 1)", "final": ", per pixel"}
    return [
        row(plan, trainings, weights, method + (stages[weights] if method == REFERENCE else ""), method)
        for method in plan.methods
        for trainings in [method_trainings(plan, method)]
        for weights in trainings[0].weights
    ]


def variance_rows(plan: Plan, table: str) -> list[tuple[Variance, float | Wanted, Row]]:
    """(variance, its place on an axis, trainings) of the rows of table1 or figure1. A learned one is itself wanted."""
    found: list[tuple[Variance, float | Wanted, Row]] = []
    variances, decimals = (plan.plane.variances, 5) if table == "table1" else (plan.sweep.variances, 6)
    trainings_of = plane_trainings if table == "table1" else sweep_trainings
    for variance in variances:
        one = row(plan, trainings_of(plan, variance))
        learned = one.likelihood("dataset_variance", decimals, "learned: {}")
        found.append((variance, learned if variance == LEARNED else float(variance), one))
    return found


def _place_cell(place: float | Wanted) -> Cell:
    return place if isinstance(place, Wanted) else f"{place:g}"


def table1(plan: Plan) -> Exhibit:
    """KL(q_hat || p) for two latents, with the densities."""
    rows, drawings = [], []
    for variance, place, one in variance_rows(plan, "table1"):
        at = printed_results.LEARNED_VARIANCE if variance == LEARNED else float(variance)
        theirs = printed_results.LATENT_KL.get(at)
        printed = plus_minus(f"{theirs[0]}", f"{theirs[1]}") if theirs else ""
        printed += f" at {at:g}" if variance == LEARNED else ""
        rows.append((_place_cell(place), one.divergence(), printed, one.likelihood("elbo")))
        for training in one.trainings:
            caption = f"Log-densities over the two latents, sigma² {variance}: {training.name}."
            drawings.append(Drawing(training=training, name="density", caption=caption))
    fields = ", ".join(f"{name} {value}" for name, value in plan.plane.fields.items())
    return Exhibit(
        title=f"Table 1: divergence of q̂ from the prior, {fields}",
        text=["KL(q̂ || p) by Monte Carlo, 10,000 samples; for one training ± is over 10 runs, as in print."],
        head=("sigma²", "KL(q̂ || p), nats", "paper, MNIST", "ELBO, nats"),
        rows=rows,
        drawings=drawings,
    )


FIGURE1: Mapping[str, Callable[[Row], Wanted]] = {
    "ELBO": lambda one: one.likelihood("elbo"),
    "from q̂": lambda one: one.distance(),
    "from the prior": lambda one: one.distance("prior"),
    "KL": lambda one: one.divergence(decimals=2),
}
"""The columns of figure 1's numbers."""


def figure1(plan: Plan) -> Exhibit:
    """ELBO, distances and divergence over the variance."""
    rows = variance_rows(plan, "figure1")
    lines = {name: [(place, wanted(one)) for _, place, one in rows] for name, wanted in FIGURE1.items()}
    panels = {
        "(a) ELBO, nats": ("ELBO",),
        "(b) distance of samples": ("from q̂", "from the prior"),
        "(c) KL(q̂ || p), nats": ("KL",),
    }
    return Exhibit(
        title="Figure 1: what the variance balances",
        text=["Every training is of one stage with the whole budget. The paper draws this of MNIST, without numbers."],
        head=("sigma²", "ELBO, nats", "distance, q̂", "distance, prior", "KL(q̂ || p), nats"),
        rows=[(_place_cell(place), *(wanted(one) for wanted in FIGURE1.values())) for _, place, one in rows],
        chart=Chart(
            name="figure1",
            caption="ELBO, distance of samples and divergence over sigma²; the star is the learned one.",
            axis="sigma²",
            lines={title: {name: lines[name] for name in names} for title, names in panels.items()},
        ),
    )


def table2(plan: Plan) -> Exhibit:
    """Distances of samples by method, beside the paper's FID."""
    printed = dict(zip(printed_results.METHODS, map(str, printed_results.FID[plan.dataset]), strict=True))
    rows: list[tuple[Cell, ...]] = []
    for one in method_rows(plan):
        reconstructions = replace(one, trainings=one.trainings[:1]).distance("reconstruction")
        samples = (one.distance(), one.distance("prior"))
        rows.append((one.title, *samples, reconstructions, printed.get(one.method, "")))
    first = reference_row(plan, seeds=plan.seeds[:1])
    rows.append(("real training images", first.distance("train"), "", "", printed["real images"]))
    rows.append(("half of the real test images, against the rest", first.distance("half"), "", "", ""))
    return Exhibit(
        title="Table 2: how far samples are from real images",
        head=("method", "samples from q̂", "samples from the prior", "reconstructions", "paper, FID (q̂)"),
        rows=rows,
        remarks=("protocol", "two_scores", *(["components"] if plan.dataset == "celeba" else [])),
    )


def figure2(plan: Plan) -> Exhibit:
    """Distances by sampler, and samples of both."""
    first = method_trainings(plan, REFERENCE)[0]
    caption = f"Mean images of {first.name}: z from q̂ in the upper three rows, from the prior in the lower."
    return Exhibit(
        title="Figure 2: samples from q̂ and from the prior",
        text=["The numbers behind the bars are in table 2."],
        chart=Chart(
            name="figure2a",
            caption="Distance of samples from q̂ and from the prior to real images, by method; lower is better.",
            axis="Frechet distance",
            bars={
                one.title.replace(", ", ",\n").replace(" (end of stage 1)", ""): {
                    "from q̂": one.distance(),
                    "from the prior": one.distance("prior"),
                }
                for one in method_rows(plan)
            },
        ),
        drawings=[Drawing(training=first, name="figure2", caption=f"{caption} Not chosen by eye.")],
    )


def printed_likelihood(plan: Plan, one: Row, density: str) -> float | None:
    """The paper's table 3 for a row. density: prior or q_hat."""
    columns = {"VAE": "vae", "beta-VAE": "beta_vae", "DIP-VAE": "dip_vae"}
    field = columns.get(one.method) or ("one_variance" if one.weights == "stage1" else "per_pixel")
    printed = printed_results.LOG_LIKELIHOOD.get(plan.dataset)
    return float(getattr(printed[density], field)) if printed else None


def table3(plan: Plan) -> Exhibit:
    """Importance-weighted likelihoods under both densities, with the largest value possible."""
    rows = []
    for one in method_rows(plan):
        if one.method == "WAE":
            continue  # its encoder is trained without the bound
        cells: list[Cell] = [one.title]
        for density in ("prior", "q_hat"):
            theirs = printed_likelihood(plan, one, density)
            cells += [one.likelihood(f"iwae_{density}"), "" if theirs is None else f"{theirs:,.0f}"]
        further = {"cap": 0, "dataset_variance": 5, "mean_square_error": 5, "bits_per_dimension_q_hat": 3}
        rows.append(cells + [one.likelihood(name, decimals) for name, decimals in further.items()])
    titles = ("largest possible (cap)", "sigma²", "square error a pixel", "bits per dimension")
    remarks = ("cap", "one_variance", "scale") if plan.dataset in printed_results.LOG_LIKELIHOOD else ("scale",)
    return Exhibit(
        title="Table 3: importance-weighted log-likelihood",
        text=[
            "Nats per image. The cap is -d/2 log(2 pi f) for d pixels and the smallest variance f that the weights "
            "allow; 8-bit images have at most d log 256."
        ],
        head=("method", "IWAE, prior", "paper", "IWAE, q̂", "paper", *titles),
        rows=rows,
        remarks=remarks,
    )


def component_rows(plan: Plan) -> dict[int, dict[str, Wanted]]:
    """What table 4 has of each mixture of the reference's codes, by its number of components."""
    mixture = plan.measure.mixture
    found = {}
    for count in sorted({mixture.components, *plan.components.numbers}):
        label = MixtureForm(components=count, encodings=mixture.encodings).label
        one = replace(reference_row(plan, seeds=plan.components.seeds), mixture=label)
        found[count] = {
            "training codes": one.codes("train"),
            "held-out codes": one.codes("held_out"),
            "distance": one.distance(),
            "images": one.nearer("pixel_distance"),
            "codes": one.nearer("code_distance"),
        }
    return found


def table4(plan: Plan) -> Exhibit:
    """More and more components on the same codes: distances, and whether the mixture repeats its codes."""
    numbers = component_rows(plan)
    printed = {count: f"{value}" for count, value in printed_results.FID_OF_COMPONENTS.items()}
    panels = {
        "distance of samples": ("distance",),
        "log-likelihood of codes, nats": ("training codes", "held-out codes"),
        "chance that a sample is nearer": ("images", "codes"),
    }
    titles = ("training codes, nats", "held-out codes, nats", "distance, q̂", "nearer image", "nearer code")
    return Exhibit(
        title="Table 4: more components",
        text=[
            "A mixture that repeats its codes has a lower likelihood of held-out codes than of training codes, and "
            "samples that are nearer to training images (or codes) than new images (or their codes) are: the columns "
            "nearer image and nearer code are the chance of that, 0.5 where it makes no difference.",
        ],
        head=("components", *titles, "paper, FID, CelebA"),
        rows=[(f"{count:,}", *wanted.values(), printed.get(count, "")) for count, wanted in numbers.items()],
        chart=Chart(
            name="table4",
            caption="Distance, likelihood of codes, and chance of being nearer to training data than new images are.",
            axis="components",
            lines={
                title: {name: [(float(count), one[name]) for count, one in numbers.items()] for name in names}
                for title, names in panels.items()
            },
        ),
        remarks=("components",),
    )


def figure3(plan: Plan) -> Exhibit:
    """Reconstructions with their variance maps, and whether the variance is calibrated."""
    first = reference_row(plan, seeds=plan.seeds[:1])
    name = first.trainings[0].name
    caption = f"{name}, from the top: test images, reconstructions, |x - g|, predicted sigma of each pixel."
    return Exhibit(
        title="Figure 3: reconstructions and their uncertainty",
        calibration=first.calibration(),
        drawings=[Drawing(training=first.trainings[0], name="figure3", caption=caption)],
    )


def figure4(plan: Plan) -> Exhibit:
    """Samples with their variance maps."""
    first = method_trainings(plan, REFERENCE)[0]
    caption = f"{first.name}: samples from q̂, below each row their predicted sigma of each pixel. Not chosen by eye."
    drawing = Drawing(training=first, name="figure4", caption=caption)
    return Exhibit(title="Figure 4: samples and their uncertainty", drawings=[drawing])


def beyond(plan: Plan) -> Exhibit:
    """Variants of the reference method, each with one change, at the same budget."""
    stages = {"stage1": "end of stage 1", "final": "final"}
    references = {weights: reference_row(plan, weights, plan.variant_seeds) for weights in stages}
    text: list[str | Wanted] = [
        "Each row changes one thing of the reference method; differences are taken seed by seed. A variant without a "
        "second stage is compared with the reference's end of stage 1."
    ]
    rows: list[tuple[Cell, ...]] = [
        (f"{REFERENCE}: the reference", stages[weights], one.distance(), "", "", one.likelihood("iwae_q_hat"))
        for weights, one in references.items()
    ]
    drawings = []
    for variant in plan.variants:
        trainings = variant_trainings(plan, variant)
        source, label = density_of(plan, variant)
        for weights in trainings[0].weights:
            one = Row(trainings=trainings, mixture=label, weights=weights)
            # One variance is compared with one variance.
            theirs = references[weights if trainings[0].two_stages else "stage1"].distance()
            ours = one.distance(source)
            changes = [Change(ours=ours, theirs=theirs, show=show) for show in (_difference, effect)]
            nats: Cell = one.likelihood("iwae_q_hat") if label else "not measured"
            if source == "transported":
                nats = ""  # another way from latents to images leaves the likelihood of the model as it is
            rows.append((f"{variant.name}: {variant.meaning}", stages[weights], ours, *changes, nats))
        if source == "transported":
            form = (
                "a transported sample is nearer to a training image than a transported reconstruction of a new image "
                "is with chance {}; 0.5 is no difference, more would mean that samples repeat training images."
            )
            for weights in trainings[0].weights:
                nearer = f"{stages[weights].capitalize()}: {form}"
                text.append(row(plan, trainings, weights).nearer("pixel_distance", source, nearer))
            caption = "Upper rows: mean images of samples from q̂, not chosen by eye. Lower rows: the same, transported."
            drawings.append(Drawing(training=trainings[0], name=source, caption=caption))
    return Exhibit(
        title="Beyond the paper: what helps",
        text=text,
        head=("variant", "weights", "distance, samples", "against the reference", "verdict", "IWAE, q̂, nats"),
        rows=rows,
        drawings=drawings,
    )


def density_of(plan: Plan, variant: Variant) -> tuple[str, str]:
    """(source of samples, label of the mixture) that a variant is measured with."""
    mixture = plan.measure.mixture
    own = MixtureForm(components=mixture.components, encodings=variant.encodings)
    others = {"flow": ("flow", ""), "best_mixture": ("q_hat", BEST), "transported": ("transported", mixture.label)}
    return others.get(variant.density, ("q_hat", own.label))


def _difference(difference: Number | None) -> str:
    return "not measured" if difference is None else difference.text(1)


def effect(difference: Number | None) -> str:
    """Whether a change of the distance helps or harms, by twice its standard error over seeds."""
    if difference is None:
        return "not measured"
    if difference.standard_error is None:
        return "one seed: no error is known"
    if abs(difference.value) <= 2 * difference.standard_error:
        return "no difference beyond twice its error"
    return "helps" if difference.value < 0 else "harms"


EXHIBITS: Mapping[str, Callable[[Plan], Exhibit]] = {
    "table1": table1,
    "figure1": figure1,
    "table2": table2,
    "figure2": figure2,
    "table3": table3,
    "table4": table4,
    "figure3": figure3,
    "figure4": figure4,
    "beyond": beyond,
}
"""By their name on the command line, in the order in which they are read."""


def exhibits(plan: Plan, targets: Sequence[str]) -> dict[str, Exhibit]:
    """Those of EXHIBITS that are among `targets` and in the plan."""
    planned = {
        "table1": plan.plane.variances,
        "figure1": plan.sweep.variances,
        "table4": plan.components.numbers,
        "beyond": plan.variants,
    }
    return {key: make(plan) for key, make in EXHIBITS.items() if key in targets and planned.get(key, True)}
