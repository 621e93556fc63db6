"""The parts of an update beside Adam's step: schedules, sigma^2 without gradients (decision D5), averaged weights."""

import math

import torch
from torch import Tensor

from trainer.config.config import Config
from trainer.config.sections import VarianceConfig
from trainer.networks.model import SigmaVAE
from trainer.objectives.gaussian import closed_form_variance


def learning_rate(config: Config, *, stage: int, stage_images: int, stage_cap: int, images: int) -> float:
    """Adam's learning rate for an update.

    stage: 1 or 2. stage_images: images seen in the stage before the update; stage_cap: the most it may see. images:
    images seen in the run after the update.
    """
    optimiser = config.optimiser
    rate = optimiser.learning_rate * (optimiser.stage2_fraction if stage == 2 else 1.0)
    if optimiser.schedule == "cosine":
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, stage_images / stage_cap)))
        rate *= optimiser.final_fraction + (1 - optimiser.final_fraction) * cosine
    if images < optimiser.warmup_images:
        rate *= images / optimiser.warmup_images
    return rate


def kl_weight(config: Config, images: int) -> float:
    """The weight of the KL term, 0 to 1, for an update before which the run has seen `images` images."""
    warmup = config.objective.kl_warmup_images
    return min(1.0, images / warmup) if warmup else 1.0


class VarianceUpdate:
    """Sets log sigma^2 after each update, by `closed_form` or `epoch`.

    All values stay on the device, so no update waits for the host.
    """

    def __init__(self, config: VarianceConfig, device: torch.device) -> None:
        self.config = config
        # updates so far; square error and images of the running epoch
        self.state = torch.zeros(3, dtype=torch.float64, device=device)

    def after_batch(self, model: SigmaVAE, square_error: Tensor, images: int, finite: Tensor) -> None:
        """Counts a global batch of `images` images; `closed_form` then updates sigma^2.

        square_error: (), summed over images and pixels. finite: () bool; a batch where it is False changes nothing.
        """
        taken = torch.where(finite, square_error, 0.0)
        counted = finite.double()
        self.state += torch.stack([counted, taken, counted * images])
        if self.config.update == "closed_form":
            # At first the mean of all batches, later a running mean in which the newest has the weight `smoothing`.
            weight = torch.clamp_min(1 / self.state[0].clamp_min(1), self.config.smoothing)
            newest = closed_form_variance(square_error, images * model.pixels)
            mixed = model.log_variance.double().exp().lerp(newest, weight).log().float()
            model.log_variance.data.copy_(torch.where(finite, mixed, model.log_variance.data))

    def after_epoch(self, model: SigmaVAE) -> None:
        """Ends an epoch: `epoch` sets sigma^2 to the closed form over the epoch."""
        if self.config.update == "epoch":
            mean = closed_form_variance(self.state[1], self.state[2] * model.pixels)
            model.log_variance.data.copy_(torch.where(self.state[2] > 0, mean.log().float(), model.log_variance.data))
        self.state[1:] = 0


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
