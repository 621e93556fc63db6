"""The report's sections that the model draws now: samples, reconstructions, and the latent space."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_shards.stream.labels import labels_of
from eval.images.blocks import subset_blocks, subset_indices
from eval.images.sources import block_latents, mixture_sampler, prior_sampler
from eval.images.stored_transport import fitted_before, load_transport
from eval.images.transport import Transport
from eval.report import gallery
from eval.report.classes import class_figure, class_means
from eval.report.document import Missing, Picture, Scale, Section
from eval.report.figures import density_figure
from eval.run import MeasuredRun
from trainer.mixture.density import MixtureDensity
from trainer.networks.model import SigmaVAE
from trainer.process_group import Ranks
from trainer.run_folder import latents

SAMPLES = 3 * gallery.COLUMNS
WALK_IMAGES = 500
TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_LEFT_OUT = 0.5 / 255
"""A pixel that is nearer to [0, 1] than this is not changed by being cut to it, as images have 8 bits."""


def fitted_mixture(run: MeasuredRun, components: int, covariance: str) -> MixtureDensity | None:
    """The run's mixture, or None where none was fitted to the codes of these weights."""
    return run.mixture(components, covariance) if run.has_mixture(components, covariance) else None


def fitted_transport(run: MeasuredRun, components: int, covariance: str) -> Transport | None:
    """The transport of the run's mixture, or None where it has not been fitted to these weights and this mixture."""
    mixture = fitted_mixture(run, components, covariance)
    if mixture is None or fitted_before(run, components, covariance) is None:
        return None
    return load_transport(run, components, covariance)


def mixture_latents(mixture: MixtureDensity) -> Tensor:
    """The first latents from q_hat, the very ones whose images the distance measures, (BLOCK, D)."""
    return block_latents(mixture_sampler(mixture.parameters), seed=0, block=0)


def evenly_spaced_images(run: MeasuredRun, split: str, ranks: Ranks) -> Tensor:
    """Images of a split, evenly spaced, (N, C, H, W) float32 in [0, 1]; N is WALK_IMAGES where there are as many."""
    indices = subset_indices(run.manifest, split, min(WALK_IMAGES, run.manifest.num_samples(split)))
    return torch.cat([images for _, _, images in subset_blocks(run.config.data.location, split, indices, ranks)])


def spread_out(images: Tensor) -> Tensor:
    """COLUMNS of the images, evenly spaced; all where there are fewer."""
    return images[:: max(1, len(images) // gallery.COLUMNS)][: gallery.COLUMNS]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the sections draw, and with what."""

    run: MeasuredRun
    images: Tensor
    """Of new images, evenly spaced over the split, (N, C, H, W) in [0, 1]."""
    split: str
    """Theirs."""
    walked: Tensor
    """Images between whose codes walks go, (at least 2, C, H, W)."""
    walked_split: str
    """Theirs."""
    mixture: MixtureDensity | None
    transport: Transport | None
    fit_command: str
    """Fits the mixture."""
    scale: Scale
    """Of all maps."""

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.images.device

    def maps(self, data: bytes, caption: str) -> Picture:
        """A picture with maps, and what its colours mean."""
        caption += " All maps of this page have the colours of this bar, on the [0, 1] scale of pixels."
        if not self.run.model.per_pixel:
            caption += " These weights have one variance for all pixels, so the maps of sigma are flat."
        return Picture(data=data, caption=caption, pixels=True, scale=self.scale)


def picture(data: bytes, caption: str) -> Picture:
    """Images with their caption."""
    return Picture(data=data, caption=caption, pixels=True)


def reconstruction_section(shown: Shown) -> Section:
    """Inputs, reconstructions, errors and predicted deviations: of evenly spaced images, of the worst and the best."""
    model, split = shown.run.model, shown.split
    caption = (
        f"From the top: images of split {split}, evenly spaced, their reconstructions, the error |x - g|, and the "
        "predicted deviation sigma of each pixel."
    )
    pictures = [shown.maps(gallery.reconstructions(model, spread_out(shown.images), shown.scale), caption)]
    if len(shown.images) >= 2 * gallery.COLUMNS:
        errors = gallery.square_errors(model, shown.images)
        order = errors.argsort()
        for title, chosen in (("best", order[: gallery.COLUMNS]), ("worst", order.flip(0)[: gallery.COLUMNS])):
            data = gallery.reconstructions(model, shown.images[chosen], shown.scale)
            lowest, highest = float(errors[chosen].min()), float(errors[chosen].max())
            caption = (
                f"The {title} {gallery.COLUMNS} of {len(shown.images)} images of split {split}: their mean squared "
                f"error a pixel is {lowest:.5f} to {highest:.5f}. Rows as above."
            )
            pictures.append(shown.maps(data, caption))
    return Section(key="reconstructions", title="Reconstructions", pictures=pictures)


def sample_section(shown: Shown) -> Section:
    """Samples from q_hat, the same transported where a transport is fitted, at temperatures, and from the prior."""
    model, mixture = shown.run.model, shown.mixture
    prior = block_latents(prior_sampler(model.latent_dim), seed=0, block=0)[:SAMPLES].to(shown.device)
    pictures, missing = [], []
    text = "Samples are the mean images g(z), not chosen by eye. Where there are "
    text += "maps, each stands below its sample: the predicted deviation sigma of each pixel."
    if mixture is None:
        what = "No mixture is fitted to the codes of these weights, so there are no samples from q̂."
        missing.append(Missing(what=what, command=shown.fit_command))
    else:
        z = mixture_latents(mixture)[:SAMPLES].to(shown.device)
        caption = f"Samples from q̂, a mixture of {len(mixture.weights)} components."
        pictures.append(shown.maps(gallery.samples(model, z, shown.scale), caption))
        pictures.insert(0, _temperatures(model, mixture, shown.device))
        if shown.transport is not None:
            pictures.insert(0, _transported(shown.transport, z, model.decode(z).mean))
    pictures.append(shown.maps(gallery.samples(model, prior, shown.scale), "Samples from the prior N(0, I)."))
    return Section(key="samples", title="Samples", text=[text], pictures=pictures, missing=missing)


def _transported(transport: Transport, z: Tensor, means: Tensor) -> Picture:
    """Transported samples, and how far their pixels left [0, 1] before they were cut."""
    images = transport.apply(z, means)
    beyond = (images - images.clamp(0, 1)).abs()
    changed = beyond > _LEFT_OUT
    rounds = len(transport.marginals.source) if transport.marginals is not None else 0
    onward = f", then by {rounds} rounds of monotone maps of wavelet coefficients and pixels" if rounds else ""
    caption = (
        f"Samples from q̂, transported to the distribution of real images, each by the map of its component{onward}. "
        f"{float((beyond > 0).float().mean()):.0%} of their pixels left [0, 1] and are cut to 0 or 1; for "
        f"{float(changed.float().mean()):.0%} that is a change of at least half a grey level of 255"
        + (f", {float(beyond[changed].mean()):.3f} on average." if bool(changed.any()) else ".")
    )
    return picture(gallery.images(images), caption)


def _temperatures(model: SigmaVAE, mixture: MixtureDensity, device: torch.device) -> Picture:
    """The same draws from the mixture with smaller and smaller deviations, one temperature a row."""
    rows = [
        block_latents(mixture_sampler(mixture.parameters, temperature), seed=0, block=0)[: gallery.COLUMNS]
        for temperature in TEMPERATURES
    ]
    named = ", ".join(f"{temperature:g}" for temperature in TEMPERATURES)
    caption = (
        f"The same draws from q̂ at temperatures {named}, from the top: each component's deviations times the "
        "temperature. Lower is more typical and less varied; numbers on this page are of 1."
    )
    return picture(gallery.images(model.decode(torch.cat(rows).to(device)).mean), caption)


def latent_section(shown: Shown, labels: tuple[str, ...] | None) -> Section:
    """Walks between codes, traversals, codes by class, and for two latents the densities of the paper's Table 1.

    labels: the class of each of `shown.images`; None where the shards have none.
    """
    run, model = shown.run, shown.run.model
    posterior = model.encode(shown.walked)
    walked, dimensions = gallery.traversals(model, posterior.mean)
    pairs = posterior.mean[:: max(1, len(shown.walked) // gallery.COLUMNS)]
    straight = f"Straight lines between the codes of pairs of images of split {shown.walked_split}"
    pictures = [
        picture(
            walked,
            f"One latent a row (dimensions {', '.join(map(str, dimensions))}, those that vary most), moved from 2.5 "
            "standard deviations of the codes below their mean to 2.5 above; the others stay at one image's code.",
        ),
    ]
    if len(pairs) > 1:
        pictures.append(picture(gallery.interpolations(model, pairs), f"{straight}: mean images."))
    if len(pairs) > 1 and shown.transport is not None:
        caption = (
            f"{straight}, transported: the maps of all components, each weighed by its responsibility for z, so that "
            "nothing jumps where the most responsible component changes. Cut to [0, 1]."
        )
        pictures.append(picture(gallery.interpolations(model, pairs, shown.transport), caption))
    text = [] if labels else ["The shards hold no classes, so codes are not shown by class."]
    if len(pairs) < 2:
        text.append(f"Split {shown.walked_split} has one image, so there are no lines between codes.")
    if labels:
        codes = model.encode(shown.images).mean.cpu()
        data, caption = class_figure(codes, labels)
        pictures.append(Picture(data=data, caption=f"{caption} {len(codes)} images of split {shown.split}."))
        means, named = class_means(codes, labels)
        caption = f"Decoded: the mean code of each class, in this order: {', '.join(named)}."
        pictures.append(picture(gallery.images(model.decode(means.to(shown.device)).mean), caption))
    if model.latent_dim == 2:
        trained_on = run.config.data.train_split
        if latents.exists(run.folder, trained_on):
            codes_of_training = run.codes(trained_on)
        else:
            index = torch.arange(len(shown.walked))
            codes_of_training = latents.Latents(posterior.mean.cpu(), posterior.std.cpu(), index)
        data = density_figure(codes_of_training, shown.mixture.score_samples if shown.mixture else None)
        pictures.append(Picture(data=data, caption="Log-densities over the two latents, on one colour scale."))
    return Section(key="latents", title="The latent space", text=text, pictures=pictures)


@torch.inference_mode()
def picture_sections(
    run: MeasuredRun,
    split: str,
    mixture: MixtureDensity | None,
    transport: Transport | None,
    fit_command: str,
    ranks: Ranks,
) -> list[Section]:
    """Samples, reconstructions, and the latent space, in this order."""
    images = evenly_spaced_images(run, split, ranks)
    # So few images do not show what the codes' range is.
    few = len(images) < 2 * gallery.COLUMNS
    trained_on = run.config.data.train_split
    sets = [block_latents(prior_sampler(run.model.latent_dim), seed=0, block=0)]
    sets += [mixture_latents(mixture)] if mixture is not None else []
    shown = Shown(
        run=run,
        images=images,
        split=split,
        walked=evenly_spaced_images(run, trained_on, ranks) if few else images,
        walked_split=trained_on if few else split,
        mixture=mixture,
        transport=transport,
        fit_command=fit_command,
        scale=gallery.map_scale(run.model, spread_out(images), *(z[:SAMPLES].to(ranks.device) for z in sets)),
    )
    all_labels = labels_of(run.config.data.location, split)
    indices = subset_indices(run.manifest, split, len(images))
    labels = tuple(np.array(all_labels, dtype=object)[indices]) if all_labels else None
    return [sample_section(shown), reconstruction_section(shown), latent_section(shown, labels)]
