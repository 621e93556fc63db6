"""What a notebook does with a run: the block of the README as it stands there, and its agreement with the commands."""

import re
import runpy
import shutil

import pytest
import torch
from support.running import ROOT, run_module

import eval
from data_shards import InputError
from data_shards.stream.stream import ShardStream
from eval.distance.comparison import comparison
from eval.images.sources import to_8_bits
from eval.measurements.likelihood import measure_likelihood
from eval.questions import DistanceQuestion, LikelihoodQuestion
from trainer.process_group import single

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits_run):
    """A copy of the run that may be written into."""
    return shutil.copytree(digits_run, tmp_path_factory.mktemp("python") / "digits")


@pytest.fixture(scope="module")
def run(folder):
    return eval.open_run(folder)


def test_the_block_of_the_readme_runs_as_it_stands_there(folder, tmp_path):
    section = (ROOT / "README.md").read_text().partition("## From Python\n")[2]
    block = re.search(r"(?:^    .*\n)+", section, flags=re.M)[0]
    assert block.count("runs/demo") == 1
    script = tmp_path / "readme.py"
    script.write_text(re.sub(r"^    ", "", block, flags=re.M).replace("runs/demo", str(folder)))
    names = runpy.run_path(str(script))
    assert names["z"].shape == (64, 2)
    assert names["x"].shape == names["p"].mean.shape == names["p"].variance.shape == (64, 1, 28, 28)
    assert names["nats"].shape == (64,)
    assert names["result"].value > 0
    assert names["result"].error is None
    assert names["result"].protocol.n == 10_000


@pytest.mark.parametrize(("density", "source"), [("mixture", "q_hat"), ("prior", "prior")])
def test_samples_are_those_of_the_command_fid(run, density, source):
    question = DistanceQuestion(source=source, mixture=4, n=100, seed=3)
    compared = comparison(run.measured, question, torch.device("cpu")).compared
    expected = torch.cat([images for _, images in compared.images(range(2))])
    assert torch.equal(to_8_bits(run.sample(100, density=density, seed=3)[1]), expected)


def test_transported_samples_lie_within_0_and_1_and_are_those_of_the_command_fid(folder):
    done = run_module("eval", "transport", "--run", str(folder), "--mixture", "4")
    assert done.returncode == 0, done.stderr
    run = eval.open_run(folder)
    question = DistanceQuestion(source="transported", mixture=4, n=70)
    compared = comparison(run.measured, question, torch.device("cpu")).compared
    expected = torch.cat([images for _, images in compared.images(range(2))])
    _, x = run.sample(70, density="transported")
    assert torch.equal(to_8_bits(x), expected)
    assert (x.min(), x.max()) >= (0, 0)
    assert x.max() <= 1


def test_log_likelihoods_are_those_of_the_command(run, digits_shards):
    (batch,) = ShardStream(digits_shards, split="test", global_batch=200, shuffle=False)
    nats = run.log_likelihood(batch.image.float() / 255, samples=3)
    question = LikelihoodQuestion(images=200, samples=3, mixture=4)
    stored = measure_likelihood(run.measured, question, single()).values["iwae_q_hat"]
    assert nats.dtype == torch.float64
    assert nats.mean().item() == pytest.approx(stored.value, rel=1e-6)


def test_weights_of_stage_1_have_one_variance_for_all_pixels(folder):
    decoded = eval.open_run(folder, weights="stage1").decode(torch.zeros(2, 2))
    assert decoded.variance.shape == (2, 1, 28, 28)
    assert decoded.variance.unique().numel() == 1


def test_a_run_with_several_mixtures_names_them(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "several")
    shutil.copytree(copy / "mixtures" / "4-full", copy / "mixtures" / "5-full")
    with pytest.raises(InputError, match="mixture: mixtures of 4, 5 components are fitted"):
        eval.open_run(copy).sample(1)
    assert len(eval.open_run(copy, mixture=4).sample(1)[0]) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.sample(0), "n: 0 is not a whole number of at least 1"),
        (lambda run: run.sample(1, density="dreams"), "density: 'dreams' is unknown"),
        (lambda run: run.encode(torch.zeros(1, 3, 28, 28)), r"x: shape \(1, 3, 28, 28\) is not \(B, 1, 28, 28\)"),
        (lambda run: run.encode(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)), "x: pixels are torch.uint8"),
        (lambda run: run.decode(torch.zeros(3)), r"z: shape \(3,\) is not \(B, 2\)"),
        (
            lambda run: run.log_likelihood(torch.zeros(1, 1, 28, 28), samples=0),
            "samples: 0 is not a whole number of at least 1",
        ),
        (lambda run: run.distance(to="nonesuch"), "nonesuch"),
    ],
)
def test_a_mistake_names_the_parameter(run, call, message):
    with pytest.raises(InputError, match=message):
        call(run)


def test_what_is_public_can_be_imported():
    assert all(getattr(eval, name) for name in eval.__all__)
