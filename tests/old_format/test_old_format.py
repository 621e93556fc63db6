"""Shards and a run folder written before the manifest had a format number and fields were renamed are still read.

shards/ holds 220 real digits. run/ was trained on them in two stages with the first version of this project: it has
checkpoints at 720 images (the end of stage 1) and 1,080, codes, a mixture of 3, and results.
"""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from support.running import ROOT, run_module

HERE = Path(__file__).parent
SHARDS = str(HERE / "shards")


@pytest.fixture
def old_run(tmp_path):
    """A copy of the old run folder that a test may write into."""
    return shutil.copytree(HERE / "run", tmp_path / "run")


def train_on(run: Path):
    """The command that trains the run, with the configuration that it stored."""
    words = ["--config", str(run / "config.yaml"), "--runs", str(run.parent), "--data.shards", SHARDS]
    return run_module("trainer", *words)


def test_old_shards_are_verified():
    done = run_module("data_shards", "verify", SHARDS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_old_shards_are_streamed_in_the_order_of_their_manifest():
    from data_shards import ShardStream

    stream = iter(ShardStream(SHARDS, split="train", global_batch=20, seed=0))
    assert next(stream).index.tolist() == json.loads((HERE / "order.json").read_text())


def test_an_old_configuration_is_read_with_todays_names(old_run):
    from trainer import load_config

    stored = yaml.safe_load((old_run / "config.yaml").read_text())
    config = load_config(old_run)
    assert config.optimiser.max_grad_norm == stored["optimiser"]["gradient_clip"] == 10000
    assert config.checkpoint.keep_last == stored["checkpoint"]["keep"] == 1
    assert config.variance.min_variance == stored["variance"]["smallest"]


def test_a_finished_old_run_is_complete(old_run):
    done = train_on(old_run)
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout


def test_an_old_run_goes_on_from_its_checkpoint_to_the_weights_that_it_had(old_run):
    final = load_file(old_run / "checkpoints/000000001080/model.safetensors")
    shutil.rmtree(old_run / "checkpoints/000000001080")
    done = train_on(old_run)
    assert done.returncode == 0, done.stderr
    again = load_file(old_run / "checkpoints/000000001080/model.safetensors")
    assert again.keys() == final.keys()
    for name, value in final.items():
        # Another processor may add in another order; on the same one the bits are equal.
        assert (again[name] - value).abs().max() <= 1e-4 * value.abs().max().clamp(min=1e-3), name


def test_an_old_mixture_counts_as_fitted(old_run):
    done = run_module("trainer.mixture", "--run", str(old_run), "--components", "3")
    assert done.returncode == 0, done.stderr
    assert "already fitted" in done.stdout


def test_an_old_mixture_gives_samples_and_likelihoods(old_run, monkeypatch):
    from eval import open_run

    monkeypatch.chdir(ROOT)
    run = open_run(old_run)
    _, images = run.sample(5, density="mixture", seed=0)
    assert images.shape == (5, 1, 28, 28)
    assert run.log_likelihood(images, samples=4).isfinite().all()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["fid", "--from", "q_hat", "--mixture", "3", "--n", "60"], "fid-q_hat-3-full-60-test-efficientnet-lite0-64"),
        (["likelihood", "--mixture", "3", "--images", "20", "--samples", "4"], "likelihood"),
        (["uncertainty", "--images", "20"], "uncertainty"),
    ],
)
def test_an_old_result_is_not_measured_again(old_run, words, name):
    path = old_run / "eval" / f"{name}.json"
    before = path.stat().st_mtime_ns
    done = run_module("eval", words[0], "--run", str(old_run), *words[1:])
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mtime_ns == before


def test_a_report_of_a_run_that_is_only_read_shows_old_results(old_run, tmp_path):
    before = sorted(old_run.rglob("*"))
    out = tmp_path / "page"
    done = run_module("eval", "report", "--run", str(old_run), "--make-nothing", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert sorted(old_run.rglob("*")) == before
    likelihood = json.loads((old_run / "eval/likelihood.json").read_text())
    assert f"{likelihood['values']['iwae_q_hat']['value']:,.1f}" in (out / "report.html").read_text()
