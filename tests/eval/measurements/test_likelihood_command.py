"""`python -m eval likelihood` and `uncertainty` on a real run: processes, numbers, mistakes."""

import json
import shutil
import sys

import pytest
import torch
from support.results import result_file, result_files
from support.running import run_module

from data_shards.io.errors import command
from data_shards.stream.stream import ShardStream
from eval.__main__ import main
from eval.images.blocks import BLOCK, evenly_spaced, image_noise
from eval.results import LikelihoodResult
from eval.run import load_run
from trainer.objectives.gaussian import log_prior


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits_run):
    """A copy of the run that may be written into."""
    copy = tmp_path_factory.mktemp("likelihood") / "digits"
    shutil.copytree(digits_run, copy)
    return copy


def command_line(*words):
    """Runs `python -m eval WORDS` within this process, which saves the time of starting one. Returns the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["eval", *words])
        return command(main)


def measure(run, name, *options, processes=0):
    """Runs a command, under torchrun where `processes` is above 0, and returns what it wrote."""
    words = (name, "--run", str(run), *options)
    if processes:
        done = run_module("eval", *words, processes=processes)
        assert done.returncode == 0, done.stderr
    else:
        assert command_line(*words) == 0
    return json.loads(result_file(run, name).read_text())


@pytest.fixture(scope="module")
def one_process(run):
    return measure(run, "likelihood", "--mixture", "4", "--images", "130", "--samples", "3")


def test_a_result_by_the_same_protocol_is_not_measured_again(run, one_process):
    path = result_file(run, "likelihood")
    before = path.stat().st_mtime_ns
    options = ("--mixture", "4", "--images", "130", "--samples", "3")
    assert measure(run, "likelihood", *options) == one_process
    assert path.stat().st_mtime_ns == before


def test_another_seed_is_another_protocol_and_is_measured(run, one_process):
    options = ("--mixture", "4", "--images", "130", "--samples", "3", "--seed", "1")
    other = measure(run, "likelihood", *options)
    assert other["values"]["elbo"]["value"] != one_process["values"]["elbo"]["value"]
    assert other["values"]["elbo"]["value"] == pytest.approx(one_process["values"]["elbo"]["value"], rel=0.05)


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_writes_the_same_numbers_to_the_last_bit(run, one_process, processes):
    for path in result_files(run, "likelihood"):
        path.unlink()
    options = ("--mixture", "4", "--images", "130", "--samples", "3")
    assert measure(run, "likelihood", *options, processes=processes) == one_process


ANNEALED = ("--mixture", "4", "--images", "70", "--samples", "3", "--annealing", "12")


@pytest.fixture(scope="module")
def annealed(digits_run, tmp_path_factory):
    """A run with a likelihood that has the annealed bound too, and one that has not."""
    folder = shutil.copytree(digits_run, tmp_path_factory.mktemp("annealed") / "digits")
    plain = measure(folder, "likelihood", *ANNEALED[:-2])
    (folder / "eval").rename(folder / "plain")
    return folder, plain, measure(folder, "likelihood", *ANNEALED)


def test_annealing_adds_a_tighter_bound_and_leaves_the_other_numbers_as_they_are(annealed):
    _, plain, tighter = annealed
    for name, number in plain["values"].items():
        assert tighter["values"][name] == number, name
    for density in ("prior", "q_hat"):
        assert tighter["values"][f"iwae_{density}"]["value"] < tighter["values"][f"annealed_{density}"]["value"]
        assert 0.3 < tighter["values"][f"acceptance_{density}"]["value"] <= 1


def test_annealing_is_of_the_protocol_and_of_the_command_that_measures_again(annealed):
    _, plain, tighter = annealed
    assert "annealing" not in plain["protocol"]
    assert tighter["protocol"]["annealing"] == {"version": 1, "steps": 12, "leapfrog": 5, "chains": 1}
    protocols = [LikelihoodResult.from_json(content).protocol for content in (plain, tighter)]
    assert protocols[0].address() != protocols[1].address()
    expected = "python -m eval likelihood --run RUN --images 70 --samples 3 --mixture 4 --annealing 12"
    assert protocols[1].command("RUN") == expected


def test_two_processes_give_the_annealed_bound_of_one(annealed):
    folder, _, tighter = annealed
    shutil.rmtree(folder / "eval")
    assert measure(folder, "likelihood", *ANNEALED, processes=2) == tighter


def test_correlated_noise_has_an_annealed_bound_too(annealed):
    folder, _, _ = annealed
    shutil.rmtree(folder / "eval", ignore_errors=True)
    assert command_line("residuals", "--run", str(folder)) == 0
    words = ("--images", "20", "--mixture", "0", "--noise", "correlated", "--annealing", "10")
    values = measure(folder, "likelihood", *words)["values"]
    assert values["iwae_prior"]["value"] < values["annealed_prior"]["value"]


def test_calibration_is_the_same_on_one_process_and_two(run):
    alone = measure(run, "uncertainty", "--images", "70")
    for path in result_files(run, "uncertainty"):
        path.unlink()
    assert measure(run, "uncertainty", "--images", "70", processes=2) == alone
    assert len(alone["coverage"]) == 6


def test_the_numbers_are_those_of_a_loop_over_single_images(run, digits_shards, one_process):
    measured = load_run(run)
    model, wanted = measured.model, set(evenly_spaced(130, 200).tolist())
    mixture = measured.mixture(4, "full")
    bounds = {"prior": [], "q_hat": []}
    for batch in ShardStream(digits_shards, split="test", global_batch=1, shuffle=False):
        if int(batch.index) not in wanted:
            continue
        x = batch.image.float() / 255
        posterior = model.encode(x)
        noise = image_noise(0, [int(batch.index)], 3, model.latent_dim)[:, 0]  # (K, D)
        z = posterior.mean + posterior.std * noise
        g = model.decode(z)
        log_px = torch.distributions.Normal(g.mean, g.variance.sqrt()).log_prob(x).flatten(1).sum(1)
        log_q = torch.distributions.Normal(posterior.mean, posterior.std).log_prob(z).sum(1)
        for name, density in (("prior", log_prior(z)), ("q_hat", mixture.score_samples(z))):
            bounds[name].append((log_px + density - log_q).double().logsumexp(0) - torch.tensor(3).double().log())
    for name, values in bounds.items():
        values = torch.stack(values).detach()
        stored = one_process["values"][f"iwae_{name}"]
        assert stored["value"] == pytest.approx(values.mean().item(), rel=1e-4)
        assert stored["standard_error"] == pytest.approx(values.std().item() / 130**0.5, rel=1e-3)


def test_the_bound_lies_above_the_elbo_and_below_the_cap(one_process):
    values = {name: number["value"] for name, number in one_process["values"].items()}
    assert values["elbo"] < values["iwae_prior"] < values["iwae_q_hat"] < one_process["cap"]


def test_the_cap_is_that_of_the_floor_at_half_the_variance_of_the_data_set(one_process):
    floor = one_process["protocol"]["variance_floor"]
    assert floor == pytest.approx(one_process["dataset_variance"] / 2, rel=1e-5)
    best = 784 * torch.distributions.Normal(0.0, floor**0.5).log_prob(torch.tensor(0.0))
    assert one_process["cap"] == pytest.approx(best.item(), rel=1e-5)


def test_the_end_of_stage_1_has_one_variance_and_its_own_file(run):
    options = ("--weights", "stage1", "--mixture", "0", "--images", "60")
    assert command_line("likelihood", "--run", str(run), *options) == 0
    written = json.loads(result_file(run, "likelihood-stage1").read_text())
    assert written["protocol"]["variance"] == "one"
    assert written["protocol"]["variance_floor"] == written["dataset_variance"]
    assert "iwae_q_hat" not in written["values"]
    assert written["latent_kl"] is None


def test_every_image_is_measured_once_where_all_are_asked_for(run, digits_shards):
    written = measure(run, "likelihood", "--mixture", "0", "--images", "200", "--samples", "1")
    model = load_run(run).model
    (batch,) = ShardStream(digits_shards, split="test", global_batch=200, shuffle=False)
    x = batch.image.float() / 255
    posterior = model.encode(x)
    z = posterior.mean + posterior.std * image_noise(0, range(200), 1, model.latent_dim)[0]
    error = (model.decode(z).mean - x).double().square().mean()
    assert written["values"]["mean_square_error"]["value"] == pytest.approx(error.item(), rel=1e-5)


def test_blocks_are_smaller_than_the_subset_that_these_tests_measure():
    assert BLOCK < 130 / 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--images", "201"), ("images", "201", "200")),
        (("--images", "0"), ("images", "1 to 200")),
        (("--split", "tset"), ("split", "tset", "train, valid, test")),
        (("--samples", "0"), ("--samples", "0")),
        (("--annealing", "-1"), ("--annealing", "-1")),
        (("--chains", "3"), ("--chains", "--annealing")),
        (("--mixture", "77"), ("--mixture", "77", "python -m trainer.mixture")),
        (("--covariance", "round"), ("--covariance", "round", "full")),
        (("--weights", "newest"), ("--weights", "newest")),
        (("--seed", "-1"), ("--seed", "-1")),
    ],
)
def test_a_mistake_is_reported_in_one_line(run, capsys, options, words):
    assert command_line("likelihood", "--run", str(run), "--mixture", "0", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words), error


def test_a_folder_that_holds_no_run_is_reported_in_one_line(tmp_path):
    done = run_module("eval", "likelihood", "--run", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert str(tmp_path) in done.stderr


@pytest.mark.gpu
def test_a_gpu_gives_the_numbers_of_the_cpu_up_to_rounding(run, one_process):
    options = ("--mixture", "4", "--images", "130", "--samples", "3", "--device", "cuda")
    for path in result_files(run, "likelihood"):
        path.unlink()
    for name, number in measure(run, "likelihood", *options)["values"].items():
        assert number["value"] == pytest.approx(one_process["values"][name]["value"], rel=1e-3), name
