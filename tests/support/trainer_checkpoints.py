"""Checkpoints of three numbers."""

import torch

from trainer.run_folder.checkpoint import Checkpoint, RunState, StageState


def checkpoint(images: int, ended: str = "", best: int | None = None) -> Checkpoint:
    """One after `images` images of stage 1, which ends there for the reason `ended`; best: images at the best one."""
    state = RunState(
        images=images,
        stages=StageState(images=images, ended=ended, best_elbo=None if best is None else 1.0, best_images=best),
        per_pixel=False,
        image_shape=(1, 28, 28),
        manifest="fc09dca491095d8a",
        bad_steps=0,
        substituted=0,
        seed=0,
        world_size=2,
    )
    return Checkpoint(model={"w": torch.arange(3.0)}, training={"m": torch.ones(2)}, state=state)
