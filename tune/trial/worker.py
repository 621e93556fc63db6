"""One process of a trial. Ray Train has made the process group; the trainer trains in it, and eval measures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.util
import torch
import torch.distributed as dist

from data_shards.io.errors import InputError
from eval.distance.comparison import measure_distance
from eval.images.encoding import encode_split
from eval.measurements.likelihood import measure_likelihood
from eval.questions import DistanceQuestion, LikelihoodQuestion
from eval.run import load_run
from trainer.config.config import Config
from trainer.loop import train
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import Settings
from trainer.process_group import process_group
from tune.sweep_config import MeasureConfig
from tune.trial.folder import load_failure, save_attempt, save_failure
from tune.trial.pause import wait_while_paused
from tune.trial.record import reported_metrics


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all processes of a trial are given."""

    config: Config
    """The trainer's configuration."""
    measure: MeasureConfig
    """What is measured at the end."""


def train_and_measure(params: dict[str, Task]) -> None:
    """Trains, or continues training, then measures. Reports each held-out check and the end to Ray."""
    task = params["task"]
    folder = task.config.folder
    if load_failure(folder):
        return  # another process failed because of the configuration, and Ray has started all of them again
    if ray.train.get_context().get_world_rank() == 0:
        group = ray.util.get_current_placement_group()
        save_attempt(folder, group.id.hex() if group is not None else "")
    try:
        train(task.config, _report_check)
        wait_while_paused(folder)
        _refuse_a_stopped_run(folder)
        measure_trial(task.config, task.measure)
    except Exception as error:
        wait_while_paused(folder)  # a training that begins meanwhile is refused, which is no fault of its own
        reason = configuration_fault(error)
        if not reason:
            raise
        save_failure(folder, reason)
        # All processes raise an InputError together. After any other error the rest still wait for this one.
        if not isinstance(error, InputError) and ray.train.get_context().get_world_size() > 1:
            raise
        return
    dist.barrier()
    ray.train.report(reported_metrics(folder) | {"finished": True})


def _report_check(kind: str, images: int, facts: dict[str, Any]) -> None:
    """Reports a held-out check, which ASHA compares, to Ray. Called for every event of the run, in the same order on
    all processes.

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


def measure_trial(config: Config, measure: MeasureConfig) -> None:
    """Writes the run's eval/*.json. All processes of the trial take part; nothing is measured twice."""
    if measure.images == 0 and measure.likelihood_images == 0:
        return
    with process_group(config.device) as ranks:
        for weights in ("stage1", "final") if config.two_stages else ("final",):
            run = load_run(config.folder, weights, ranks.device)
            if measure.mixture:
                for split in (config.data.train_split, config.data.valid_split):
                    encode_split(run, split, ranks)
                fit_run_mixture(config.folder, Settings(n_components=measure.mixture), weights=weights, ranks=ranks)
            for distance in _distances(measure, weights):
                measure_distance(run, distance, ranks)
            if measure.likelihood_images:
                likelihood = LikelihoodQuestion(
                    images=measure.likelihood_images,
                    samples=measure.likelihood_samples,
                    mixture=measure.mixture,
                    split=measure.split,
                )
                measure_likelihood(run, likelihood, ranks)


def _distances(measure: MeasureConfig, weights: str) -> list[DistanceQuestion]:
    """Of samples of all weights, and of reconstructions by the final ones."""
    if not measure.images:
        return []
    samples = DistanceQuestion(
        source="q_hat" if measure.mixture else "prior",
        n=measure.images,
        split=measure.split,
        mixture=measure.mixture or DistanceQuestion.mixture,
        also=measure.also if weights == "final" else (),
    )
    reconstructions = DistanceQuestion(source="reconstruction", n=measure.images, split=measure.split)
    return [samples, reconstructions] if weights == "final" else [samples]


def _refuse_a_stopped_run(folder: Path) -> None:
    if (folder / "requeue").exists():
        raise RuntimeError(f"the training was stopped before its end: {(folder / 'requeue').read_text().strip()}")


def configuration_fault(error: BaseException) -> str:
    """Why the configuration cannot be trained, in one line: trained again, it would fail again.

    Empty for any other error, such as a lost connection.
    """
    if isinstance(error, InputError):
        return str(error)
    first = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"out of memory: {first}"
    # torch has no class of its own for a failed allocation on a CPU.
    if isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error)):
        return f"out of memory: {first}"
    return ""
