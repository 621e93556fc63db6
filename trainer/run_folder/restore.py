"""Reading a trained run: its configuration, its checkpoints by name, its model."""

from pathlib import Path

from torch import Tensor

from data_shards.io.errors import InputError
from trainer.config.config import Config, load_config
from trainer.networks.model import SigmaVAE
from trainer.run_folder.checkpoint import complete_checkpoints, read_model, read_state, read_training

# Tensors of the weight average carry this prefix among a checkpoint's training tensors.
AVERAGE_PREFIX = "average/"


def checkpoint_of(run: str | Path, weights: str = "final") -> Path:
    """The checkpoint folder behind a name: "final" (the newest) or "stage1" (the end of stage 1)."""
    folders = complete_checkpoints(Path(run))
    if not folders:
        raise InputError(f"{run} has no complete checkpoint; train it first with `python -m trainer`", parameter="run")
    if weights == "final":
        return folders[-1]
    if weights != "stage1":
        raise InputError(f"{weights!r} is unknown; use final or stage1", parameter="weights")
    for folder in folders:
        stages = read_state(folder).stages
        if stages.stage == 1 and stages.ended:
            return folder
    raise InputError(f"stage 1 of {run} has not ended yet; continue with `python -m trainer`", parameter="weights")


def averaged(training: dict[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights among a checkpoint's training tensors; empty where the run keeps no average."""
    return {
        name.removeprefix(AVERAGE_PREFIX): value for name, value in training.items() if name.startswith(AVERAGE_PREFIX)
    }


def build_model(config: Config, image_shape: tuple[int, int, int], *, per_pixel: bool) -> SigmaVAE:
    """A model with new weights, to load weights into."""
    model = SigmaVAE(image_shape, config.model)
    if per_pixel:
        model.add_variance_head(1.0)  # the floor is a buffer and is loaded with the weights
    return model


def load_model(run: str | Path, weights: str = "final", device: str = "cpu") -> SigmaVAE:
    """The model of a run, in evaluation mode, with averaged weights if the run averages them.

    weights: "final" (the newest checkpoint) or "stage1" (the end of stage 1). Raises InputError if that is missing.
    """
    folder = checkpoint_of(run, weights)
    config, state = load_config(run), read_state(folder)
    model = build_model(config, state.image_shape, per_pixel=state.per_pixel)
    tensors = (averaged(read_training(folder)) if config.optimiser.ema_images else {}) or read_model(folder)
    model.load_state_dict(tensors)
    return model.to(device).eval()
