"""Jobs beside each other: a GPU for each; one that fails is named with the last line of its log."""

import sys

import pytest
import torch
from support.evidence_cases import plan

from data_shards.io.errors import InputError, OneLineParser
from eval.commands import reproduce
from eval.paper.jobs import jobs
from eval.paper.plan import Measurements
from eval.paper.record import Question
from eval.paper.schedule import Place, Work, last_line, run_here, run_jobs, visible_gpus


@pytest.fixture
def broken_job(tmp_path):
    """A job whose shards do not exist."""
    path = tmp_path / "jobs" / "broken.json"
    Work(
        run=str(tmp_path / "broken"),
        config="trainer/configs/mnist.yaml",
        fields={"data.shards": str(tmp_path / "none")},
        questions=(Question(kind="uncertainty"),),
        pictures=("figure4",),
        measure=Measurements(),
        device="cpu",
    ).save(path)
    return path


def test_a_job_is_read_as_it_was_written(broken_job):
    work = Work.load(broken_job)
    assert work.questions == (Question(kind="uncertainty"),)
    assert work.measure == Measurements()


def test_a_job_that_fails_is_named_with_its_last_line(tmp_path, broken_job):
    (outcome,) = run_here([broken_job], 1)
    assert outcome.name == "broken"
    assert "none" in outcome.failure
    assert str(tmp_path / "broken.log") in outcome.failure


def test_the_last_line_is_the_last_that_is_not_empty(tmp_path):
    log = tmp_path / "log"
    log.write_text("first\nerror: data.shards: is missing\n\n")
    assert last_line(log, 2) == f"error: data.shards: is missing; see {log}"
    assert last_line(log, -9) == f"ended by SIGKILL; see {log}"


def test_jobs_of_two_commands_on_one_training_do_not_write_over_each_other(tmp_path, monkeypatch):
    made, place = plan(seeds=(0,)), Place(runs=tmp_path, processes=1, device="cpu", address="", source=None)
    files = []
    monkeypatch.setattr("eval.paper.schedule.ensure_shards", lambda plan, source: None)
    monkeypatch.setattr("eval.paper.schedule.run_here", lambda jobs, processes, gpus: iter(files.extend(jobs) or ()))
    asked = [
        [job for job in jobs(made, [target]) if job.training.name == "ours-seed0"] for target in ("table2", "table3")
    ]
    for wanted in asked:
        list(run_jobs(made, wanted, place))
    assert [Work.load(path).questions for path in files] == [job.questions for (job,) in asked]


@pytest.fixture
def gpu_machine(tmp_path, monkeypatch):
    """A machine with three GPUs. A job notes the GPU that it sees, and whether another job has it."""
    worker = tmp_path / "python"
    notes = tmp_path / "notes"
    notes.mkdir()
    worker.write_text(
        "#!/bin/bash\n"
        f'exec {{lock}}>{notes}/lock-"$CUDA_VISIBLE_DEVICES"\n'
        'flock -n "$lock" || echo taken >> ' + str(notes) + "/taken\n"
        f'echo "$CUDA_VISIBLE_DEVICES" > {notes}/seen-$(basename "$3")\n'
        "sleep 0.2\n"
    )
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    return notes


@pytest.mark.parametrize(("variable", "names"), [(None, {"0", "1", "2"}), ("4,GPU-8a,6", {"4", "GPU-8a", "6"})])
def test_each_job_has_a_gpu_to_itself(gpu_machine, tmp_path, monkeypatch, variable, names):
    if variable is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    (tmp_path / "jobs").mkdir()
    files = [tmp_path / "jobs" / f"{number}.json" for number in range(7)]
    assert [outcome.failure for outcome in run_here(files, 8, visible_gpus())] == [""] * 7
    assert {path.read_text().strip() for path in gpu_machine.glob("seen-*")} == names
    assert not (gpu_machine / "taken").exists()


def test_more_jobs_at_a_time_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    parser = OneLineParser()
    reproduce.add_arguments(parser)
    words = ["table2", "--dataset", "fashion-mnist", "--device", "cuda", "--processes", "3"]
    with pytest.raises(InputError, match="processes: 3 jobs at a time have 2 GPUs, one a job; use 2 or fewer"):
        reproduce.run(parser.parse_args(words))
