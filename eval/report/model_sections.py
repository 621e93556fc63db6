"""The report's sections that the model draws now: reconstructions, samples, and walks through the latent space."""

import torch
from torch import Tensor

from eval.images.blocks import subset_blocks, subset_indices
from eval.images.sources import block_latents, mixture_sampler, prior_sampler
from eval.images.transport import Transport, fitted_before, load_transport
from eval.report import gallery
from eval.report.document import Missing, Picture, Section
from eval.report.figures import density_figure
from eval.report.gallery import Scale
from eval.run import MeasuredRun
from trainer.mixture.density import MixtureDensity
from trainer.networks import SigmaVAE
from trainer.process_group import Ranks
from trainer.run_folder import latents

SAMPLES = 3 * gallery.COLUMNS
WALK_IMAGES = 500


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


def picture(data: bytes, caption: str, scale: Scale | None = None) -> Picture:
    """Images with their caption, and the scale of their maps where there are some."""
    if scale is not None:
        caption += f" Maps run from {scale.darkest:.3f} (dark) to {scale.brightest:.3f} (bright) on the [0, 1] scale."
    return Picture(data=data, caption=caption, pixels=True)


def flat_maps(model: SigmaVAE) -> str:
    """What must be said of the maps of weights that have one variance."""
    return "" if model.per_pixel else " These weights have one variance for all pixels, so the maps of sigma are flat."


def reconstruction_section(model: SigmaVAE, images: Tensor, split: str) -> Section:
    """Inputs, reconstructions, errors and predicted deviations."""
    few = images[:: max(1, len(images) // gallery.COLUMNS)][: gallery.COLUMNS]
    caption = (
        f"From the top: images of split {split}, their reconstructions, the error |x - g|, and the predicted deviation "
        f"sigma of each pixel.{flat_maps(model)}"
    )
    data, scale = gallery.reconstructions(model, few)
    return Section(key="reconstructions", title="Reconstructions", pictures=[picture(data, caption, scale)])


def sample_section(
    model: SigmaVAE,
    mixture: MixtureDensity | None,
    transport: Transport | None,
    fit_command: str,
    device: torch.device,
) -> Section:
    """Samples from q_hat, the same transported where a transport is fitted, and samples from the prior."""
    sets = {"z from the prior N(0, I).": block_latents(prior_sampler(model.latent_dim), seed=0, block=0)}
    missing = []
    if mixture is None:
        missing.append(
            Missing(
                what="No mixture is fitted to the codes of these weights, so there are no samples from q̂.",
                command=fit_command,
            )
        )
    else:
        sets = {f"z from q̂, a mixture of {len(mixture.weights)}.": mixture_latents(mixture)} | sets
    drawn, scale = gallery.samples(model, *(z[:SAMPLES].to(device) for z in sets.values()))
    pictures = [picture(data, text + flat_maps(model), scale) for data, text in zip(drawn, sets, strict=True)]
    if transport is not None:
        z = mixture_latents(transport.mixture)[:SAMPLES].to(device)
        transported = transport.apply(z, model.decode(z).mean)
        caption = "The same samples from q̂, transported to the distribution of real images."
        pictures.insert(1, picture(gallery.images(transported), caption))
    return Section(
        key="samples",
        title="Samples",
        text=[
            "Samples are the mean images g(z), not chosen by eye. Below each row stands its predicted deviation sigma."
        ],
        pictures=pictures,
        missing=missing,
    )


def latent_section(run: MeasuredRun, images: Tensor, kind: str, mixture: MixtureDensity | None) -> Section:
    """Walks between the codes of images, (at least 2, C, H, W), that are of a `kind` such as "held-out".

    Traversals, interpolations, and for two latents the densities of the paper's Table 1."""
    model = run.model
    posterior = model.encode(images)
    walked, dimensions = gallery.traversals(model, posterior.mean)
    pairs = posterior.mean[:: max(1, len(images) // gallery.COLUMNS)]
    pictures = [
        picture(
            walked,
            f"One latent a row (dimensions {', '.join(map(str, dimensions))}, those that vary most), moved from 2.5 "
            "standard deviations of the codes below their mean to 2.5 above; the others stay at one image's code.",
        ),
        picture(gallery.interpolations(model, pairs), f"Straight lines between pairs of {kind} images."),
    ]
    if model.latent_dim == 2:
        trained_on = run.config.data.train_split
        if latents.exists(run.folder, trained_on):
            codes = run.codes(trained_on)
        else:
            codes = latents.Latents(posterior.mean.cpu(), posterior.std.cpu(), torch.arange(len(images)))
        data = density_figure(codes, mixture.score_samples if mixture else None)
        pictures.append(Picture(data=data, caption="Log-densities over the two latents, on one colour scale."))
    return Section(key="latents", title="The latent space", pictures=pictures)


@torch.inference_mode()
def picture_sections(
    run: MeasuredRun,
    split: str,
    mixture: MixtureDensity | None,
    transport: Transport | None,
    fit_command: str,
    ranks: Ranks,
) -> list[Section]:
    """Reconstructions, samples, and the latent space, in this order."""
    images = evenly_spaced_images(run, split, ranks)
    # So few images do not show what the codes' range is.
    few = len(images) < 2 * gallery.COLUMNS
    walked = evenly_spaced_images(run, run.config.data.train_split, ranks) if few else images
    return [
        reconstruction_section(run.model, images, split),
        sample_section(run.model, mixture, transport, fit_command, ranks.device),
        latent_section(run, walked, "training" if few else "held-out", mixture),
    ]
