"""What a method with a penalty on the latents of a whole global batch adds to the objective."""

from abc import ABC, abstractmethod
from importlib import import_module

from torch import Tensor

from trainer.config.methods import METHODS
from trainer.config.sections import ObjectiveConfig


class BatchPenalty(ABC):
    """A penalty that couples all rows of a global batch. Every process computes it over the rows of all processes."""

    draws_prior = False
    """Whether the penalty compares the latents with draws of the prior."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    @abstractmethod
    def rows(self, mean: Tensor, std: Tensor, z: Tensor) -> Tensor:
        """What the penalty needs of each image, (b, W), of its posterior and one sample z, each (b, D)."""

    @abstractmethod
    def __call__(self, rows: Tensor, prior: Tensor) -> Tensor:
        """The penalty in nats per image, (). rows: (n, W), all of the global batch; prior: (n, D) draws or (0, D)."""

    def loss(self, negative_elbo: Tensor, square_error: Tensor) -> Tensor:
        """What is minimised beside the penalty, (), from the sums over images of equation 8 and of the square error."""
        return negative_elbo


def batch_penalty(config: ObjectiveConfig) -> BatchPenalty | None:
    """The penalty of a method; None where it has none."""
    path = METHODS[config.name].penalty
    if not path:
        return None
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)(config)
