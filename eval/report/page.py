"""The report of a run: everything that is known of it on one page.

The sections below rest on files of the run: training curves, numbers, calibration, remarks. Those that the model draws
are in `eval.report.model_sections`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load

from eval.images.densities import SOURCES
from eval.measurements.uncertainty import calibration_verdict
from eval.report import gallery, printed_results
from eval.report.document import Card, Details, Missing, Page, Picture, Section
from eval.report.figures import (
    coverage_figure,
    kl_curve,
    reliability_figure,
    residual_figure,
    rising_curve,
    sparsification_figure,
    variance_curve,
)
from eval.report.known import RunResults, Subject, final
from eval.report.model_sections import fitted_mixture, fitted_transport, picture_sections
from eval.report.sizes import Sizes
from eval.report.tables import (
    column_title,
    distance_table,
    further_measures_table,
    likelihood_table,
    memorisation_table,
    paper_components_table,
    paper_distance_table,
    paper_divergence_table,
    uncertainty_table,
    weights_title,
    with_error,
)
from eval.results import DistanceResult, VarianceResult, result_path, stored_at
from eval.run import MeasuredRun
from trainer.process_group import Ranks
from trainer.run_folder.log import Event, read_events

_ENDS = {
    "cap": "its cap of epochs was reached",
    "converged": "the held-out ELBO had stopped rising",
    "collapsed": "sigma² fell to its smallest value",
}


def build_page(run: MeasuredRun, *, sizes: Sizes, covariance: str, ranks: Ranks) -> Page:
    """Everything that is known of a run as it is now."""
    split, components = sizes.split, sizes.components
    results = Subject(run).results().shown(split, f"{components}-{covariance}")
    events = read_events(run.folder)
    config, manifest = run.config, run.manifest
    dataset = printed_results.dataset_of(f"{manifest.name} {Path(config.data.shards).name}")
    folder, objective = str(run.folder), config.objective.name
    fit_command = f"python -m trainer.mixture --run {folder} --components {components}"
    mixture = fitted_mixture(run, components, covariance)
    transport = fitted_transport(run, components, covariance)
    reconstructions, samples, latent_space = picture_sections(run, split, mixture, transport, fit_command, ranks)
    return Page(
        title=f"{config.name}: a sigma-VAE on {manifest.name}",
        lead=[*lead(run, events), *sizes.remarks],
        cards=key_numbers(run, results),
        sections=[
            training_section(events, config.name),
            reconstructions,
            samples,
            likelihood_section(
                results,
                folder,
                dataset,
                objective=objective,
                two_stages=config.two_stages,
                latent_dim=run.model.latent_dim,
            ),
            distance_section(results, folder, dataset, objective, config.two_stages),
            uncertainty_section(results, folder),
            memorisation_section(results, run.folder),
            latent_space,
            *earlier_section(results),
        ],
    )


def lead(run: MeasuredRun, events: Sequence[Event]) -> list[str]:
    """What was trained, on what, for how long."""
    config, manifest = run.config, run.manifest
    shape = " x ".join(map(str, manifest.image_shape))
    seen = max((event["images"] for event in events), default=0)
    method = config.objective.name.replace("_", "-")
    stages = "two stages" if config.two_stages else "one stage"
    sentences = [
        f"A {method} with {run.model.latent_dim} latents, trained in {stages} on "
        f"{manifest.num_samples(config.data.train_split):,} images of {manifest.name} ({shape}); {seen:,} images seen."
    ]
    if event_of(events, "stage_end", 2 if config.two_stages else 1) is None:
        sentences.append("Training has not ended yet; this is the state at the newest checkpoint.")
    return sentences


def key_numbers(run: MeasuredRun, results: RunResults) -> list[Card]:
    """The numbers that a reader looks for first."""
    cards = []
    for result in results.likelihoods:
        density, latents = ("q_hat", "q̂") if "iwae_q_hat" in result.values else ("prior", "the prior")
        variance = "one variance" if result.protocol.variance == "one" else "variance per pixel"
        title = f"log-likelihood of a {result.protocol.split} image, {variance}, latents from {latents}"
        number = with_error(result.values[f"iwae_{density}"], 1)
        cards.append(Card(value=f"{number} nats", title=f"{title}; at most {result.cap:,.0f} possible"))
    for distance in results.distances:
        protocol = distance.protocol
        if protocol.source in ("q_hat", "prior") and protocol.weights == "final":
            title = f"{distance.label} of {protocol.n:,} {SOURCES[protocol.source].title}"
            title += "; too large, from so few images" if distance.below_protocol else ""
            cards.append(Card(value=with_error(distance.values["frechet_distance"], 1), title=title))
    title = "sigma² of the data set, in squared pixel units of the [0, 1] scale"
    cards.append(Card(value=f"{run.model.dataset_variance:.5f}", title=title))
    return cards


def event_of(events: Sequence[Event], kind: str, stage: int) -> Event | None:
    """The last event of a kind in a stage."""
    return next((e for e in reversed(events) if e["event"] == kind and e.get("stage") == stage), None)


def training_section(events: Sequence[Event], run: str) -> Section:
    """Curves over images seen, and how the two stages met."""
    drawn = (
        (rising_curve(events, "elbo", "ELBO"), "ELBO. Values below the frame, at the very start, are cut off."),
        (rising_curve(events, "log_likelihood", "E[log p(x|z)]"), "Log-likelihood of the reconstructions."),
        (kl_curve(events), "Divergence of the posteriors from the prior."),
        (
            variance_curve(events),
            "sigma² in use, and what equation 9 gives on the same images. From stage 2 on sigma² of the data set is "
            "frozen and each pixel has its own variance.",
        ),
    )
    text = ["The dashed line marks the switch from one variance for the data set to one variance a pixel."]
    end, start = event_of(events, "stage_end", 1), event_of(events, "stage_start", 2)
    if end and end.get("sigma2"):
        ratio = end["closed_form_sigma2"] / end["sigma2"]
        text.append(
            f"Stage 1 ended after {end['images']:,} images, for {_ENDS[end['reason']]}, with "
            f"sigma² = {end['sigma2']:.5f}, which is equation 9 over the whole training split. On the held-out images "
            f"equation 9 gives {ratio:.3f} times that."
        )
    if end and start and end.get("elbo"):
        gap = abs(start["elbo"] - end["elbo"]) / abs(end["elbo"])
        text.append(
            f"Stage 2 began at a held-out ELBO of {start['elbo']:.1f} nats where stage 1 had ended at "
            f"{end['elbo']:.1f} ({gap:.2%} apart)."
        )
    if last := event_of(events, "stage_end", 2):
        text.append(f"Stage 2 ended after {last['images']:,} images in all, for {_ENDS[last['reason']]}.")
    text += [f"Note: {event['message']}." for event in events if event["event"] == "warning"]
    pictures = [Picture(data=data, caption=caption) for data, caption in drawn if data]
    none = Missing(what="No training curve is here.", command=f"python -m trainer --name {run}")
    missing = [] if pictures else [none]
    return Section(key="training", title="Training", text=text if pictures else (), pictures=pictures, missing=missing)


def protocols(results: Sequence[DistanceResult | VarianceResult], kind: str) -> list[Details]:
    """The protocol records of results, shown on demand."""
    titles = [f"Protocol of {kind}, {weights_title(result)}" for result in results]
    texts = [json.dumps(result.protocol.record(), indent=1, ensure_ascii=False) for result in results]
    return [Details(title=title, text=text) for title, text in zip(titles, texts, strict=True)]


def likelihood_section(
    results: RunResults, run: str, dataset: str | None, *, objective: str, two_stages: bool, latent_dim: int
) -> Section:
    """Likelihoods beside the paper's Tables 1 and 3."""
    measured = results.likelihoods
    missing = []
    wanted = ["final"] + (["stage1"] if two_stages else [])
    for weights in wanted:
        if not any(r.protocol.weights == weights for r in measured):
            option = "" if weights == "final" else " --weights stage1"
            name = "the final weights" if weights == "final" else "the end of stage 1"
            missing.append(
                Missing(
                    what=f"The likelihood of {name} has not been measured.",
                    command=f"python -m eval likelihood --run {run}{option}",
                )
            )
    if not measured:
        return Section(key="likelihood", title="Likelihood", missing=missing)
    first = measured[-1].protocol
    text = [
        f"Nats per image unless said otherwise, of the density of pixels on the {first.pixel_scale} scale: "
        f"{first.n:,} images of split {first.split}, {first.importance_samples} importance samples, ± one "
        "standard error over the images. q̂ is the mixture fitted to the training codes"
        + (f" ({first.mixture})." if first.mixture else ", not measured here."),
        "Bits per dimension are of the 8-bit pixels (bins of 1/255) and do not depend on the pixel scale.",
        "Where few importance samples are effective, more of them would raise the bound further.",
    ]
    if any(r.latent_kl for r in measured):
        text.append(
            "E[log q̂(z) - log p(z)] is taken over codes of these images, KL(q̂ || p) over q̂'s own samples; a KL far "
            "above the other would mean that q̂ remembers its training codes."
        )
    if dataset in printed_results.LOG_LIKELIHOOD and latent_dim != printed_results.LATENTS:
        text.append(f"The paper's numbers are of {printed_results.LATENTS} latents; this run has {latent_dim}.")
    tables = [likelihood_table(measured, dataset, objective), paper_divergence_table()]
    remarks = [printed_results.REMARKS["scale"]]
    if dataset in printed_results.LOG_LIKELIHOOD:
        remarks += [printed_results.REMARKS["one_variance"]]
        remarks += [printed_results.REMARKS["cap"]] if any(r.protocol.variance == "per pixel" for r in measured) else []
    return Section(
        key="likelihood",
        title="Likelihood",
        text=text,
        tables=tables,
        remarks=remarks,
        missing=missing,
        details=protocols(measured, "likelihood"),
    )


def distance_section(results: RunResults, run: str, dataset: str | None, objective: str, two_stages: bool) -> Section:
    """Frechet distances beside the paper's Table 2 (and 4 for CelebA)."""
    measured = results.distances
    there = {r.protocol.source for r in measured}
    missing = [
        Missing(
            what=f"The distance of {SOURCES[source].title} has not been measured.",
            command=f"python -m eval fid --run {run} --from {source}",
        )
        for source in ("q_hat", "prior")
        if source not in there
    ]
    text = []
    tables = [distance_table(measured)] if measured else []
    if further := further_measures_table(measured):
        tables.append(further)
    if measured:
        text.append(
            "A Frechet distance compares the mean and covariance of image features; smaller is closer. Only rows with "
            "the same measure, number and real images may be compared with each other."
        )
        if any(r.below_protocol for r in measured):
            text.append(
                "* Fewer than 10,000 images on the smaller side (50,000 against the training split): too large by an "
                "unknown amount."
            )
    remarks = [printed_results.REMARKS["protocol"]] if dataset else []
    if dataset:
        tables.append(paper_distance_table(dataset, objective))
    if dataset == "celeba":
        tables.append(paper_components_table())
        remarks.append(printed_results.REMARKS["components"])
    if two_stages:
        remarks.append(printed_results.REMARKS["two_scores"])
    return Section(
        key="distance",
        title="Quality of samples",
        text=text,
        tables=tables,
        remarks=remarks,
        missing=missing,
        details=protocols(measured, "distance"),
    )


def uncertainty_section(results: RunResults, run: str) -> Section:
    """Whether the predicted variance may be trusted."""
    measured = results.uncertainties
    of_final = final(measured)
    missing = []
    if of_final is None:
        command = f"python -m eval uncertainty --run {run}"
        missing.append(Missing(what="The calibration of the final weights has not been measured.", command=command))
    if not measured:
        return Section(key="uncertainty", title="Can the uncertainty be trusted?", missing=missing)
    shown = of_final or measured[-1]
    pictures = [
        Picture(
            data=coverage_figure(shown), caption="Part of the pixels that the central intervals of N(g, sigma²) hold."
        ),
        Picture(data=residual_figure(shown), caption="Errors in units of their predicted deviation."),
        Picture(
            data=reliability_figure(shown),
            caption="Pixels in 20 groups of equal size by predicted variance, and the error made in each.",
        ),
        Picture(
            data=sparsification_figure(shown),
            caption="Error of the pixels that are kept as those of largest predicted variance are left out; the shaded "
            "area is 0 for a perfect order.",
        ),
    ]
    return Section(
        key="uncertainty",
        title="Can the uncertainty be trusted?",
        text=[
            calibration_verdict(shown),
            f"Figures: {column_title(shown)}, {shown.protocol.n:,} images, all pixels together.",
        ],
        tables=[uncertainty_table(measured)],
        pictures=pictures,
        missing=missing,
        details=protocols(measured, "uncertainty"),
    )


def memorisation_section(results: RunResults, run: Path) -> Section:
    """Samples above their nearest training images, and whether they are nearer than new images are."""
    title = "Does it repeat its training images?"
    measured = final(results.memorisations)
    if measured is not None:
        path = result_path(run / "eval", "memorisation", measured.protocol)
        images = stored_at(path).with_suffix(".safetensors")
    if measured is None or not images.exists():
        command = f"python -m eval memorisation --run {run}"
        missing = [Missing(what="Nearest training images have not been looked for.", command=command)]
        return Section(key="memorisation", title=title, missing=missing)
    shown = load(images.read_bytes())
    count = gallery.COLUMNS
    nearest = shown["nearest"][:count].transpose(0, 1)  # (k, n, C, H, W)
    drawn = gallery.neighbours(shown["sample"][:count], list(nearest))
    protocol = measured.protocol
    return Section(
        key="memorisation",
        title=title,
        text=[
            f"{protocol.n:,} samples from q̂ ({protocol.mixture}) are compared with reconstructions of as many "
            f"images of split {protocol.split}: how far is each from its nearest training image? A chance well "
            "above 50% of the sample being nearer would mean that training images are repeated. The same is measured "
            "for the latents and the nearest training code, where a mixture of many components would show it first."
        ],
        tables=[memorisation_table(measured)],
        pictures=[
            Picture(
                data=drawn,
                caption="Samples in the first row; below each its three nearest training images.",
                pixels=True,
            )
        ],
        details=protocols([measured], "memorisation"),
    )


def earlier_section(results: RunResults) -> list[Section]:
    """Results of what the run was before: named, not shown. Empty where there are none."""
    commands = {one.command: one.reason for one in results.earlier}
    if not commands:
        return []
    missing = [Missing(what=f"{reason.capitalize()}:", command=command) for command, reason in commands.items()]
    text = "These were measured of an earlier version of the run. Their numbers are not shown; each command renews one."
    return [Section(key="earlier", title="Of an earlier version", text=[text], missing=missing)]
