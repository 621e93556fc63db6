"""The report of a run: everything that is known of it on one page."""

from collections.abc import Sequence
from pathlib import Path

from eval import printed_results
from eval.densities import SOURCES
from eval.report.document import Card, Page
from eval.report.model_sections import fitted_mixture, fitted_transport, picture_sections
from eval.report.sections import (
    RunResults,
    distance_section,
    event_of,
    likelihood_section,
    memorisation_section,
    run_results,
    training_section,
    uncertainty_section,
)
from eval.report.tables import with_error
from eval.run import MeasuredRun
from trainer.process_group import Ranks
from trainer.run_folder.log import Event, read_events


def build_page(run: MeasuredRun, *, split: str, components: int, covariance: str, ranks: Ranks) -> Page:
    """Everything that is known of a run. split: whose images are reconstructed."""
    results, events = run_results(run.folder), read_events(run.folder)
    config, manifest = run.config, run.manifest
    dataset = printed_results.dataset_of(f"{manifest.name} {Path(config.data.shards).name}")
    folder, objective = str(run.folder), config.objective.name
    fit_command = f"python -m trainer.mixture --run {folder} --components {components}"
    mixture = fitted_mixture(run, components, covariance)
    transport = fitted_transport(run, components, covariance)
    reconstructions, samples, latent_space = picture_sections(run, split, mixture, transport, fit_command, ranks)
    return Page(
        title=f"{config.name}: a sigma-VAE on {manifest.name}",
        lead=lead(run, events),
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
            cards.append(Card(value=with_error(distance.values["frechet_distance"], 1), title=title))
    title = "sigma² of the data set, in squared pixel units of the [0, 1] scale"
    cards.append(Card(value=f"{run.model.dataset_variance:.5f}", title=title))
    return cards
