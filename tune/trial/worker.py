"""One process of a trial. Ray Train has made the process group; the trainer trains in it, and eval measures."""

import datetime
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.util
import torch.distributed as dist

from data_shards.io.errors import InputError
from trainer.config.config import Config
from trainer.loop import train
from tune.search.trials import failure, note_failure
from tune.sweep_config import MeasureConfig
from tune.trial.measure import measure
from tune.trial.own_fault import own_fault
from tune.trial.record import ATTEMPTS, headline


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all processes of a trial are given."""

    config: Config
    """The trainer's configuration."""
    measured: MeasureConfig
    """What is measured at the end."""


def work(params: dict[str, Task]) -> None:
    """Trains, or goes on training, and measures. Tells Ray of each held-out check and of the end."""
    task = params["task"]
    folder = task.config.folder
    if failure(folder):
        return  # another process failed by the configuration's fault, and Ray has started all of them again
    if ray.train.get_context().get_world_rank() == 0:
        _note_attempt(folder)
    try:
        train(task.config, _tell)
        if (folder / "requeue").exists():
            raise RuntimeError(f"the training was asked to stop: {(folder / 'requeue').read_text().strip()}")
        measure(task.config, task.measured)
    except Exception as error:
        reason = own_fault(error)
        if not reason:
            raise
        note_failure(folder, reason)
        # All processes raise an InputError together. After any other error the rest still wait for this one.
        if not isinstance(error, InputError) and ray.train.get_context().get_world_size() > 1:
            raise
        return
    dist.barrier()
    ray.train.report(headline(folder) | {"finished": True})


def _tell(kind: str, images: int, facts: dict[str, Any]) -> None:
    """Hears every event of the run, on all processes in the same order, and reports those that ASHA judges by.

    The trainer has reduced what it measured over the processes, so the first one's numbers are the trial's.
    """
    if kind != "valid":
        return
    ray.train.report(
        {
            "images": images,
            "elbo": facts["elbo_at_closed_form"],
            "stage": facts["stage"],
            "sigma2": facts["closed_form_sigma2"],
            "kl": facts["kl"],
            "active_dimensions": facts["active_dimensions"],
            "finished": False,
        }
    )


def _note_attempt(folder: Path) -> None:
    """A line for each start of the trial: how often it was tried again."""
    group = ray.util.get_current_placement_group()
    line = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "placement_group": group.id.hex() if group is not None else "",
    }
    with (folder / ATTEMPTS).open("a") as file:
        file.write(json.dumps(line) + "\n")
