"""The report of a run: everything that is known of it on one page."""

from pathlib import Path

import torch
from torch import Tensor

from data_shards.errors import InputError
from eval import gallery, paper
from eval.blocks import block_generator
from eval.image_subset import subset_blocks, subset_indices
from eval.latent_samples import mixture_sampler, prior_sampler
from eval.measured_run import MeasuredRun
from eval.pictures import inline
from eval.report_page import Card, Drawing, Missing, Page, Section
from eval.report_sections import (
    distance_section,
    event_of,
    likelihood_section,
    training_section,
    uncertainty_section,
)
from eval.report_tables import with_error
from eval.run_results import RunResults, run_results
from trainer.gaussian import variance_floor_cap
from trainer.log import read_events
from trainer.process_group import Ranks

SAMPLES = 3 * gallery.COLUMNS
WALK_IMAGES = 500


def picture(made: gallery.Picture, caption: str) -> Drawing:
    """A gallery picture with its caption, and the scale of its maps."""
    scale = ""
    if made.scale:
        low, high = made.scale
        scale = f" Maps run from {low:.3f} (dark) to {high:.3f} (bright) on the [0, 1] scale."
    return Drawing(source=inline(made.data, "png"), caption=caption + scale, pixels=True)


def held_out_images(run: MeasuredRun, split: str, count: int, ranks: Ranks) -> Tensor:
    """Up to `count` images of a split, evenly spaced, (N, C, H, W) float32 in [0, 1]."""
    indices = subset_indices(run.manifest, split, min(count, run.manifest.num_samples(split)))
    return torch.cat([images for _, _, images in subset_blocks(run.config.data.shards, split, indices, ranks)])


def mixture_latents(run: MeasuredRun, components: int, covariance: str) -> Tensor:
    """The first latents from q_hat, the very ones whose images the distance measures, (BLOCK, D)."""
    sampler = mixture_sampler(run.mixture(components, covariance).parameters_)
    return sampler(block_generator(0, "samples", 0))


def image_sections(run: MeasuredRun, split: str, components: int, covariance: str, ranks: Ranks) -> list[Section]:
    """Reconstructions, samples, and walks through the latent space, made by the model now."""
    model = run.model
    images = held_out_images(run, split, WALK_IMAGES, ranks)
    reconstructed = gallery.reconstructions(model, images[:: max(1, len(images) // gallery.COLUMNS)][: gallery.COLUMNS])
    uncertain = "" if model.per_pixel else " These weights have one variance for all pixels, so the maps are flat."
    sections = [
        Section(
            key="reconstructions",
            title="Reconstructions",
            figures=[
                picture(
                    reconstructed,
                    f"From the top: images of split {split}, their reconstructions, the error |x - g|, and the "
                    f"predicted deviation sigma of each pixel.{uncertain}",
                )
            ],
        )
    ]
    sets = {"z from the prior N(0, I).": prior_sampler(model.latent_dim)(block_generator(0, "samples", 0))}
    missing = []
    try:
        sets = {f"z from q̂, a mixture of {components}.": mixture_latents(run, components, covariance)} | sets
    except InputError:
        command = f"python -m trainer.mixture --run {run.folder} --components {components}"
        missing.append(Missing(what="No mixture is fitted yet, so there are no samples from q̂.", command=command))
    made = gallery.samples(model, *(latents[:SAMPLES].to(ranks.device) for latents in sets.values()))
    drawn = [picture(each, caption + uncertain) for each, caption in zip(made, sets, strict=True)]
    text = ["Samples are the mean images g(z), not chosen by eye. Below each row stands its predicted deviation sigma."]
    sections.append(Section(key="samples", title="Samples", text=text, figures=drawn, missing=missing))
    means = model.encode(images).mean
    walked, dimensions = gallery.traversals(model, means)
    latent_space = [
        picture(
            walked,
            f"One latent a row (dimensions {', '.join(map(str, dimensions))}, those that vary most), moved from 2.5 "
            "standard deviations of the codes below their mean to 2.5 above; the others stay at one image's code.",
        ),
        picture(
            gallery.interpolations(model, means[:: max(1, len(means) // 10)]),
            "Straight lines between pairs of held-out images.",
        ),
    ]
    sections.append(Section(key="latents", title="The latent space", figures=latent_space))
    return sections


def key_numbers(run: MeasuredRun, results: RunResults) -> list[Card]:
    """The numbers that a reader looks for first."""
    cards = []
    for result in results.likelihoods:
        density = "q_hat" if "iwae_q_hat" in result["values"] else "prior"
        one = "one variance" if result["protocol"]["variance"] == "one" else "variance per pixel"
        cards.append(
            Card(
                value=f"{with_error(result['values'][f'iwae_{density}'], 1)} nats",
                title=f"log-likelihood of a test image, {one}; at most {result['cap']:,.0f} possible",
            )
        )
    for result in results.distances:
        protocol = result["protocol"]
        if protocol["source"] in ("q_hat", "prior") and protocol["weights"] == "final":
            name = "q̂" if protocol["source"] == "q_hat" else "the prior"
            title = f"{result['label']} of {protocol['n']:,} samples from {name}"
            cards.append(Card(value=with_error(result["values"]["frechet_distance"], 1), title=title))
    sigma2 = run.model.dataset_variance
    floor_cap = variance_floor_cap(run.model.pixels, sigma2)
    if not results.likelihoods:
        title = f"largest log p(x|z) with one variance, d = {run.model.pixels}"
        cards.append(Card(value=f"{floor_cap:,.0f} nats", title=title))
    cards.append(
        Card(value=f"{sigma2:.5f}", title="sigma² of the data set, in squared pixel units of the [0, 1] scale")
    )
    return cards


@torch.inference_mode()
def build_page(run: MeasuredRun, *, split: str, components: int, covariance: str, ranks: Ranks) -> Page:
    """Everything that is known of a run."""
    results, events = run_results(run.folder), read_events(run.folder)
    config, manifest = run.config, run.manifest
    dataset = paper.dataset_of(f"{manifest.name} {Path(config.data.shards).name}")
    shape = " x ".join(map(str, manifest.image_shape))
    seen = max((event["images"] for event in events), default=0)
    method = config.objective.name.replace("_", "-")
    stages = "two stages" if config.two_stages else "one stage"
    lead = [
        f"A {method} with {run.model.latent_dim} latents, trained in {stages} on "
        f"{manifest.num_samples(config.data.train_split):,} images of {manifest.name} ({shape}); {seen:,} images seen."
    ]
    last = event_of(events, "stage_end", 2 if config.two_stages else 1)
    if last is None:
        lead.append("Training has not ended yet; this is the state at the newest checkpoint.")
    folder = str(run.folder)
    pictures = image_sections(run, split, components, covariance, ranks)
    objective = config.objective.name
    sections = [
        training_section(events, config.name),
        *pictures[:2],
        likelihood_section(results, folder, dataset, objective, config.two_stages),
        distance_section(results, folder, dataset, objective, config.two_stages),
        uncertainty_section(results, folder),
        *pictures[2:],
    ]
    return Page(
        title=f"{config.name}: a sigma-VAE on {manifest.name}",
        lead=lead,
        cards=key_numbers(run, results),
        sections=sections,
    )
