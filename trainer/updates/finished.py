"""A run that has ended: what is said of it, and that it has."""

import shlex
import sys

from data_shards.io.errors import InputError
from trainer.config.config import Config
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import complete_checkpoints, read_state
from trainer.run_folder.plain_files import require_plain_files
from trainer.run_folder.restore import OpenedRun, look_into_run_folder
from trainer.updates.stages import Stages


def stages_of(opened: OpenedRun) -> Stages:
    """Where a run stands."""
    config, manifest = opened.config, opened.manifest
    return Stages(
        (config.stage1, config.stage2) if config.two_stages else (config.stage1,),
        manifest.num_samples(config.data.train_split),
        min(config.data.valid_images, manifest.num_samples(config.data.valid_split)),
        opened.state,
    )


def finished(config: Config, *, allow_change: bool = False) -> str | None:
    """The last line of a run that has ended and does not go on under `config`; None for any other.

    Reads only, so the run may lie on a disk that cannot be written. Raises InputError where `open_run_folder` would.
    """
    require_plain_files(config.folder)
    folders = complete_checkpoints(config.folder)
    try:
        if not folders or not read_state(folders[-1]).stages.ended:
            return None
    except InputError:  # damaged: named where training goes on from an earlier one
        return None
    opened = look_into_run_folder(config, allow_change=allow_change)
    stages = stages_of(opened)
    if not stages.complete:
        return None
    for line in opened.damaged:
        print(f"warning: {line}", file=sys.stderr, flush=True)
    return completed(opened.config, stages)


def is_finished(config: Config, ranks: Ranks, *, allow_change: bool) -> bool:
    """Whether the run has ended for all processes, which call this together; the first one then says so."""
    line = ranks.agree(lambda: finished(config, allow_change=allow_change))
    if ranks.any(line is None):
        return False
    if ranks.is_main:
        print(line, flush=True)
    return True


def completed(config: Config, stages: Stages) -> str:
    """The last line of a run that has ended: what it reached, where everything is, and what comes next."""
    state, folder = stages.state, config.folder
    elbo = "" if state.best_elbo is None else f", held-out ELBO {state.best_elbo:,.1f} nats per image"
    return (
        f"{folder} is complete: {stages.images:,} images, {state.ended}{elbo}; the weights are in "
        f"{complete_checkpoints(folder)[-1]}, the log in {folder / 'metrics.jsonl'}; "
        f"next: python -m eval report --run {shlex.quote(str(folder))}"
    )
