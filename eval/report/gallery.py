"""The pictures of a run as PNG files: reconstructions, samples with their variance maps, walks between latents."""

from collections.abc import Sequence

import torch
from torch import Tensor

from eval.report.pictures import Scale, grid, heat, png, scale_of, to_rgb
from trainer.networks.model import Likelihood, SigmaVAE

COLUMNS = 10


def enlargement(side: int) -> int:
    """Screen pixels for an image pixel, so that small images are not specks."""
    return max(1, round(84 / side))


def deviation(decoded: Likelihood) -> Tensor:
    """sigma_k(z) of each pixel, (B, C, H, W); the same everywhere in stage 1."""
    return decoded.variance.expand_as(decoded.mean).sqrt()


# Figure 3 of the paper, with the error beside the variance that should predict it.
@torch.no_grad()
def reconstructions(model: SigmaVAE, images: Tensor) -> tuple[bytes, Scale]:
    """Four rows: images (B, C, H, W) in [0, 1], reconstructions g(mu(x)), |x - g|, sigma_k; and the maps' scale."""
    decoded = model.decode(model.encode(images).mean)
    error, sigma = (images - decoded.mean).abs(), deviation(decoded)
    scale = scale_of(error, sigma, darkest=0.0)
    rows = [to_rgb(images), to_rgb(decoded.mean), heat(error, scale), heat(sigma, scale)]
    return png(grid(rows, enlarge=enlargement(images.shape[-1]))), scale


def images(shown: Tensor) -> bytes:
    """Rows of COLUMNS images (n, C, H, W), cut to [0, 1]."""
    rows = list(to_rgb(shown.clamp(0, 1)).split(COLUMNS))
    return png(grid(rows, enlarge=enlargement(shown.shape[-1])))


# Figures 2b and 4 of the paper.
@torch.no_grad()
def samples(model: SigmaVAE, *latents: Tensor) -> tuple[list[bytes], Scale]:
    """Rows of mean images g(z), each followed by a row of sigma_k(z): a picture for each set of latents, one scale.

    latents: (n, D) each, n a multiple of COLUMNS. The darkest colour is the smallest variance the model can have.
    """
    decoded = [model.decode(z) for z in latents]
    floor = model.variance_floor.item() ** 0.5 if model.per_pixel else 0.0
    scale = scale_of(*(deviation(each) for each in decoded), darkest=floor)
    pictures = []
    for each in decoded:
        rows: list[Tensor] = []
        maps = heat(deviation(each), scale)
        for image, spread in zip(to_rgb(each.mean).split(COLUMNS), maps.split(COLUMNS), strict=True):
            rows += [image, spread]
        pictures.append(png(grid(rows, enlarge=enlargement(each.mean.shape[-1]))))
    return pictures, scale


@torch.no_grad()
def traversals(model: SigmaVAE, means: Tensor, *, rows: int = 8, reach: float = 2.5) -> tuple[bytes, list[int]]:
    """One latent dimension a row, moved through the codes' own range while the others stay at an image's code.

    means: posterior means of images, (N, D); the first is where the others stay. The `rows` dimensions that vary most
    over images are shown, from `reach` standard deviations below their mean to as many above. Returns also which.
    """
    centre, spread = means.mean(0), means.std(0)
    shown = spread.argsort(descending=True)[:rows].tolist()
    steps = torch.linspace(-reach, reach, COLUMNS, device=means.device)
    lines = []
    for dimension in shown:
        z = means[:1].repeat(COLUMNS, 1)  # (COLUMNS, D)
        z[:, dimension] = centre[dimension] + steps * spread[dimension]
        lines.append(to_rgb(model.decode(z).mean))
    return png(grid(lines, enlarge=enlargement(model.image_shape[-1]))), shown


@torch.no_grad()
def interpolations(model: SigmaVAE, means: Tensor, *, rows: int = 5) -> bytes:
    """Straight lines between the codes of two images, one pair a row. means: (at least 2 * rows, D)."""
    steps = torch.linspace(0, 1, COLUMNS, device=means.device)[:, None]
    pairs = means[: 2 * rows].reshape(rows, 2, 1, -1)
    lines = [to_rgb(model.decode(torch.lerp(start, end, steps)).mean) for start, end in pairs]
    return png(grid(lines, enlarge=enlargement(model.image_shape[-1])))


def neighbours(sampled: Tensor, nearest: Sequence[Tensor]) -> bytes:
    """Samples in the first row, below each its nearest training images; all rows (n, C, H, W) uint8."""
    rows = [to_rgb(row.float() / 255) for row in (sampled, *nearest)]
    return png(grid(rows, enlarge=enlargement(sampled.shape[-1])))
