"""Trainings and commands on the CPU or on the pretended GPU, many in one process."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from device.pretended.session import carry_out_job
from support.forked import Job
from support.training import SMALL

from trainer.updates.learner import Learner

DISTANCE = ["--mixture", "3", "--n", "60", "--extractor", "support.distance_extractor:make"]
SECONDS = 800.0
"""For one session, on a machine that does much else."""
# Nine updates in each stage, and a line of the log after five.
IMAGES = {"train": 1397, "valid": 30, "test": 50}
STAGE_IMAGES = 270
FIELDS = SMALL | {
    "stage1.max_epochs": STAGE_IMAGES / IMAGES["train"],
    "stage2.max_epochs": STAGE_IMAGES / IMAGES["train"],
    "stage1.check_images": 100_000,
    "stage2.check_images": 100_000,
    "log.every_images": 150,
    "data.valid_images": IMAGES["valid"],
}
ONE_BY_ONE = {"engine.cuda_graphs": False}
"""Updates are not recorded, so that all that they launch is counted; the other trainings replay graphs."""
# A split of 50 images: every other update is the last of an epoch, on 20 images.
SHORT_EPOCHS = {
    "data.train_split": "test",
    "stage1.max_epochs": STAGE_IMAGES / IMAGES["test"],
    "stage2.max_epochs": STAGE_IMAGES / IMAGES["test"],
}
TRAININGS: dict[str, dict[str, Any]] = {
    "two-stages": {"data.flip": True},
    "adam": {"variance.update": "adam", "variance.beta_nll": 0.5, "data.on_device": False},
    "epoch": {"variance.update": "epoch", **SHORT_EPOCHS, **ONE_BY_ONE},
    # After trainings in the same process that do not ask for it.
    "batch-norm": {"model.norm": "batch", "engine.deterministic": True, **ONE_BY_ONE},
    "group-norm": {"model.norm": "group"},
    "average": {"optimiser.ema_images": 100, **ONE_BY_ONE},
    "clipping": {"optimiser.max_grad_norm": 0.5, **ONE_BY_ONE},
    "accumulation": {"engine.grad_accumulation_steps": 3},
    "warm-up": {"objective.kl_warmup_images": 200, "optimiser.warmup_images": 100},
    "vae": {"objective.name": "vae", **ONE_BY_ONE},
    "beta-vae": {"objective.name": "beta_vae"},
    "fixed": {"objective.name": "fixed", "objective.sigma2": 0.1, **SHORT_EPOCHS},
    "dip-vae-i": {"objective.name": "dip_vae_i"},
    "dip-vae-ii": {"objective.name": "dip_vae_ii", "engine.deterministic": True, "engine.grad_accumulation_steps": 2},
    "wae": {"objective.name": "wae_mmd", "engine.deterministic": True},
    "stopped": {"model.norm": "batch", "optimiser.ema_images": 100, "data.on_device": False, "data.flip": True},
}
ON_TWO = ("two-stages", "batch-norm", "accumulation", "wae", "stopped")

# Every command on a trained run, in this order. OUT is a folder; RUN and the device come with --run and --device.
COMMANDS: dict[str, list[str]] = {
    "encode": ["eval", "encode", "--split", "train", "valid", "test"],
    "mixture": ["trainer.mixture", "--components", "3"],
    "flow": ["trainer.flow", "--epochs", "1"],
    "mixture of few candidates": ["trainer.mixture", "--components", "12", "--candidates", "8"],
    "diagonal mixture": ["trainer.mixture", "--components", "4", "--covariance", "diag"],
    "transport": ["eval", "transport", "--mixture", "3"],
    "fid": ["eval", "fid", "--from", "q_hat", *DISTANCE],
    "fid of transported": ["eval", "fid", "--from", "transported", *DISTANCE],
    **{
        f"parts of fid, {' '.join(option)}": ["eval", "fid", "--from", "prior", *DISTANCE[2:], *option]
        for option in (("--part", "0/2"), ("--part", "1/2"), ("--merge", "2"))
    },
    "fid of the flow": ["eval", "fid", "--from", "flow", *DISTANCE[2:]],
    "likelihood": ["eval", "likelihood", "--mixture", "3", "--images", "20", "--samples", "8"],
    "uncertainty": ["eval", "uncertainty", "--images", "40"],
    "memorisation": ["eval", "memorisation", "--mixture", "3", "--images", "20"],
    "sample": ["eval", "sample", "--mixture", "3", "--n", "12", "--out", "OUT/samples"],
    "interpolate": ["eval", "interpolate", "--mixture", "3", "--rows", "2", "--steps", "3", "--out", "OUT/walks"],
    "traverse": ["eval", "traverse", "--rows", "2", "--steps", "3", "--out", "OUT/latents"],
    "reconstruct": ["eval", "reconstruct", "OUT/samples", "--out", "OUT/reconstructions"],
    "score": ["eval", "score", "OUT/samples", "--mixture", "3", "--samples", "4", "--annealing", "3"],
    "residuals": ["eval", "residuals"],
    "complete": ["eval", "complete", "--mixture", "3", "--images", "2"],
    "statistics": ["eval", "statistics", "OUT/samples", "--out", "OUT/statistics.npz", *DISTANCE[-2:]],
    "report": ["eval", "report", "--mixture", "3", "--make-nothing"],
}


def numbers(value: Any, name: str = "") -> dict[str, float]:
    """The numbers of a result, by their place in it, without those of its protocol and the time."""
    if isinstance(value, dict):
        inner = {f"{name}.{key}": part for key, part in value.items() if key not in ("protocol", "seconds", "cost")}
        return {key: number for at, part in inner.items() for key, number in numbers(part, at).items()}
    return {name: float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else {}


def measured(run: Path) -> dict[str, float]:
    """All numbers of the results of a run, by command, what was measured, and their place."""
    found = {}
    for path in sorted((run / "eval").glob("*.json")):
        result = json.loads(path.read_text())
        of = result.get("protocol", {})
        name = f"{path.name.split('-')[0]} {of.get('source', '')} {of.get('mixture', '')}"
        found |= numbers(result, name)
    return found


def commands_on(run: Path, out: Path, device: str) -> dict[str, list[str]]:
    """COMMANDS for a run, whose files go into the folder `out`."""
    words = ["--run", str(run), "--device", device]
    return {
        # Statistics are those of a folder of images.
        name: [*(word.replace("OUT", str(out)) for word in command), *(words[2:] if name == "statistics" else words)]
        for name, command in COMMANDS.items()
    }


class SessionError(AssertionError):
    """A process of a session failed."""


def run_session(folder: Path, device: str, processes: int, job: dict[str, Any]) -> dict[str, Any]:
    """Does the trainings and commands of `job`; returns what happened. Raises SessionError."""
    path = folder / "job.json"
    path.write_text(json.dumps({"device": device, **job}))
    started = Job.start([str(path)], processes, path.parent, work=carry_out_job)
    if any(started.wait(SECONDS)):
        raise SessionError(started.said()[-5000:])
    return json.loads(path.with_suffix(".found.json").read_text())


def train_all(runs: Path, shards: Path, device: str, processes: int) -> dict[str, Any]:
    """All trainings and a trial of a sweep, into `runs`, and by one process the commands; returns what they did.

    Stopped and resumed only on the GPU.
    """
    chosen = {name: TRAININGS[name] for name in (TRAININGS if processes == 1 else ON_TWO)}
    listed = {}
    for name, fields in chosen.items():
        values = FIELDS | fields | {"data.shards": shards, "runs": runs, "name": name, "device": device}
        listed[name] = [f"--{key}={value}" for key, value in values.items()]
    job: dict[str, Any] = {
        "pretended": device == "cuda",
        "trainings": listed,
        "stopped": {"stopped": 1} if device == "cuda" else {},
    }
    values = FIELDS | {"data.shards": shards, "runs": runs, "name": "trial", "device": device}
    job["trial"] = {"words": [f"--{key}={value}" for key, value in values.items()], "caps": [STAGE_IMAGES] * 2}
    if processes == 1:
        job["commands"] = commands_on(runs / next(iter(chosen)), runs / "out", device)
    return run_session(runs, device, processes, job)


@contextlib.contextmanager
def no_waits(after: int) -> Iterator[list[int]]:
    """A block in which torch raises where an update waits for a real GPU, but for the first ones of each stage.

    Gives the number within its stage of each update that was looked at.
    """
    original, seen, looked_at = Learner.update, Counter[int](), list[int]()

    def update(learner: Any, batch: Any, stages: Any, **others: Any) -> Any:
        seen[stages.state.stage] += 1
        number = seen[stages.state.stage]
        if number <= after:
            return original(learner, batch, stages, **others)
        looked_at.append(number)
        # The mode is of the process, and the thread that writes a checkpoint may wait.
        for thread in threading.enumerate():
            if thread.name == "checkpoint":
                thread.join()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return original(learner, batch, stages, **others)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    Learner.update = update  # type: ignore[method-assign, assignment]
    try:
        yield looked_at
    finally:
        Learner.update = original  # type: ignore[method-assign]
