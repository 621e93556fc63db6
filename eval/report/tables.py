"""The tables of the report: our numbers with their errors, and the paper's beside them."""

from collections.abc import Sequence

from data_shards.io.tables import Table, plus_minus
from eval.distance.measures import FRECHET, numbers_of
from eval.images.densities import SOURCES
from eval.report import printed_results
from eval.results import (
    CompletionResult,
    DistanceResult,
    LikelihoodResult,
    Measured,
    MemorisationResult,
    UncertaintyResult,
    VarianceResult,
)

Result = DistanceResult | VarianceResult


# The columns of the paper's Table 3 that a method's results stand beside.
_PAPER_COLUMNS = {
    "sigma_vae": (("one_variance", "paper, one variance"), ("per_pixel", "paper, per pixel")),
    "vae": (("vae", "paper, VAE"),),
    "beta_vae": (("beta_vae", "paper, beta-VAE"),),
    "dip_vae_i": (("dip_vae", "paper, DIP-VAE"),),
    "dip_vae_ii": (("dip_vae", "paper, DIP-VAE"),),
}
_PAPER_METHOD = {"sigma_vae": "ours", "vae": "VAE", "beta_vae": "beta-VAE", "wae_mmd": "WAE"} | {
    name: "DIP-VAE" for name in ("dip_vae_i", "dip_vae_ii")
}

# name in RUN/eval/likelihood.json: (title, decimals)
_LIKELIHOOD_ROWS = {
    "annealed_q_hat": ("Annealed, latents from q̂", 1),
    "annealed_prior": ("Annealed, latents from the prior", 1),
    "iwae_q_hat": ("Importance-weighted, latents from q̂", 1),
    "iwae_prior": ("Importance-weighted, latents from the prior", 1),
    "elbo": ("ELBO", 1),
    "bits_per_dimension_q_hat": ("Bits per dimension, latents from q̂", 3),
    "bits_per_dimension_prior": ("Bits per dimension, latents from the prior", 3),
    "log_likelihood": ("E[log p(x|z)]", 1),
    "kl": ("KL[q(z|x) || p(z)]", 2),
    "mean_square_error": ("Mean square error a pixel", 5),
    "effective_samples_q_hat": ("Effective importance samples, latents from q̂", 2),
    "effective_samples_prior": ("Effective importance samples, latents from the prior", 2),
    "acceptance_q_hat": ("Accepted part of annealed trajectories, latents from q̂", 2),
    "acceptance_prior": ("Accepted part of annealed trajectories, latents from the prior", 2),
    "held_out_log_ratio": ("E[log q̂(z) - log p(z)] on these images", 2),
}


def with_error(number: Measured, decimals: int) -> str:
    """A value and its standard error as text."""
    text = f"{number.value:,.{decimals}f}"
    if number.standard_error is None:
        return text
    return plus_minus(text, f"{number.standard_error:.{max(decimals, 1)}f}")


def column_title(result: LikelihoodResult | UncertaintyResult) -> str:
    """What a likelihood's column is called."""
    variance = "one variance" if result.protocol.variance == "one" else "variance per pixel"
    protocol = result.protocol
    noise = {"correlated": ", correlated", "correlated-component": ", correlated by component"}.get(protocol.noise, "")
    floor = ", no floor" if protocol.floor == "none" else ""
    annealed = f", annealed, {protocol.n:,} images" if getattr(protocol, "annealing", None) else ""
    return f"{variance}{noise}{floor}{annealed} ({weights_title(result)})"


def likelihood_table(results: Sequence[LikelihoodResult], dataset: str | None, objective: str) -> Table:
    """Likelihoods of the weights measured so far, a column each, with the paper's row of Table 3 beside them."""
    printed = printed_results.LOG_LIKELIHOOD.get(dataset or "", {})
    columns = _PAPER_COLUMNS.get(objective, ()) if printed else ()
    rows: list[tuple[str, ...]] = []
    for name, (title, decimals) in _LIKELIHOOD_ROWS.items():
        if not any(name in result.values for result in results):
            continue
        ours = [with_error(r.values[name], decimals) if name in r.values else "" for r in results]
        density = name.removeprefix("iwae_")
        theirs = [f"{getattr(printed[density], field):,}" if density in printed else "" for field, _ in columns]
        rows.append((title, *ours, *theirs))
    blank = [""] * len(columns)
    rows += [
        ("Largest log p(x|z) possible (cap)", *(f"{r.cap:,.1f}" for r in results), *blank),
        ("Smallest variance possible", *(f"{r.protocol.variance_floor:.6f}" for r in results), *blank),
        ("sigma² of the data set", *(f"{r.dataset_variance:.6f}" for r in results), *blank),
        ("Active latent dimensions", *(str(r.active_dimensions) for r in results), *blank),
    ]
    if any(r.latent_kl for r in results):
        divergences = [
            plus_minus(f"{kl.value:.3f}", f"{kl.standard_deviation:.3f}") if (kl := r.latent_kl) else ""
            for r in results
        ]
        rows.append(("KL(q̂ || p), deviation over runs", *divergences, *blank))
    head = ("", *(column_title(r) for r in results), *(title for _, title in columns))
    return Table(head=head, rows=rows, caption="Likelihood: nats per image unless said otherwise")


def distance_table(results: Sequence[DistanceResult]) -> Table:
    """Distances of image sets from real ones, a row each."""
    (frechet,) = FRECHET.numbers
    rows = []
    for result in results:
        protocol = result.protocol
        number = with_error(result.values[frechet.name], frechet.decimals) + ("*" if result.below_protocol else "")
        real = f"{protocol.n_reference:,} of {protocol.split}"
        rows.append((image_set(result), weights_title(result), number, f"{protocol.n:,}", real, result.label))
    head = ("Images", "Weights", "Distance ↓", "Number", "Real images", "Measured as")
    return Table(head=head, rows=rows, caption="Distances from real images: ↓ less is better")


def further_measures_table(results: Sequence[DistanceResult]) -> Table | None:
    """Whatever else was measured of the same sets, a column each; None where nothing was."""
    shown = [number for number in numbers_of() if any(number.name in result.values for result in results)]
    rows = []
    for result in results:
        cells = [further_value(result.values.get(number.name), number.decimals) for number in shown]
        if any(cells):
            rows.append((image_set(result), weights_title(result), result.protocol.extractor["name"], *cells))
    head = ("Images", "Weights", "Features", *(number.column for number in shown))
    caption = "Further measures of the same images: ↓ less is better, ↑ more is better"
    return Table(head=head, rows=rows, caption=caption) if rows else None


def further_value(number: Measured | None, decimals: int) -> str:
    """A value with its error, or with its 95 % interval where it has one; empty where it was not measured."""
    if number is None:
        return ""
    if number.interval_95 is None:
        return with_error(number, decimals)
    low, high = number.interval_95
    return f"{number.value:,.{decimals}f} ({low:,.{decimals}f} to {high:,.{decimals}f})"


def image_set(result: DistanceResult) -> str:
    """Which images were compared, and the mixture that they are of."""
    protocol = result.protocol
    density = f", mixture {protocol.mixture}" if protocol.mixture else ""
    title = SOURCES[protocol.source].title if protocol.source in SOURCES else protocol.source
    return title + density


def weights_title(result: Result) -> str:
    """Which weights were measured."""
    return {"stage1": "end of stage 1", "best": "best on held-out images"}.get(result.protocol.weights, "final")


def paper_distance_table(dataset: str, objective: str) -> Table:
    """The paper's Table 2 for one data set; the method that this run trained is marked."""
    method = _PAPER_METHOD.get(objective)
    names = [f"{name} (this method)" if name == method else name for name in printed_results.METHODS]
    values = tuple(f"{value}" for value in printed_results.FID[dataset])
    title = printed_results.DATASETS[dataset]
    caption = f"The paper's FID on {title}, which cannot be compared in size with another extractor's distance"
    return Table(head=(f"Paper, FID, {title}", *names), rows=[("Table 2", *values)], caption=caption)


def paper_components_table() -> Table:
    """The paper's Table 4."""
    head = ("Paper, FID, CelebA, components", *(f"{count:,}" for count in printed_results.FID_OF_COMPONENTS))
    rows = [("Table 4", *(f"{value}" for value in printed_results.FID_OF_COMPONENTS.values()))]
    return Table(head=head, rows=rows, caption="The paper's FID by the number of components, CelebA")


def paper_divergence_table() -> Table:
    """The paper's Table 1."""
    head = (
        "Paper, KL(q̂ || p), MNIST, 2 latents, sigma² =",
        *(f"{variance:g}" for variance in printed_results.LATENT_KL),
    )
    cells = (plus_minus(f"{mean}", f"{deviation}") for mean, deviation in printed_results.LATENT_KL.values())
    return Table(head=head, rows=[("Table 1", *cells)], caption="The paper's divergence of q̂ from the prior, MNIST")


def uncertainty_table(results: Sequence[UncertaintyResult]) -> Table:
    """Calibration and sharpness in numbers, a column for each set of weights."""

    def row(title: str, cells: list[str]) -> tuple[str, ...]:
        return (title, *cells)

    rows = []
    for place, point in enumerate(results[0].coverage):
        title = f"Pixels inside the {point.level:.0%} interval"
        rows.append(row(title, [f"{r.coverage[place].value:.1%}" for r in results]))
        halves = [f"{r.upper_half.coverage[place].value:.1%}" if r.upper_half else "" for r in results]
        if any(halves):
            rows.append(row("… of the more uncertain half of the pixels", halves))
    residuals = [r.residuals for r in results]
    rows += [
        row("Standardised residuals: mean (0 is calibrated)", [f"{r.mean:.3f}" for r in residuals]),
        row("Standardised residuals: deviation (1 is calibrated)", [f"{r.standard_deviation:.3f}" for r in residuals]),
        row(
            "Correlation of variance and squared error",
            [f"{r.correlation_of_variance_and_square_error:.3f}" for r in results],
        ),
        row("Rank correlation over pixels", [f"{r.rank_correlation_over_pixels:.3f}" for r in results]),
        row("Rank correlation over images", [f"{r.rank_correlation_over_images:.3f}" for r in results]),
        row(
            "Sparsification area (0 is a perfect order; by chance)",
            [f"{(s := r.sparsification).area:.3f} ({s.area_of_chance:.3f})" for r in results],
        ),
        row("Gain over the best single variance, nats per image", [f"{r.log_likelihood_gain:z.1f}" for r in results]),
    ]
    head = ("", *(column_title(r) for r in results))
    return Table(head=head, rows=rows, caption="Calibration and sharpness of the predicted variance")


def completion_table(results: Sequence[CompletionResult]) -> Table:
    """How well each method predicts hidden pixels."""
    methods = [(result, name, method) for result in results for name, method in result.methods.items()]
    rows = [
        (
            result.protocol.hide,
            weights_title(result),
            name,
            with_error(method.mean_square_error, 5),
            *(f"{point.value:.1%}" for point in method.coverage),
            f"{method.effective_samples.value:.1f}",
        )
        for result, name, method in methods
    ]
    levels = (f"in the {point.level:.0%} interval" for point in methods[0][2].coverage)
    head = ("Hidden", "Weights", "Predicted by", "Mean square error", *levels, "Effective latents")
    return Table(head=head, rows=rows, caption="Hidden pixels, predicted from the visible ones")


def memorisation_table(result: MemorisationResult) -> Table:
    """How near samples and new images are to what was trained on."""
    rows = []
    for found, title in ((result.pixel_distance, "pixels, Euclidean"), (result.code_distance, "latents, Euclidean")):
        chance = found.chance_nearer
        nearer = plus_minus(f"{chance.value:.0%}", f"{chance.standard_error:.0%}")
        rows.append((title, f"{found.samples.median:.2f}", f"{found.held_out.median:.2f}", nearer))
    head = ("Distance to the nearest", "samples, median", "held out, median", "chance that the sample is nearer")
    caption = "How far samples, and reconstructions of new images, are from the nearest training image"
    return Table(head=head, rows=rows, caption=caption)


def region_table(result: UncertaintyResult) -> Table:
    """How many means over regions lie inside their intervals, by each kind of interval that was measured."""
    rows = []
    for region in result.regions:
        kinds = [points for points in (region.independent, region.correlated, region.calibrated) if points]
        name = f"{region.side} x {region.side} pixels" if region.side else "whole images"
        values = [{point.level: f"{point.value:.1%}" for point in points} for points in kinds]
        held = (" / ".join(of_kind.get(point.level, "-") for of_kind in values) for point in region.independent)
        rows.append((name, *held))
    levels = [f"{point.level:.0%}" for point in result.regions[0].independent]
    caption = "Means over regions inside their intervals: independent pixels / correlated pixels"
    if result.regions[0].calibrated:
        caption += f" / calibrated on split {result.protocol.calibration}"
    return Table(head=("Means over", *levels), rows=rows, caption=caption)
