"""A job that fails is named with the last line of its log."""

import pytest

from eval.paper.plan import Measurements
from eval.paper.record import Question
from eval.paper.schedule import Work, last_line, run_here


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
