"""What changes over a run by schedule, as functions of the images seen: the learning rate and the weight of the KL."""

import math

from trainer.config.config import Config


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
