"""Grids of pictures that show what the model does at a check: samples from the prior, and reconstructions."""

import torch
from torch import Tensor
from torchvision.utils import make_grid

from data_shards.stream.stream import ShardStream
from trainer.config.sections import DataConfig
from trainer.networks import SigmaVAE
from trainer.noise import global_noise

_COLUMNS, _SAMPLE_ROWS = 8, 4


class Pictures:
    """Draws the same images and latents at every check. Every process draws, as sharded networks need all of them."""

    def __init__(self, data: DataConfig, seed: int) -> None:
        self._data, self._seed = data, seed
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
        stream = ShardStream(
            self._data.location,
            split=self._data.valid_split,
            global_batch=_COLUMNS,
            rank=0,
            world_size=1,
            shuffle=False,
            max_substitutes=self._data.substitutes,
        )
        return next(iter(stream)).image


def _grid(images: Tensor) -> Tensor:
    return (make_grid(images.clamp(0, 1).cpu(), nrow=_COLUMNS, padding=1) * 255).round().to(torch.uint8)
