"""The model of a run, new or from a checkpoint, in the engine that the configuration chooses."""

import torch

from trainer.config.config import Config
from trainer.engines.ddp import DdpEngine
from trainer.engines.engine import Engine
from trainer.networks.model import SigmaVAE
from trainer.objectives.objective import Objective, initial_variance, learns_variance_by_gradient
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import Checkpoint


def memory_format(config: Config) -> torch.memory_format:
    """The layout of images and weights."""
    contiguous = config.engine.memory_format == "contiguous" or config.engine.name == "deepspeed"
    return torch.contiguous_format if contiguous else torch.channels_last


def build_engine(
    config: Config, image_shape: tuple[int, int, int], ranks: Ranks, saved: Checkpoint | None = None
) -> Engine:
    """An engine with the weights of `saved`, or with new ones; the optimiser starts without moments.

    image_shape: (C, H, W). Every process of the group calls it.
    """
    model = _build_model(config, image_shape, saved)
    model = model.to(ranks.device).to(memory_format=memory_format(config)).train()
    objective = Objective(model, config.objective, config.variance)
    if config.engine.name == "deepspeed":
        # Imported only where it is used: it takes seconds, and searches for a compiler.
        from trainer.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(objective, config, ranks)
    return DdpEngine(objective, config, ranks)


def _build_model(config: Config, image_shape: tuple[int, int, int], saved: Checkpoint | None) -> SigmaVAE:
    torch.manual_seed(config.seed)
    per_pixel = saved is not None and saved.state.per_pixel
    model = SigmaVAE(
        image_shape,
        config.model,
        initial_variance=initial_variance(config.objective, config.variance),
        learn_variance=learns_variance_by_gradient(config.objective, config.variance) and not per_pixel,
    )
    if per_pixel:
        model.add_variance_head(1.0)  # the floor is a buffer and is loaded with the weights
    if saved is not None:
        model.load_state_dict(saved.model)
    return model
