"""Weights & Biases. Its own variables choose where to: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline."""

import os
import secrets
from collections.abc import Mapping
from typing import Any

import wandb
from torch import Tensor

from trainer.run_folder.trackers.identity import identity
from trainer.run_folder.trackers.tracker import TrackedRun


class WeightsAndBiases:
    """One run of W&B for one run folder, which each start goes on with; its files lie in RUN/wandb."""

    def __init__(self, run: TrackedRun) -> None:
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "two-stage-sigma-vae"),
            id=identity(run.folder, "wandb", lambda: secrets.token_hex(4)),
            name=run.name,
            dir=run.folder,
            config=dict(run.settings),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True, x_service_wait=120),  # s, on a busy machine
        )
        # Without steps of W&B's own, which cannot go back to a checkpoint.
        self._run.define_metric("images")
        self._run.define_metric("*", step_metric="images")

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        """Numbers over images."""
        self._run.log({"images": images, **values})

    def pictures(self, pictures: Mapping[str, Tensor], images: int) -> None:
        """Pictures over images."""
        shown = {name: wandb.Image(picture.permute(1, 2, 0).numpy()) for name, picture in pictures.items()}
        self._run.log({"images": images, **shown})

    def close(self) -> None:
        """Ends this start of the run."""
        self._run.finish()
