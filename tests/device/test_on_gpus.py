"""Training on real GPUs, where there are some: several of them, and what no pretended one can show."""

import pytest
import torch
from device.sessions import no_waits
from support.training import events, largest_relative_difference, train, weights

from trainer.updates.recording import CHECKED_UPDATES, WARM_UP_UPDATES

SHORT = {"stage1__max_epochs": 0.5, "stage2__max_epochs": 0.3}


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_torch_sees_no_wait_in_an_update(digits_shards, tmp_path, graphs):
    with no_waits(after=WARM_UP_UPDATES + CHECKED_UPDATES) as updates:
        fields = {"device": "cuda", "model__norm": "batch", "engine__cuda_graphs": graphs}
        run = train(digits_shards, tmp_path, "run", **fields, **SHORT)
    assert len(updates) > 10
    assert events(run, "stage_end")


@pytest.mark.gpu
@pytest.mark.parametrize(
    "fields",
    [
        {"model__norm": "batch", "optimiser__ema_images": 100},
        {"variance__update": "adam", "optimiser__max_grad_norm": 0.5},
        {"objective__name": "wae_mmd", "engine__grad_accumulation_steps": 2},
    ],
)
def test_a_replayed_update_gives_the_bits_of_an_update_that_is_not(digits_shards, tmp_path, fields):
    fields = {"device": "cuda", "engine__deterministic": True, **fields, **SHORT}
    one_by_one = train(digits_shards, tmp_path, "one-by-one", engine__cuda_graphs=False, **fields)
    replayed = train(digits_shards, tmp_path, "replayed", engine__cuda_graphs=True, **fields)
    assert [event for event in events(replayed, "warning") if "cuda_graphs" in event["message"]] == []
    ours, expected = weights(replayed), weights(one_by_one)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.gpu
def test_a_compiled_update_in_bf16_is_recorded(digits_shards, tmp_path):
    fields = {"engine__precision": "bf16", "engine__compile": True, "engine__cuda_graphs": True}
    run = train(digits_shards, tmp_path, "run", device="cuda", model__norm="batch", **fields, **SHORT)
    assert [event for event in events(run, "warning") if "cuda_graphs" in event["message"]] == []


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
