"""A stage ends with its best weights: 60 images are overfitted within seconds."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from support.running import run_module, write_idx
from support.training import events, train, weights, words

from trainer.__main__ import read_command_line
from trainer.config.config import load_config
from trainer.loop import train as run_training
from trainer.process_group import single
from trainer.run_folder.checkpoint import complete_checkpoints
from trainer.run_folder.restore import load_model
from trainer.updates.evaluation import exact_variance, held_out
from trainer.updates.streams import Passes

OVERFITTING = {
    "model__latent_dim": 16,
    "model__hidden": 64,
    "optimiser__learning_rate": 0.004,
    "optimiser__schedule": "constant",
    "stage1__max_epochs": 90,
    "stage1__check_images": 10**6,
    "stage2__max_epochs": 10,
    "stage2__check_images": 10**6,
    "checkpoint__every_images": 10**6,
    "checkpoint__keep_last": 1,
}


@pytest.fixture(scope="module")
def sixty_shards(tmp_path_factory, digits_source):
    """60 digits for training, 40 held out."""
    import gzip

    source = tmp_path_factory.mktemp("sixty")
    for name in ("images-idx3", "labels-idx1"):
        content = gzip.decompress((digits_source / f"train-{name}-ubyte.gz").read_bytes())
        dims = content[3]
        header = 4 + 4 * dims
        shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i]) for i in range(dims))
        values = np.frombuffer(content[header:], np.uint8).reshape(shape)[:100]
        write_idx(source / f"train-{name}-ubyte.gz", values)
        write_idx(source / f"t10k-{name}-ubyte.gz", values[:10])
    out = source / "shards"
    done = run_module("data_shards", "build", "mnist", "--source", str(source), "--out", str(out), "--valid", "40")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def overfitted(sixty_shards, tmp_path_factory):
    """A run that overfits, and what it printed."""
    runs = tmp_path_factory.mktemp("runs")
    done = run_module("trainer", *words(sixty_shards, runs, "overfitted", **OVERFITTING))
    assert done.returncode == 0, done.stderr
    return runs / "overfitted", done


def elbo(model, run) -> float:
    config = load_config(run)
    return held_out(model, Passes(config.data), config.seed, single()).elbo


def test_a_stage_that_overfits_ends_with_its_best_weights(overfitted):
    run, _ = overfitted
    stage1 = [event for event in events(run, "valid") if event["stage"] == 1]
    best = max(stage1, key=lambda event: event["elbo"])
    end = events(run, "stage_end")[0]
    assert best["images"] < 0.5 * end["images"]
    assert stage1[-1]["elbo"] < best["elbo"] - 100
    assert end["weights_of_images"] == best["images"]
    assert end["kl"] == pytest.approx(best["kl"], rel=1e-6)
    assert end["closed_form_sigma2"] == pytest.approx(best["closed_form_sigma2"], rel=1e-6)
    assert end["elbo"] > stage1[-1]["elbo"] + 100


def test_stage_1_ends_with_the_exact_variance_of_its_best_weights(overfitted):
    run, _ = overfitted
    model, config = load_model(run, "stage1"), load_config(run)
    assert model.dataset_variance == pytest.approx(exact_variance(model, Passes(config.data), 0, single()), rel=1e-6)
    assert events(run, "stage_start")[0]["floor"] == pytest.approx(0.5 * model.dataset_variance, rel=1e-6)


def test_stage_2_ends_no_worse_than_it_began(overfitted):
    run, _ = overfitted
    start, end = events(run, "stage_start")[0], events(run, "stage_end")[1]
    assert end["elbo"] >= start["elbo"] - 1e-3 * abs(start["elbo"])
    assert elbo(load_model(run), run) == pytest.approx(end["elbo"], rel=1e-5)


def test_the_terminal_says_that_a_stage_overfitted_and_what_to_do(overfitted):
    run, done = overfitted
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("warning: stage 1 ended")]
    assert "overfits its 60 training images" in line
    assert "stage1.max_epochs" in line
    assert line.removeprefix("warning: ") in [event["message"] for event in events(run, "warning")]


def test_the_last_line_says_where_everything_is_and_what_comes_next(overfitted):
    run, done = overfitted
    last = done.stdout.splitlines()[-1]
    assert str(complete_checkpoints(run)[-1]) in last
    assert f"python -m eval report --run {run}" in last


def test_the_best_weights_of_a_finished_run_are_its_final_ones(overfitted):
    run, _ = overfitted
    final, best = load_model(run).state_dict(), load_model(run, "best").state_dict()
    assert all(torch.equal(final[name], best[name]) for name in final)


def test_a_run_that_keeps_its_last_weights_has_its_best_ones_too(sixty_shards, tmp_path):
    fields = OVERFITTING | {"stage1__restore_best": "false", "stage2__max_epochs": 0}
    run = train(sixty_shards, tmp_path, "kept", **fields)
    values = {event["images"]: event["elbo"] for event in events(run, "valid")}
    best = max(values, key=lambda images: values[images])
    assert elbo(load_model(run, "best"), run) == pytest.approx(values[best], rel=1e-6)
    assert [int(folder.name) for folder in complete_checkpoints(run)] == [best, max(values)]
    assert "`--weights best` measures those" in events(run, "warning")[-1]["message"]


def test_a_run_stopped_after_its_best_goes_on_to_the_same_bits(sixty_shards, tmp_path, overfitted):
    run, _ = overfitted
    best = events(run, "stage_end")[0]["weights_of_images"]
    config = read_command_line(words(sixty_shards, tmp_path, "stopped", **OVERFITTING)).config

    def stop_after_the_best(kind: str, images: int, facts: dict) -> None:
        if kind == "valid" and images > best:
            os.kill(os.getpid(), signal.SIGUSR2)

    stopped = run_training(config, stop_after_the_best)
    assert (stopped / "requeue").exists()
    run_training(config)
    assert best < events(stopped, "resume")[0]["images"] < 60 * 90
    assert events(stopped, "stage_end")[0]["weights_of_images"] == best
    a, b = weights(run), weights(stopped)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_two_processes_end_with_the_same_best_weights(sixty_shards, tmp_path, overfitted):
    run, _ = overfitted
    two = train(sixty_shards, tmp_path, "two", processes=2, **OVERFITTING)
    ends = [[event["weights_of_images"] for event in events(each, "stage_end")] for each in (run, two)]
    assert ends[0] == ends[1]


def test_best_weights_of_a_run_that_names_none_are_refused_in_one_line(tmp_path, overfitted):
    import shutil

    from data_shards.io.errors import InputError
    from trainer.run_folder.checkpoint import read, write

    run = shutil.copytree(overfitted[0], tmp_path / "run")
    newest = complete_checkpoints(run)[-1]
    saved = read(newest)
    stages = dataclasses.replace(saved.state.stages, best_elbo=None, best_images=None)
    write(run, dataclasses.replace(saved, state=dataclasses.replace(saved.state, stages=stages)))
    with pytest.raises(InputError, match=r"weights: .* use final"):
        load_model(run, "best")
