"""A worker of a plan answers and draws by the weights that its run folder holds, whatever lies there of others."""

import dataclasses
import json
import shutil

import pytest

from data_shards.io.errors import InputError
from eval.paper.figures import picture_path
from eval.paper.plan import Measurements, MixtureForm
from eval.paper.record import FILE, Question
from eval.paper.schedule import Work
from eval.paper.worker import Worker

SUMMARY = Question(kind="mixture", mixture="4-full-posterior")


@pytest.fixture
def work(tmp_path, digits_run):
    """The fit of a mixture and a picture, of a copy of a run that is trained already."""
    run = shutil.copytree(digits_run, tmp_path / "digits")
    return Work(
        run=str(run),
        config=str(run / "config.yaml"),
        fields={},
        questions=(SUMMARY,),
        pictures=("figure4",),
        measure=Measurements(mixture=MixtureForm(components=4)),
        device="cpu",
    )


def test_what_is_of_other_weights_is_fitted_and_drawn_again_and_nothing_twice(work, tmp_path):
    Worker(work).run()
    record, picture = tmp_path / "digits" / FILE, picture_path(tmp_path / "digits", "figure4")
    expected, drawn, written = (
        json.loads(record.read_text())["results"],
        picture.read_bytes(),
        picture.stat().st_mtime_ns,
    )
    Worker(work).run()
    assert picture.stat().st_mtime_ns == written

    content = json.loads(record.read_text())
    for made_from in (content["results"][SUMMARY.key]["codes"]["train"], content["results"]["picture figure4"]):
        made_from["checkpoint"] = "of another training"
    record.write_text(json.dumps(content))
    picture.write_bytes(b"of another training")
    Worker(work).run()
    assert json.loads(record.read_text())["results"] == expected
    assert picture.read_bytes() == drawn


def test_a_picture_of_a_former_configuration_or_mixture_is_drawn_again(work, tmp_path):
    picture = picture_path(tmp_path / "digits", "figure4")
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(b"of a shorter training")
    Worker(work).run()
    before = picture.read_bytes()
    assert before != b"of a shorter training"
    measure = dataclasses.replace(work.measure, mixture=MixtureForm(components=3))
    Worker(dataclasses.replace(work, measure=measure)).run()
    assert picture.read_bytes() != before


def test_a_second_job_on_the_same_run_is_refused_and_writes_over_nothing(work, tmp_path):
    with (
        Worker(work).held(),
        pytest.raises(InputError, match="another command of python -m eval reproduce works on it"),
    ):
        Worker(work).run()
    assert not (tmp_path / "digits" / FILE).exists()
    Worker(dataclasses.replace(work, questions=(), pictures=())).run()
