"""Training on a GPU that is pretended: the weights of the CPU, and nothing that a real one would refuse."""

import functools

import pytest
import torch
from device.sessions import LOWER, ON_TWO, TRAININGS, train_all
from support.training import weights

ONE = [*TRAININGS, *LOWER]
WITHOUT_WAITS = ["two stages", "batch norm", "average", "clipping", "warm-up", "adam", "dip-vae-i", "wae"]
CASES = [(name, 1) for name in TRAININGS] + [(name, 2) for name in ON_TWO]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits_shards):
    """All trainings on a device and a number of processes: what their updates did, and the folder of their runs."""

    @functools.cache
    def get(device, processes):
        runs = tmp_path_factory.mktemp(f"{device}-{processes}")
        return train_all(runs, digits_shards, device, processes), runs

    return get


@pytest.mark.parametrize(("name", "processes"), CASES)
def test_a_training_ends_in_the_weights_of_the_cpu(trained, name, processes):
    on_gpu, gpu_runs = trained("cuda", processes)
    _, cpu_runs = trained("cpu", processes)
    assert "failure" not in on_gpu[name], on_gpu[name]["failure"]
    ours, expected = weights(gpu_runs / name), weights(cpu_runs / name)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


def times(table, counter, *, backward=True):
    """What the counter holds in all, without the passes backward where they are left out."""
    return sum(n for _, place, n in table[counter] if backward or place != "backward")


@pytest.mark.parametrize("stage", ["1", "2"])
@pytest.mark.parametrize(
    "name", ["two stages", "batch norm", "average", "clipping", "warm-up", "adam", "dip-vae-i", "wae"]
)
def test_an_update_neither_waits_for_the_gpu_nor_copies_from_pageable_memory(trained, name, stage):
    table = trained("cuda", 1)[0][name].get(stage)
    if table is None:
        assert stage == "2"
        return
    # It waits for the update before it, while the GPU works on this one.
    late = [row for row in table["waits"] if row[0] == "event synchronize, with later work"]
    assert [row for row in table["waits"] if row not in late] == []
    assert sum(n for *_, n in late) <= 1
    assert table["pageable"] == []
    assert {(what, n) for what, _, n in table["copies"]} == {("to the GPU", 2), ("to the host", 1)}
