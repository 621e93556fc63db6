"""What another job makes or measures at this moment is refused in one line, read when it is there, or taken over."""

import shutil

import pytest
from support.changed_run import change_weights
from support.distance_extractor import make
from support.running import run_module

from data_shards.io.errors import InputError
from data_shards.io.lease import lease
from eval.distance.comparison import measure_distance
from eval.images.encoding import encode_split
from eval.measured_once import measured_once
from eval.measurements.likelihood import measure_likelihood
from eval.measurements.memorisation import measure_memorisation
from eval.measurements.uncertainty import measure_uncertainty
from eval.questions import DistanceQuestion, LikelihoodQuestion, MemorisationQuestion, UncertaintyQuestion
from eval.results import UncertaintyResult
from eval.run import load_run
from trainer.process_group import single

pytestmark = pytest.mark.usefixtures("own_cache")

ALONE = single()
EXTRACTOR = {"extractor": f"{make.__module__}:make", "extractor_size": 32}
MEASUREMENTS = {
    "distance": lambda run: measure_distance(run, DistanceQuestion(source="prior", n=64, **EXTRACTOR), ALONE),
    "likelihood": lambda run: measure_likelihood(run, LikelihoodQuestion(samples=2, mixture=4, images=10), ALONE),
    "uncertainty": lambda run: measure_uncertainty(run, UncertaintyQuestion(images=10), ALONE),
    "memorisation": lambda run: measure_memorisation(run, MemorisationQuestion(mixture=4, images=10), ALONE),
}


@pytest.fixture
def folder(tmp_path, digits_run):
    """A run folder that a test may change, without results."""
    copy = shutil.copytree(digits_run, tmp_path / "run")
    shutil.rmtree(copy / "eval", ignore_errors=True)
    return copy


def test_what_another_job_is_making_is_not_touched(folder):
    change_weights(folder)
    run = load_run(folder)
    with lease(folder / "latents" / "train"), pytest.raises(InputError, match="in use by"):
        encode_split(run, "train", ALONE)
    assert not encode_split(run, "train", ALONE).encoded_before


@pytest.mark.parametrize("kind", MEASUREMENTS)
def test_what_another_job_measures_at_this_moment_is_refused_in_one_line_and_read_when_it_has_ended(folder, kind):
    results = folder / "eval"
    measure = MEASUREMENTS[kind]
    result = measure(load_run(folder))
    (path,) = results.glob("*.json")
    kept = path.rename(folder.parent / "kept.json")
    with lease(results, path.stem):
        with pytest.raises(
            InputError, match=r"in use by process .*; wait for it, stop it, or .*: --steal-lock$"
        ) as refused:
            measure(load_run(folder))
        assert "\n" not in str(refused.value)
        assert not path.exists()
        kept.rename(path)  # the other job writes it
        assert measure(load_run(folder)) == result
    assert not list(results.glob(".lease*"))


def test_a_command_takes_a_measurement_over_from_another_job_which_then_writes_nothing(folder):
    run = load_run(folder)
    question = UncertaintyQuestion(images=10)
    protocol = measure_uncertainty(run, question, ALONE).protocol
    path = run.result_path("uncertainty", protocol)
    path.unlink()
    words = ("eval", "uncertainty", "--run", str(folder), "--images", "10")
    with measured_once(UncertaintyResult, path, protocol, ALONE) as place_of_other:
        refused = run_module(*words)
        taken = run_module(*words, "--steal-lock")
        written = path.read_bytes()
        with pytest.raises(InputError, match=r"taken over|was removed"):
            place_of_other.save(UncertaintyResult.load(path))
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert (taken.returncode, path.read_bytes()) == (0, written)
