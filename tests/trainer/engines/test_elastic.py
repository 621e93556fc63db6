"""The same training on any number of processes."""

import pytest
import torch
from support.training import FIFTY_UPDATES, events, largest_relative_difference, train, train_many, weights


@pytest.fixture(scope="module")
def one_process(digits_shards, tmp_path_factory):
    return train(digits_shards, tmp_path_factory.mktemp("runs"), "one", **FIFTY_UPDATES)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_fifty_updates_on_more_processes_give_the_same_weights(digits_shards, tmp_path, one_process, processes):
    run = train(digits_shards, tmp_path, "more", processes=processes, **FIFTY_UPDATES)
    assert events(run, "stage_end")[0]["images"] == events(one_process, "stage_end")[0]["images"]
    assert largest_relative_difference(weights(one_process), weights(run)) < 1e-4


METHODS = {
    "batch-norm": {"model__norm": "batch"},
    "dip-vae-i": {"objective__name": "dip_vae_i"},
    "dip-vae-ii": {"objective__name": "dip_vae_ii"},
    "wae-mmd": {"objective__name": "wae_mmd"},
    "adam": {"variance__update": "adam"},
    "epoch": {"variance__update": "epoch"},
    "clipped": {"optimiser__max_grad_norm": 10.0},
}


@pytest.fixture(scope="module")
def methods_on_two(digits_shards, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    train_many(digits_shards, runs, {name: FIFTY_UPDATES | fields for name, fields in METHODS.items()}, processes=2)
    return runs


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_the_same_on_two_processes(digits_shards, tmp_path, methods_on_two, name):
    run = train(digits_shards, tmp_path, name, **FIFTY_UPDATES, **METHODS[name])
    assert largest_relative_difference(weights(run), weights(methods_on_two / name)) < 1e-4


def test_gradient_accumulation_changes_nothing(digits_shards, tmp_path, one_process):
    run = train(digits_shards, tmp_path, "micro", engine__grad_accumulation_steps=4, **FIFTY_UPDATES)
    assert largest_relative_difference(weights(one_process), weights(run)) < 1e-4


def test_gradient_accumulation_changes_nothing_where_a_penalty_couples_the_batch(digits_shards, tmp_path):
    whole = train(digits_shards, tmp_path, "whole", objective__name="wae_mmd", **FIFTY_UPDATES)
    cut = train(
        digits_shards, tmp_path, "cut", objective__name="wae_mmd", engine__grad_accumulation_steps=3, **FIFTY_UPDATES
    )
    assert largest_relative_difference(weights(whole), weights(cut)) < 1e-4


def test_a_run_resumes_with_another_number_of_processes(digits_shards, tmp_path):
    whole = train(digits_shards, tmp_path, "whole", processes=2)
    run = train(digits_shards, tmp_path, "grown", processes=0, checkpoint__walltime_minutes=0.0001)
    assert (run / "requeue").exists()
    train(digits_shards, tmp_path, "grown", processes=2)
    a, b = weights(whole), weights(run)
    assert all(torch.isfinite(value).all() for value in b.values())
    assert events(run, "resume")[0]["world_size"] == 2
    assert events(run, "stage_end")[-1]["images"] == events(whole, "stage_end")[-1]["images"]
    assert abs(a["log_variance"] - b["log_variance"]).item() < 0.01


def test_a_batch_smaller_than_the_world_leaves_some_ranks_without_images(digits_shards, tmp_path):
    fields = {**FIFTY_UPDATES, "stage1__max_epochs": 0.03, "data__global_batch": 2, "model__norm": "batch"}
    one = train(digits_shards, tmp_path, "one", **fields)
    three = train(digits_shards, tmp_path, "three", processes=3, **fields)
    assert largest_relative_difference(weights(one), weights(three)) < 1e-4
