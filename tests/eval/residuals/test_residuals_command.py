"""`python -m eval residuals` and correlated noise on a run on real digits."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from support.results import result_file, result_files
from support.running import ROOT, run_module

from data_shards.io.errors import InputError, command
from data_shards.stream.stream import ShardStream
from eval.__main__ import main
from eval.images.blocks import image_noise
from eval.measurements.regions import correlated_variances, region_means, region_sides
from eval.questions import ResidualsQuestion
from eval.residuals.fit import fit_covariances
from eval.residuals.stored import load_noise
from eval.run import load_run
from trainer.process_group import single


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits_run):
    """A copy of the run that may be written into."""
    copy = tmp_path_factory.mktemp("residuals") / "digits"
    shutil.copytree(digits_run, copy)
    return copy


def command_line(*words):
    """Runs `python -m eval WORDS` within this process. Returns the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["eval", *words])
        return command(main)


@pytest.fixture(scope="module")
def fitted(run):
    """The record of one covariance for all, without floor."""
    assert command_line("residuals", "--run", str(run), "--floor", "none") == 0
    return json.loads(result_file(run, "residuals").read_text())


@pytest.fixture(scope="module")
def residuals(run, digits_shards):
    """The residuals of all training images, (1397, 784), one image at a time."""
    opened = load_run(run)
    rows = []
    with torch.no_grad():
        for batch in ShardStream(digits_shards, split="train", global_batch=1, shuffle=False):
            x = batch.image.float() / 255
            posterior = opened.model.encode(x)
            z = posterior.mean + posterior.std * image_noise(0, batch.index.tolist(), 1, opened.model.latent_dim)[0]
            output = opened.model.decode(z)
            rows.append(((x - output.mean) / output.variance.sqrt()).double().flatten(1))
            if len(rows) == opened.manifest.num_samples("train"):
                break
    return torch.cat(rows)


def test_the_covariance_is_the_shrunk_second_moment_of_the_residuals_of_all_training_images(run, fitted, residuals):
    shrinkage = max(fitted["common"], key=lambda tried: tried["gain"])["value"]
    second = residuals.mT @ residuals / len(residuals)
    expected = (1 - shrinkage) * second + shrinkage * torch.diag(second.diagonal())
    noise = load_noise(load_run(run), ResidualsQuestion(floor="none"), single())
    torch.testing.assert_close(noise.covariances[0].dense, expected, rtol=1e-4, atol=1e-4)


def test_correlated_noise_makes_held_out_images_likelier_than_independent_pixels(run, fitted):
    options = ("--run", str(run), "--mixture", "0", "--images", "60", "--samples", "3")
    assert command_line("likelihood", *options) == 0
    independent = json.loads(result_file(run, "likelihood").read_text())
    assert command_line("likelihood", *options, "--noise", "correlated", "--floor", "none") == 0
    correlated = json.loads(result_file(run, "likelihood").read_text())
    gain = correlated["values"]["log_likelihood"]["value"] - independent["values"]["log_likelihood"]["value"]
    assert gain > 50
    assert gain == pytest.approx(fitted["gain"], rel=0.4)  # on other held-out images
    assert correlated["cap"] == fitted["cap"] > correlated["values"]["iwae_prior"]["value"]
    assert "bits_per_dimension_prior" not in correlated["values"]
    # The result for independent pixels has the address that it had before there was other noise.
    assert "noise" not in independent["protocol"]
    assert correlated["protocol"]["residuals"] in str(result_file(run, "residuals"))


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_fits_the_same_covariance(run, fitted, tmp_path, processes):
    copy = tmp_path / "digits"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("eval"))
    done = run_module("eval", "residuals", "--run", str(copy), "--floor", "none", processes=processes)
    assert done.returncode == 0, done.stderr
    other = json.loads(result_file(copy, "residuals").read_text())
    assert other["gain"] == pytest.approx(fitted["gain"], rel=1e-9)
    question = ResidualsQuestion(floor="none")
    one, many = (load_noise(load_run(folder), question, single()).covariances[0].dense for folder in (run, copy))
    torch.testing.assert_close(many, one, rtol=1e-9, atol=1e-9)


def test_by_default_no_eigenvalue_is_below_the_floor_of_algorithm_1(run):
    assert command_line("residuals", "--run", str(run), "--weights", "stage1") == 0
    opened = load_run(run, "stage1")
    noise = load_noise(opened, ResidualsQuestion(), single())
    assert torch.linalg.eigvalsh(noise.covariances[0].dense).min() >= 0.5 - 1e-9
    record = json.loads(result_file(run, "residuals-stage1").read_text())
    # Half of sigma_dataset^2 in every direction bounds the likelihood of any image.
    assert record["cap"] < -0.5 * 784 * torch.tensor(torch.pi * opened.model.dataset_variance).log().item()


def test_each_component_of_the_mixture_may_have_its_own_covariance(run, fitted):
    options = ("--noise", "correlated-component", "--mixture", "4", "--floor", "none")
    assert command_line("residuals", "--run", str(run), *options) == 0
    record = json.loads(result_file(run, "residuals").read_text())
    assert len(record["images"]) == 4
    assert sum(record["images"]) == 1397
    assert record["gain"] >= fitted["gain"]
    assert command_line("likelihood", "--run", str(run), *options, "--images", "40", "--samples", "2") == 0
    values = json.loads(result_file(run, "likelihood").read_text())
    assert values["protocol"]["noise"] == "correlated-component"


def test_large_images_have_factors_and_a_diagonal_near_the_dense_estimate(run, residuals, monkeypatch):
    monkeypatch.setattr("eval.residuals.fit.MOST_PIXELS", 100)
    fitted = fit_covariances(load_run(run), None, 0.0, single())
    (covariance,) = fitted.covariances
    rank = covariance.factor.shape[1]
    assert rank == max(fitted.common, key=lambda tried: tried.gain).value
    # The diagonal is that of the second moment, and the factors hold what the best ones of their number hold.
    second = residuals.mT @ residuals / len(residuals)
    torch.testing.assert_close(covariance.variance, second.diagonal(), rtol=0.02, atol=1e-3)
    values, vectors = torch.linalg.eigh(second)
    noise = (values.sum() - values[-rank:].sum()) / (784 - rank)
    best = vectors[:, -rank:] * (values[-rank:] - noise).clamp_min(0).sqrt()
    assert torch.linalg.matrix_norm(covariance.factor @ covariance.factor.mT - best @ best.mT) < 0.02 * values.norm()


# Both passes over residuals are summed over processes, in images that are taken to be too large for a whole covariance.
FACTORS_COMMAND = """
import sys
from eval.residuals import fit
from eval.__main__ import main
fit.MOST_PIXELS = 100
sys.argv = ["eval", "residuals", "--floor", "none", "--run", sys.argv[1]]
main()
"""


def test_two_processes_find_the_same_factors_of_large_images_as_one(run, tmp_path, monkeypatch):
    copy, script = tmp_path / "digits", tmp_path / "factors.py"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("eval"))
    script.write_text(FACTORS_COMMAND)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*launcher, script, copy], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    two = load_noise(load_run(copy), ResidualsQuestion(floor="none"), single()).covariances[0]
    monkeypatch.setattr("eval.residuals.fit.MOST_PIXELS", 100)
    (one,) = fit_covariances(load_run(run), None, 0.0, single()).covariances
    assert two.factor.shape == one.factor.shape != (784, 784)
    torch.testing.assert_close(two.dense, one.dense, rtol=1e-6, atol=1e-6)


def test_a_fit_that_is_there_is_not_made_again(run, fitted):
    path = next(path for path in result_files(run, "residuals") if json.loads(path.read_text()) == fitted)
    before = path.stat().st_mtime_ns
    assert command_line("residuals", "--run", str(run), "--floor", "none") == 0
    assert path.stat().st_mtime_ns == before


def test_noise_that_was_not_fitted_or_is_damaged_is_refused_in_one_line(run, fitted, tmp_path, capsys):
    copy = tmp_path / "digits"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("eval"))
    options = ("likelihood", "--run", str(copy), "--mixture", "0", "--noise", "correlated")
    assert command_line(*options) == 2
    assert f"`python -m eval residuals --run {copy}`" in capsys.readouterr().err
    shutil.copytree(run / "eval", copy / "eval", dirs_exist_ok=True)
    for path in (copy / "eval").glob("residuals-*.safetensors"):
        tensors = load_file(path)
        path.write_bytes(path.read_bytes()[: 8 * len(tensors)])
    with pytest.raises(InputError, match="damaged"):
        load_noise(load_run(copy), ResidualsQuestion(floor="none"), single())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("residuals", "--noise", "independent"), "--noise"),
        (("residuals", "--floor", "half"), "--floor"),
        (("residuals", "--noise", "correlated-component", "--mixture", "0"), "--mixture"),
        (("residuals", "--noise", "correlated-component", "--mixture", "77"), "python -m trainer.mixture"),
        (("likelihood", "--noise", "correlated-component", "--mixture", "0"), "--mixture"),
        (("likelihood", "--floor", "none"), "--floor"),
        (("complete", "--noise", "independent"), "--noise"),
        (("complete", "--hide", "middle"), "--hide"),
    ],
)
def test_a_mistake_is_reported_in_one_line(run, capsys, words, named):
    assert command_line(*words, "--run", str(run)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert named in error


def test_uncertainty_of_regions_is_right_with_correlated_noise_and_too_small_with_independent_pixels(run, fitted):
    options = ("--noise", "correlated", "--floor", "none", "--images", "200", "--calibrate")
    assert command_line("uncertainty", "--run", str(run), *options) == 0
    written = json.loads(result_file(run, "uncertainty").read_text())
    assert [region["side"] for region in written["regions"]] == [2, 4, 7, 14, 0]
    assert [region["regions"] for region in written["regions"]] == [196, 49, 16, 4, 1]
    for region in written["regions"]:
        for independent, correlated in zip(region["independent"], region["correlated"], strict=True):
            assert independent["value"] <= correlated["value"]
    for region in written["regions"]:
        for point in region["calibrated"][:3]:
            assert point["value"] == pytest.approx(point["level"], abs=0.08)
    whole = {point["level"]: point["value"] for point in written["regions"][-1]["correlated"]}
    assert whole[0.9] == pytest.approx(0.9, abs=0.06)
    assert {point["level"]: point["value"] for point in written["regions"][-1]["independent"]}[0.9] < 0.6


def test_drawn_residuals_have_the_covariance_of_their_latents_noise(run, fitted):
    opened, n = load_run(run), 4000
    noise = load_noise(opened, ResidualsQuestion(floor="none"), single())
    z = torch.randn(1, opened.model.latent_dim, generator=torch.Generator().manual_seed(0)).expand(n, -1)
    with torch.no_grad():
        output = opened.model.decode(z)
    drawn = noise.draw(z, output, torch.Generator().manual_seed(1)).flatten(1)
    std = output.variance[0].double().sqrt().flatten()
    expected = std[:, None] * noise.covariances[0].dense * std
    scale = expected.diagonal().sqrt()
    difference = (drawn.mT @ drawn / n - expected) / scale[:, None] / scale
    assert difference.abs().max() < 6 / n**0.5


def test_deviations_of_region_means_are_those_of_the_dense_covariance(run, fitted):
    opened = load_run(run)
    noise = load_noise(opened, ResidualsQuestion(floor="none"), single())
    z = torch.randn(3, opened.model.latent_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = opened.model.decode(z)
    sides = region_sides(28, 28)
    for side, found in zip(sides, correlated_variances(noise, z, output, sides), strict=True):
        averages = region_means(torch.eye(784).double().view(784, 1, 28, 28), side).mT  # (regions, 784)
        for row in range(3):
            std = output.variance[row].double().sqrt().flatten()
            dense = std[:, None] * noise.covariances[0].dense * std
            torch.testing.assert_close(found[row], ((averages @ dense) * averages).sum(1))


def test_calibrated_intervals_hold_what_is_asked_in_each_tenth_of_predicted_sigma(run):
    assert command_line("uncertainty", "--run", str(run), "--calibrate", "--images", "200") == 0
    written = json.loads(result_file(run, "uncertainty").read_text())
    calibrated = written["calibrated"]
    assert calibrated["split"] == "valid"
    assert len(calibrated["tenths"]) == 10
    for number in calibrated["coverage"]:
        assert number["value"] == pytest.approx(number["level"], abs=0.03)  # of 200 images each
    assert command_line("uncertainty", "--run", str(run), "--calibrate", "--split", "valid", "--images", "50") == 2
