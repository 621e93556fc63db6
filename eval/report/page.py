"""The report of a run: everything that is known of it on one page, the answer first.

The order is that of a reader's questions: how good, what does it look like, how sure is that, and how was it made. The
sections of numbers are in `eval.report.number_sections`, those that the model draws in `eval.report.model_sections`.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from eval.report import printed_results
from eval.report.answer import answer
from eval.report.document import Card, Missing, Page, Picture, Section
from eval.report.figures import kl_curve, rising_curve, variance_curve
from eval.report.known import RunResults, Subject, final
from eval.report.model_sections import fitted_mixture, fitted_transport, picture_sections
from eval.report.number_sections import (
    RunFacts,
    completion_section,
    distance_section,
    likelihood_section,
    memorisation_section,
    uncertainty_section,
)
from eval.report.sizes import Sizes
from eval.report.tables import column_title, with_error
from eval.results import LikelihoodResult
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
    folder = str(run.folder)
    kind = "" if covariance == "full" else f" --covariance {covariance}"
    fit_command = f"python -m trainer.mixture --run {shlex.quote(folder)} --components {components}{kind}"
    mixture = fitted_mixture(run, components, covariance)
    transport = fitted_transport(run, components, covariance)
    pictures = picture_sections(run, split, mixture, transport, fit_command, ranks)
    facts = RunFacts(
        folder=run.folder,
        dataset=dataset,
        mixture=f"--mixture {components}{kind}",
        objective=config.objective.name,
        two_stages=config.two_stages,
        latent_dim=run.model.latent_dim,
    )
    numbers = [
        memorisation_section(results, facts),
        distance_section(results, facts),
        likelihood_section(results, facts),
        uncertainty_section(results, facts),
    ]
    hidden = completion_section(results, run.folder)
    numbers += [hidden] if hidden else []
    return Page(
        title=f"{config.name}: a sigma-VAE on {data_name(run)}",
        answer=answer(results.distances, results.likelihoods),
        lead=[*lead(run, events), *sizes.remarks, *_out_of_date(results)],
        cards=key_numbers(run, results),
        sections=[*pictures, *numbers, training_section(events, folder), *earlier_section(results)],
    )


def _out_of_date(results: RunResults) -> list[str]:
    count = len({one.command for one in results.earlier})
    were = "was" if count == 1 else "were"
    return [f"{count} of the numbers {were} measured of an earlier version and left out; see the end."] if count else []


def data_name(run: MeasuredRun) -> str:
    """What the data set is called; of a folder of images that is the name of its shards."""
    name = run.manifest.name
    return Path(run.config.data.shards).name if name == "folder" else name


def lead(run: MeasuredRun, events: Sequence[Event]) -> list[str]:
    """What was trained, on what, for how long."""
    config, manifest = run.config, run.manifest
    shape = " x ".join(map(str, manifest.image_shape))
    seen = max((event["images"] for event in events), default=0)
    method = config.objective.name.replace("_", "-").replace("vae", "VAE")
    stages = "two stages" if config.two_stages else "one stage"
    sentences = [
        f"A {method} with {run.model.latent_dim} latents, trained in {stages} on "
        f"{manifest.num_samples(config.data.train_split):,} images of {data_name(run)} ({shape}); {seen:,} images seen."
    ]
    if event_of(events, "stage_end", 2 if config.two_stages else 1) is None:
        sentences.append("Training has not ended yet; this is the state at the newest checkpoint.")
    return sentences


def key_numbers(run: MeasuredRun, results: RunResults) -> list[Card]:
    """The numbers that a reader looks for after the answer."""
    cards = []
    for result in filter(_on_a_card, results.likelihoods):
        density, latents = ("q_hat", "q̂") if "iwae_q_hat" in result.values else ("prior", "the prior")
        title = f"log-likelihood of a {result.protocol.split} image, {column_title(result)}, latents from {latents}"
        number = with_error(result.values[f"{'annealed' if result.protocol.annealing else 'iwae'}_{density}"], 1)
        cards.append(Card(value=f"{number} nats", title=f"{title}; at most {result.cap:,.0f} possible"))
    calibration = final(results.uncertainties)
    if calibration is not None:
        held = next(point for point in calibration.coverage if point.level == 0.9)
        cards.append(Card(value=f"{held.value:.1%}", title="of pixels inside their predicted 90% interval"))
    nearest = final(results.memorisations)
    if nearest is not None:
        chance = nearest.pixel_distance.chance_nearer.value
        title = "chance that a sample is nearer to a training image than a new image is; 50% is no difference"
        cards.append(Card(value=f"{chance:.0%}", title=title))
    title = "sigma² of the data set, in squared pixel units of the [0, 1] scale"
    cards.append(Card(value=f"{run.model.dataset_variance:.5f}", title=title))
    return cards


def _on_a_card(result: LikelihoodResult) -> bool:
    """Whether a likelihood is one that a reader looks for first: others stand in the table."""
    protocol = result.protocol
    noises = ("independent", "correlated") if protocol.weights == "final" else ("independent",)
    return protocol.noise in noises and protocol.floor != "none"


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
    if end and end.get("sigma2") and end.get("closed_form_sigma2") is not None:
        ratio = end["closed_form_sigma2"] / end["sigma2"]
        text.append(
            f"Stage 1 ended after {end['images']:,} images, for {_ENDS[end['reason']]}, with "
            f"sigma² = {end['sigma2']:.5f}, which is equation 9 over the whole training split. On the held-out images "
            f"equation 9 gives {ratio:.3f} times that."
        )
    if end and start and end["elbo"] and start["elbo"] is not None:  # None is written for what is not finite
        gap = abs(start["elbo"] - end["elbo"]) / abs(end["elbo"])
        text.append(
            f"Stage 2 began at a held-out ELBO of {start['elbo']:.1f} nats where stage 1 had ended at "
            f"{end['elbo']:.1f} ({gap:.2%} apart)."
        )
    if last := event_of(events, "stage_end", 2):
        text.append(f"Stage 2 ended after {last['images']:,} images in all, for {_ENDS[last['reason']]}.")
    text += [f"Note: {event['message']}." for event in events if event["event"] == "warning"]
    pictures = [Picture(data=data, caption=caption) for data, caption in drawn if data]
    command = f"python -m trainer --config {shlex.quote(f'{run}/config.yaml')}"
    none = Missing(what="No training curve is here.", command=command)
    missing = [] if pictures else [none]
    return Section(key="training", title="Training", text=text if pictures else (), pictures=pictures, missing=missing)


def earlier_section(results: RunResults) -> list[Section]:
    """Results of what the run was before: named, not shown. Empty where there are none."""
    commands = {one.command: one.reason for one in results.earlier}
    if not commands:
        return []
    missing = [Missing(what=f"{reason.capitalize()}:", command=command) for command, reason in commands.items()]
    text = "These were measured of an earlier version of the run. Their numbers are not shown; each command renews one."
    return [Section(key="earlier", title="Of an earlier version", text=[text], missing=missing)]
