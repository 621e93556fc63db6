"""Training on real GPUs, where there are some: several of them, and what no pretended one can show."""

import pytest
import torch
from support.training import events, largest_relative_difference, train, weights

SHORT = {"stage1__max_epochs": 0.5, "stage2__max_epochs": 0.3}


@pytest.mark.gpu
def test_torch_sees_no_wait_in_an_update(digits_shards, tmp_path, monkeypatch):
    from trainer.updates.learner import Learner

    original = Learner.update

    def update(*words, **others):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return original(*words, **others)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Learner, "update", update)
    run = train(digits_shards, tmp_path, "run", device="cuda", model__norm="batch", **SHORT)
    assert events(run, "stage_end")


@pytest.mark.gpu
def test_a_training_on_a_gpu_ends_near_the_weights_of_the_cpu(digits_shards, tmp_path):
    runs = [train(digits_shards, tmp_path, device, device=device, **SHORT) for device in ("cuda", "cpu")]
    assert largest_relative_difference(*map(weights, runs)) < 1e-2


@pytest.mark.parametrize(
    ("processes", "norm"),
    [pytest.param(n, norm, marks=pytest.mark.gpus(n)) for n in (2, 3) for norm in ("none", "batch")],
)
def test_several_gpus_give_the_weights_of_one(digits_shards, tmp_path, processes, norm):
    one = train(digits_shards, tmp_path, "one", device="cuda", model__norm=norm, **SHORT)
    many = train(digits_shards, tmp_path, "many", device="cuda", model__norm=norm, processes=processes, **SHORT)
    assert largest_relative_difference(weights(one), weights(many)) < 1e-2


@pytest.mark.gpus(3)
def test_a_run_on_three_gpus_that_was_stopped_has_the_bits_of_one_that_was_not(digits_shards, tmp_path):
    fields = {"device": "cuda", "engine__deterministic": True, "model__norm": "batch", "processes": 3, **SHORT}
    whole = train(digits_shards, tmp_path, "whole", **fields)
    for _ in range(2):
        train(digits_shards, tmp_path, "stopped", checkpoint__walltime_minutes=0.02, **fields)
    stopped = train(digits_shards, tmp_path, "stopped", **fields)
    ours, expected = weights(stopped), weights(whole)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
