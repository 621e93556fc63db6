"""The project's batch scripts, submitted as a user submits them, with a model small enough for two cores."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scheduler import Scheduler, wait_for
from support.running import ROOT

from trainer.run_folder.log import read_events

# celeba_small.yaml, shrunk: images of 16 x 16, 900 updates in stage 2.
FIELDS: dict[str, Any] = {
    "data.global_batch": 8,
    "data.valid_images": 30,
    "model.latent_dim": 4,
    "model.encoder_channels": "[8,16]",
    "model.decoder_channels": "[16,8]",
    "model.kernel": 3,
    "stage1.max_epochs": 5,
    "stage1.check_images": 100000,
    "stage2.max_epochs": 30,
    "stage2.check_images": 100000,
    "checkpoint.every_images": 100000,
    "log.every_images": 240,
    "log.to": "[]",
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A scheduler, CelebA-shaped data, and the folders of the tests."""

    scheduler: Scheduler
    folder: Path
    source: Path
    shards: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        """Folder of the run folders."""
        return self.folder / "runs"

    def script_env(self, **variables: Any) -> dict[str, str]:
        """What a user exports before calling a script."""
        return {
            "PYTHON": sys.executable,
            "SOURCE": str(self.source),
            "SHARDS": str(self.shards),
            "RUNS": str(self.runs),
            "CONFIG": "trainer/configs/celeba_small.yaml",
            "PROCESSES": "1",
            "DEVICE": "cpu",  # the scheduler's GPUs are empty files
            "OMP_NUM_THREADS": "1",
        } | {name: str(value) for name, value in variables.items()}

    def script(self, name: str, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Calls a script of slurm/ on the login node."""
        env = {**self.scheduler.env, **self.script_env(**variables), "SBATCH_OUTPUT": f"{self.folder}/%x-%j.log"}
        return subprocess.run(
            [f"slurm/{name}", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False
        )

    def submit(self, options: list[str], name: str, *words: str, **variables: Any) -> str:
        """sbatch OPTIONS slurm/NAME WORDS; returns the job's id."""
        log = f"--output={self.folder}/%x-%j.log"
        command = ["sbatch", "--parsable", log, *options, f"slurm/{name}", *words]
        return self.scheduler.command(*command, env=self.script_env(**variables))

    def train(self, name: str, *options: str, fields: dict[str, Any] | None = None, **variables: Any) -> str:
        """Submits train_celeba.sh over two nodes."""
        chosen = FIELDS | (fields or {}) | {"name": name}
        words = [f"--{key}={value}" for key, value in chosen.items()]
        resources = ["--nodes=2", "--gpus-per-node=1", "--cpus-per-task=1", "--time=30"]
        return self.submit([*resources, *options], "train_celeba.sh", *words, **variables)

    def log(self, job: str) -> str:
        """What a job has printed so far."""
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"*-{job}.log")))

    def finish(self, job: str, *, state: str = "COMPLETED", seconds: float = 500) -> None:
        """Waits for a job's end, and starts it without delay whenever it is back in the queue."""

        def ended() -> str:
            found = self.scheduler.facts(job)
            if found["JobState"] == "PENDING" and found["Reason"] == "BeginTime":
                self.scheduler.start_now(job)
            return "" if found["JobState"] in ("PENDING", "RUNNING", "COMPLETING") else found["JobState"]

        try:
            reached = wait_for(ended, f"job {job} ends", seconds)
        finally:
            print(self.log(job)[-6000:])
        assert reached == state, self.log(job)[-3000:]


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind of a run."""
    return [event for event in read_events(run) if event["event"] == kind]


def wait_for_stage2(run: Path, updates: int = 100) -> None:
    """Waits until stage 2 has seen this many updates."""

    def inside() -> bool:
        seen = [event["images"] for event in events(run, "train") if event["stage"] == 2]
        return (
            bool(seen) and seen[-1] - events(run, "stage_start")[0]["images"] >= updates * FIELDS["data.global_batch"]
        )

    wait_for(inside, f"{run.name} is in stage 2", 300)
