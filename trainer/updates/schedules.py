"""What changes from update to update by the images seen alone: the learning rates and the weight of the KL term.

Stage 2 begins with a new variance head on networks whose learning rate had fallen to its least. Measured on 64 x 64
emoji: where that rate went back up at once, the held-out ELBO fell by a third, with the head at rest as well, and
Adam's second moments, which look back over more updates than stage 1 had, did not follow gradients ten times as large.
So the head, which nothing can spoil, learns at the rate of stage 2 at once; the networks go on from the rate at which
stage 1 ended; and at the switch the moments shorten their memory (`moments_at_switch` in trainer/engines/engine.py).
"""

import math

from trainer.config.config import Config
from trainer.engines.engine import LearningRates


def learning_rates(
    config: Config, *, stage: int, stage_images: int, stage_cap: int, images: int, batch_images: int
) -> LearningRates:
    """Adam's learning rates for an update on `batch_images` images.

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
    networks = rate
    if stage == 2 and stage_images < optimiser.switch_warmup_images:
        start = min(rate, optimiser.final_fraction * optimiser.learning_rate)
        risen = (stage_images + batch_images) / (optimiser.switch_warmup_images + batch_images)
        networks = start + risen * (rate - start)
    of_variance = networks * (config.variance.learning_rate / optimiser.learning_rate)
    return LearningRates(networks=networks, log_variance=of_variance, variance_head=rate)


def kl_weight(config: Config, images: int) -> float:
    """The weight of the KL term, 0 to 1, for an update before which the run has seen `images` images."""
    warmup = config.objective.kl_warmup_images
    return min(1.0, images / warmup) if warmup else 1.0
