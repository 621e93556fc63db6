"""Which results of a run are current, and what renews the others."""

import json
import shutil

import pytest
from support.results import result_file

from eval.measurements.likelihood import measure_likelihood
from eval.measurements.uncertainty import measure_uncertainty
from eval.questions import LikelihoodQuestion, UncertaintyQuestion
from eval.report.known import Subject
from eval.run import load_run
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import Settings
from trainer.process_group import single

QUESTION = LikelihoodQuestion(images=5, samples=2, mixture=4)


@pytest.fixture
def run(tmp_path, digits_run):
    """A copy of the run with a likelihood."""
    folder = shutil.copytree(digits_run, tmp_path / "digits")
    measure_likelihood(load_run(folder), QUESTION, single())
    return folder


def results(run):
    return Subject(load_run(run)).results()


def test_a_result_of_another_mixture_is_not_current_and_its_command_renews_it(run):
    assert len(results(run).likelihoods) == 1
    fit_run_mixture(run, Settings(n_components=4, random_state=3, kmeans_iter=1, max_iter=1), ranks=single())
    found = results(run)
    assert found.likelihoods == []
    (earlier,) = found.earlier
    assert earlier.command == f"python -m eval likelihood --run {run} --images 5 --samples 2 --mixture 4"
    assert earlier.reason == "what samples are drawn from has changed since"
    measure_likelihood(load_run(run), QUESTION, single())
    assert (len(results(run).likelihoods), results(run).earlier) == (1, [])


def test_a_file_that_does_not_say_what_was_measured_is_of_an_earlier_version(run):
    content = json.loads(result_file(run, "likelihood").read_text())
    del content["protocol"]
    result_file(run, "likelihood").unlink()
    (run / "eval" / "likelihood.json").write_text(json.dumps(content))
    found = results(run)
    assert found.likelihoods == []
    assert [one.reason for one in found.earlier] == ["likelihood.json does not say what was measured"]
    measure_likelihood(load_run(run), QUESTION, single())
    assert len(results(run).likelihoods) == 1


def test_a_file_of_an_earlier_version_with_its_protocol_counts_as_what_it_says(run):
    path = result_file(run, "likelihood")
    path.rename(run / "eval" / "likelihood.json")
    assert len(results(run).likelihoods) == 1
    measure_likelihood(load_run(run), QUESTION, single())
    assert not path.exists()  # it is not measured again


def test_another_definition_of_a_measure_makes_its_results_earlier_ones(run, monkeypatch):
    monkeypatch.setattr("eval.results.LikelihoodResult.MEASURE", "likelihood 2")
    assert results(run).likelihoods == []


def test_of_several_current_results_the_page_shows_one_for_each_set_of_weights(run):
    for weights in ("stage1", "final"):
        measured = load_run(run, weights)
        for images, split in ((5, "test"), (7, "test"), (9, "valid")):
            measure_uncertainty(measured, UncertaintyQuestion(images=images, split=split), single())
    shown = results(run).shown("test", "4-full").uncertainties
    assert [(one.protocol.weights, one.protocol.n) for one in shown] == [("stage1", 7), ("final", 7)]
