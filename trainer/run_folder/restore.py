"""Opening a run folder: to train it from the start or from its newest checkpoint, or to use its trained model."""

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from data_shards.io.atomic import write_text
from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from trainer.config.automatic import resolved
from trainer.config.config import Config, load_config, to_yaml
from trainer.networks.model import SigmaVAE
from trainer.process_group import Ranks
from trainer.run_folder.agreement import refuse_different_checkpoints, refuse_different_runs, require_shared_folder
from trainer.run_folder.changes import accepted_changes, refuse_without_effect
from trainer.run_folder.checkpoint import (
    Checkpoint,
    RunState,
    best_of,
    complete_checkpoints,
    newest_undamaged,
    passed_over,
    place_of,
    read_model,
    read_state,
    read_training,
)
from trainer.run_folder.configurations import record_changes, require_of_this_run, trained_configuration
from trainer.run_folder.latents import WEIGHTS
from trainer.run_folder.log import free_name
from trainer.run_folder.plain_files import require_plain_files
from trainer.stop_signals import place
from trainer.trial_batch import require_trainable

# Tensors of the weight average carry this prefix among a checkpoint's training tensors.
AVERAGE_PREFIX = "average/"


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """What a training starts from."""

    config: Config
    """The configuration, with numbers in place of what `auto` left to the images."""
    manifest: Manifest
    saved: Checkpoint | None
    """The checkpoint to resume from; None at the start of a run."""
    damaged: tuple[str, ...]
    """A line for each newer checkpoint that is damaged or a link, and was skipped."""
    changes: tuple[str, ...] = ()
    """The fields, as `field: old -> new`, with which the run goes on from here."""

    @property
    def state(self) -> RunState | None:
        """Where the run stands; None at its start."""
        return self.saved.state if self.saved is not None else None


def look_into_run_folder(config: Config, *, allow_change: bool = False) -> OpenedRun:
    """What `open_run_folder` finds, for one process; writes nothing."""
    require_plain_files(config.folder)
    manifest = _checked_manifest(config)
    config = resolved(config, manifest.image_shape)
    changes = accepted_changes(config, allow_change=allow_change)
    saved, damaged = _begun(config) if changes is None else _resume(config, manifest)
    return OpenedRun(config=config, manifest=manifest, saved=saved, damaged=damaged, changes=changes or ())


def open_run_folder(config: Config, ranks: Ranks, *, allow_change: bool = False) -> OpenedRun:
    """Checks the shards and the run folder, and writes config.yaml into a new one; every process calls it.

    allow_change: see `accepted_changes`. Raises InputError where a split is missing, the networks do not suit the
    images, the run was trained with another configuration or shard set, or all checkpoints are damaged. An error on one
    process ends all of them, or the others would wait for it.
    """
    manifest = ranks.agree(lambda: _checked_manifest(config))
    config = resolved(config, manifest.image_shape)
    refuse_different_runs(config, manifest, ranks)
    require_shared_folder(config.folder, ranks)
    ranks.agree(lambda: require_trainable(config, manifest.image_shape, ranks.device))
    changes = ranks.agree(lambda: accepted_changes(config, allow_change=allow_change))
    saved, damaged = ranks.agree(lambda: _begun(config) if changes is None else _resume(config, manifest))
    refuse_different_checkpoints(saved, ranks)
    ranks.agree(lambda: _write_configuration(config, changes, saved) if ranks.is_main else None)
    return OpenedRun(config=config, manifest=manifest, saved=saved, damaged=damaged, changes=changes or ())


def _checked_manifest(config: Config) -> Manifest:
    manifest = Manifest.load(config.data.location)
    for field in ("train_split", "valid_split"):
        split = getattr(config.data, field)
        if split not in manifest.splits or manifest.num_samples(split) == 0:
            raise InputError(manifest.lacks(split, config.data.shards), parameter=f"data.{field}")
    return manifest


def _write_configuration(config: Config, changes: tuple[str, ...] | None, saved: Checkpoint | None) -> None:
    """Writes config.yaml of a run in which nothing was trained, and of one that goes on with other values."""
    if saved is None:
        (config.folder / "checkpoints").mkdir(parents=True, exist_ok=True)  # before there is anything to lose
        _set_aside(config.folder / "config.yaml")
        write_text(config.folder / "config.yaml", to_yaml(config))
    elif changes:
        record_changes(config, saved.state.images)
    elif trained_configuration(config.folder) != config:  # its shards have moved, for instance
        write_text(config.folder / "config.yaml", to_yaml(config))


def _set_aside(path: Path) -> None:
    """Renames a config.yaml that holds more than this program writes, such as the comments of whoever wrote it."""
    if not path.is_file() or _is_as_written(path):
        return
    aside = path.rename(free_name(path.with_name("config.set-aside")))
    print(f"{path}: is not as the trainer writes it; it is now {aside}", file=sys.stderr, flush=True)


def _is_as_written(path: Path) -> bool:
    try:
        return path.read_bytes() == to_yaml(load_config(path)).encode()
    except InputError:
        return False


def _begun(config: Config) -> tuple[None, tuple[str, ...]]:
    """No checkpoint to go on from, and a message for each that is incomplete."""
    return None, passed_over(config.folder, -1)


def _resume(config: Config, manifest: Manifest) -> tuple[Checkpoint, tuple[str, ...]]:
    """The newest undamaged checkpoint, and a message for each newer one that is damaged or a link."""
    saved, damaged = newest_undamaged(config.folder)
    if saved is None:
        raise InputError(f"{damaged[0]}; all checkpoints are damaged")
    if saved.state.stages.stage == 2 and not config.two_stages:
        raise InputError(
            f"{config.stage2.max_epochs} leaves out the stage that {config.folder} is in; use a number above 0",
            parameter="stage2.max_epochs",
        )
    if saved.state.manifest != manifest.hash:
        raise InputError(
            f"{config.data.shards} is not the shard set that {config.folder} was trained on (its hash was "
            f"{saved.state.manifest[:12]}, here {manifest.hash[:12]}); choose another name",
            parameter="data.shards",
        )
    refuse_without_effect(config, saved.state, manifest.num_samples(config.data.train_split))
    return saved, (*damaged, *passed_over(config.folder, saved.state.images))


def checkpoint_of(run: str | Path, weights: str = "final") -> Path:
    """The checkpoint folder behind a name.

    weights: "final" (the newest), "stage1" (the end of stage 1) or "best" (the largest held-out ELBO of the newest
    stage). What is passed over, as it is no complete checkpoint, is named on stderr once. Raises InputError where there
    is no such checkpoint.
    """
    run = Path(run)
    require_plain_files(run)
    folders, incomplete = complete_checkpoints(run), passed_over(run, -1)
    without = f" ({'; '.join(incomplete)})" if incomplete else ""
    if not folders and place_of(run) is not None and run.parent.name == "checkpoints":
        raise InputError(f"{run} is a checkpoint; give its run folder, {run.parent.parent}", parameter="run")
    if not folders:
        raise InputError(
            f"{run} has no complete checkpoint{without}; train it first with `python -m trainer`", parameter="run"
        )
    if weights == "stage1":
        for folder in folders:
            stages = read_state(folder).stages
            if stages.stage == 1 and stages.ended:
                return folder
        raise InputError(
            f"stage 1 of {run} has not ended yet{without}; continue with `python -m trainer`", parameter="weights"
        )
    if weights not in WEIGHTS:
        raise InputError(f"{weights!r} is unknown; use one of {', '.join(WEIGHTS)}", parameter="weights")
    newest = folders[-1]
    for line in passed_over(run, read_state(newest).images):
        _warn_once(line)
    if weights == "final":
        return newest
    best = best_of(newest)
    if best is None or best not in folders:
        raise InputError(
            f"no checkpoint of {run} is known as its best: no held-out images were measured, an earlier version "
            f"trained it, or it is gone{without}; use final",
            parameter="weights",
        )
    return best


@functools.cache
def _warn_once(line: str) -> None:
    if place().rank == 0:
        print(f"warning: {line}", file=sys.stderr, flush=True)


def averaged(training: dict[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights among a checkpoint's training tensors; empty if the run does not average them."""
    return {
        name.removeprefix(AVERAGE_PREFIX): value for name, value in training.items() if name.startswith(AVERAGE_PREFIX)
    }


def build_model(
    config: Config,
    image_shape: tuple[int, int, int],
    *,
    per_pixel: bool,
    initial_variance: float = 1.0,
    learn_variance: bool = False,
) -> SigmaVAE:
    """A model of stage 1 with new weights, or, to load weights into, one of stage 2 (per_pixel).

    image_shape: (C, H, W). initial_variance, learn_variance: see `SigmaVAE`; the latter is ignored in stage 2.
    """
    model = SigmaVAE(
        image_shape,
        config.model,
        initial_variance=initial_variance,
        learn_variance=learn_variance and not per_pixel,
        family=config.variance.family,
    )
    if per_pixel:
        model.add_variance_head(1.0)  # the floor is a buffer and is loaded with the weights
    return model


def load_model(run: str | Path, weights: str = "final", device: str = "cpu") -> SigmaVAE:
    """The model of a run, in evaluation mode, with averaged weights if the run averages them.

    weights: "final", "stage1" or "best", see `checkpoint_of`. Raises InputError if that is missing.
    """
    folder = checkpoint_of(run, weights)
    config, state = trained_configuration(run), read_state(folder)
    require_of_this_run(folder, config)
    model = build_model(config, state.image_shape, per_pixel=state.per_pixel)
    tensors = (averaged(read_training(folder)) if config.optimiser.ema_images else {}) or read_model(folder)
    load_weights(model, tensors, place=f"{Path(folder).parent.parent / 'config.yaml'}")
    return model.to(device).eval()


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, place: str = "config.yaml of the run") -> None:
    """Loads the weights of a checkpoint. Raises InputError, naming `place`, where they are those of another network."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        wrong = str(error).splitlines()[-1].strip().rstrip(".")
        raise InputError(
            f"{place}: describes another network than its checkpoints hold ({wrong}); give it back the fields of model "
            "that it was trained with"
        ) from error
