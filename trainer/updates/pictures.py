"""Grids of pictures that show what the model does at a check: samples from the prior, and reconstructions."""

import torch
from torch import Tensor
from torchvision.utils import make_grid

from trainer.networks.model import SigmaVAE
from trainer.noise import global_noise
from trainer.process_group import single
from trainer.updates.streams import Passes

_COLUMNS, _SAMPLE_ROWS = 8, 4


class Pictures:
    """Draws the same images and latents at every check. Every process draws, as sharded networks need all of them."""

    def __init__(self, passes: Passes, seed: int) -> None:
        self._passes, self._seed = passes, seed
        self._images: Tensor | None = None

    @torch.no_grad()
    def draw(self, model: SigmaVAE, device: torch.device) -> dict[str, Tensor]:
        """ "samples": mean images of latents from the prior; "reconstructions": held-out images, below each its own.

        Both uint8 of shape (C, H, W).
        """
        if self._images is None:
            self._images = self._first_held_out()
        training = model.training
        model.eval()
        x = self._images.to(device).float() / 255
        latents = global_noise(self._seed, "pictures", 0, _COLUMNS * _SAMPLE_ROWS, model.latent_dim).to(device)
        reconstructed, samples = model.decode(model.encode(x).mean).mean, model.decode(latents).mean
        model.train(training)
        return {"samples": _grid(samples), "reconstructions": _grid(torch.cat([x, reconstructed]))}

    def _first_held_out(self) -> Tensor:
        batches = self._passes.over(self._passes.data.valid_split, single(), global_batch=_COLUMNS)
        return next(iter(batches)).image


def _grid(images: Tensor) -> Tensor:
    return (make_grid(images.clamp(0, 1).cpu(), nrow=_COLUMNS, padding=1) * 255).round().to(torch.uint8)
