"""A stop at any moment: no traceback, no lost work, and in the end the bits of an uninterrupted run."""

import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from support.forked import Job
from support.training import events, weights, words

from trainer.run_folder.checkpoint import complete_checkpoints

# Every update is logged, and stages are checked often, so that the moments fall into everything that a run does.
FIELDS = {
    "stage1__max_epochs": 1.5,
    "stage2__max_epochs": 1,
    "stage1__check_images": 210,
    "stage2__check_images": 210,
    "log__every_images": 30,
    "checkpoint__every_images": 90,
}
WAYS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2", "STOP"]


def newest(run: Path) -> int:
    """Images at the newest checkpoint."""
    saved = complete_checkpoints(run)
    return int(saved[-1].name.split("-")[0]) if saved else 0


def seen(run: Path) -> int:
    """Images of the last update that was logged."""
    logged = events(run, "train") if (run / "metrics.jsonl").exists() else []
    return logged[-1]["images"] if logged else 0


@dataclass
class Stops:
    """Stops one run after another at random moments."""

    shards: Path
    folder: Path
    workers: int
    processes: int
    chance: random.Random
    reached: dict[str, int] = field(default_factory=dict)
    """How many stops came before training, in it, or after its end."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        Job.start(["--help"], 1, self.folder).wait(600)  # the first start imports everything
        began = time.monotonic()
        job = self.job("whole")
        assert job.wait(600) == [0] * self.processes, job.said()
        self.seconds = time.monotonic() - began

    def job(self, name: str) -> Job:
        arguments = words(self.shards, self.folder, name, data__workers=self.workers, **FIELDS)
        return Job.start(arguments, self.processes, self.folder)

    def stop_once(self, run: Path) -> bool:
        """Starts the run, stops it at a random moment, and checks what it left. Returns whether it has ended."""
        before, stops = newest(run), len(events(run, "stop")) if (run / "metrics.jsonl").exists() else 0
        way, job = self.chance.choice(WAYS), self.job(run.name)
        time.sleep(self.chance.uniform(0.0, 1.1 * self.seconds))
        if way == "STOP":
            run.mkdir(exist_ok=True)
            (run / "STOP").touch()
        else:
            some = [self.chance.randrange(self.processes)] if self.chance.random() < 0.3 else range(self.processes)
            job.kill(getattr(signal, way), some, with_children=self.chance.random() < 0.5)
        codes, said = job.wait(120), job.said()
        (run / "STOP").unlink(missing_ok=True)
        assert "Traceback" not in said, said
        assert not list(run.glob(".lease.json*")) or "before" in said or any(codes), said
        stopped = len(events(run, "stop")) - stops if (run / "metrics.jsonl").exists() else 0
        ended = (bool(complete_checkpoints(run)) and "is complete" in said) or self.is_complete(run)
        if stopped:
            assert codes == [130 if way == "SIGINT" and self.processes == 1 else 0] * self.processes, said
            assert events(run, "stop")[-1]["reason"] == way
            at = events(run, "stop")[-1]["images"]
            assert newest(run) == at, said
            assert seen(run) <= at < seen(run) + FIELDS["log__every_images"], said  # an epoch's last batch is shorter
            assert said.count("stopped by") == 1
            assert said.count("go on with:") == 1
            expected = f"{'no' if way in ('STOP', 'SIGINT', 'SIGHUP') else 'yes'} {way}\n"
            assert (run / "requeue").read_text() == expected
        elif not ended:
            assert newest(run) >= before
            assert seen(run) <= before, said  # no update was made that is not kept
            assert len(said.strip().splitlines()) <= 2 * self.processes, said
        self.reached["in training" if stopped else "after" if ended else "before"] = (
            self.reached.get("in training" if stopped else "after" if ended else "before", 0) + 1
        )
        return ended

    def is_complete(self, run: Path) -> bool:
        ends = events(run, "stage_end") if (run / "metrics.jsonl").exists() else []
        return any(end["stage"] == 2 for end in ends)

    def run(self, moments: int) -> None:
        """Stops runs at `moments` moments; each of them ends in the bits of the whole one."""
        number = 0
        while moments > 0:
            run = self.folder / f"stopped-{number}"
            ended, starts = False, 0
            while moments > 0 and not ended and starts < 12:
                ended = self.stop_once(run)
                moments, starts = moments - 1, starts + 1
            job = self.job(run.name)
            assert job.wait(600) == [0] * self.processes, job.said()
            found, expected = weights(run), weights(self.folder / "whole")
            assert all(torch.equal(found[name], expected[name]) for name in expected), run
            assert found.keys() == expected.keys()
            assert len({event["images"] for event in events(run, "train")}) == len(events(run, "train"))
            assert [event["stage"] for event in events(run, "stage_end")] == [1, 2]
            shutil.rmtree(run)
            number += 1


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "processes"), [(2, 1), (0, 2)])
def test_ten_stops_at_random_moments_lose_nothing(digits_shards, tmp_path, workers, processes):
    Stops(digits_shards, tmp_path / "runs", workers, processes, random.Random(processes)).run(5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_two_hundred_stops_at_random_moments_lose_nothing(digits_shards, tmp_path, workers, processes):
    """34 moments for each of six kinds of job."""
    stops = Stops(digits_shards, tmp_path / "runs", workers, processes, random.Random(10 * workers + processes))
    stops.run(34)
    print(stops.reached)
