"""An exponential moving average of the weights, which replaces them in evaluation."""

import torch
from torch import Tensor

from trainer.networks.model import SigmaVAE


class WeightAverage:
    """Averages all parameters and buffers with a half-life in images."""

    def __init__(self, model: SigmaVAE, half_life_images: int) -> None:
        self.half_life = half_life_images
        self.average: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: SigmaVAE, images: int) -> None:
        """Moves the average toward the weights after an update on `images` images."""
        weight = 1 - 0.5 ** (images / self.half_life)
        for name, value in model.state_dict().items():
            self.average[name].lerp_(value, weight)

    def enter_stage2(self, model: SigmaVAE) -> None:
        """Adds the variance head with its initial weights."""
        for name, value in model.state_dict().items():
            if name == "variance_floor" or name not in self.average:
                self.average[name] = value.detach().clone()
