"""Training on a GPU that is pretended: the weights of the CPU, and nothing that a real one would refuse."""

import functools

import pytest
import torch
from device.sessions import COMMANDS, ON_TWO, TRAININGS, SessionError, measured, numbers, train_all
from support.training import weights

# The first test of a device waits for all that is done on it.
pytestmark = pytest.mark.timeout(1700)

WITHOUT_WAITS = ["two-stages", "batch-norm", "average", "clipping", "warm-up", "adam", "dip-vae-i", "wae"]
# What an update launches beside its passes forward and backward, Adam included; measured, and may only fall.
LAUNCHES = [
    ("epoch", "1", 18),
    ("batch-norm", "1", 24),
    ("batch-norm", "2", 18),
    ("vae", "1", 15),
    ("average", "2", 19),
    ("clipping", "2", 23),
]
CASES = [(name, 1) for name in TRAININGS] + [(name, 2) for name in ON_TWO]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, few_digits):
    """All trainings on a device and a number of processes: what their updates did, and the folder of their runs."""

    @functools.cache
    def attempt(device, processes):
        runs = tmp_path_factory.mktemp(f"{device}-{processes}")
        try:
            return train_all(runs, few_digits, device, processes), runs
        except SessionError as error:  # once, not for each test
            return error, runs

    def get(device, processes):
        found, runs = attempt(device, processes)
        if isinstance(found, SessionError):
            raise found
        return found, runs

    return get


@pytest.mark.parametrize(("name", "processes"), CASES)
def test_a_training_ends_in_the_weights_of_the_cpu(trained, name, processes):
    on_gpu, gpu_runs = trained("cuda", processes)[0]["trainings"], trained("cuda", processes)[1]
    _, cpu_runs = trained("cpu", processes)
    assert "failure" not in on_gpu[name], on_gpu[name]["failure"]
    ours, expected = weights(gpu_runs / name), weights(cpu_runs / name)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


@pytest.mark.parametrize("stage", ["1", "2"])
@pytest.mark.parametrize("name", WITHOUT_WAITS)
def test_an_update_neither_waits_for_the_gpu_nor_copies_from_pageable_memory(trained, name, stage):
    table = trained("cuda", 1)[0]["trainings"][name].get(stage)
    if table is None:
        assert stage == "2"
        return
    # It waits for the update before it, while the GPU works on this one.
    late = [row for row in table["waits"] if row[0] == "event synchronize, with later work"]
    assert [row for row in table["waits"] if row not in late] == []
    assert sum(n for *_, n in late) <= 1
    assert table["pageable"] == []
    copies = {way: sum(n for what, _, n in table["copies"] if what == way) for way in ("to the GPU", "to the host")}
    assert copies == {"to the GPU": 3 if name == "two-stages" else 2, "to the host": 1}  # flips travel too


def launches_beside_the_passes(table):
    """What the engine, the update of sigma^2 and the meter launch, by place: neither forward nor backward."""
    found = {}
    for what, place, n in table["launches"]:
        if place.startswith(("trainer/engines", "trainer/updates", "trainer/loop.py", "data_shards")):
            found.setdefault(place, {})[what] = n
    return found


@pytest.mark.parametrize(("name", "stage", "most"), LAUNCHES)
def test_an_update_launches_no_more_than_it_did(trained, name, stage, most):
    found = launches_beside_the_passes(trained("cuda", 1)[0]["trainings"][name][stage])
    assert sum(n for place in found.values() for n in place.values()) <= most, found


@pytest.mark.parametrize("stage", ["1", "2"])
def test_a_replayed_update_launches_its_graph_and_what_brings_its_inputs(trained, stage):
    table = trained("cuda", 1)[0]["trainings"]["adam"][stage]
    found = {}
    for what, _, n in table["launches"]:
        found[what] = found.get(what, 0) + n
    # Images and numbers to the GPU, from there to where the graph reads them, and the result to the host.
    assert found == {"graph": 1, "_foreach_copy_": 1, "copy_": 4}


@pytest.mark.parametrize(("name", "norms"), [("two-stages", 0), ("batch-norm", 3), ("accumulation", 0), ("wae", 0)])
def test_processes_meet_once_an_update_and_once_a_batch_norm_and_direction(trained, name, norms):
    table = trained("cuda", 2)[0]["trainings"][name]["1"]
    found = {}
    for _, place, n in table["collectives"]:
        found[place] = found.get(place, 0) + n
    penalty = 1 if name == "wae" else 0
    assert found.pop("trainer/process_group.py Ranks.sum_") == 1
    assert sum(found.values()) == 2 * norms + penalty, found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_on_the_gpu_has_the_numbers_of_the_cpu(trained, name):
    on_gpu, on_cpu = trained("cuda", 1), trained("cpu", 1)
    assert on_gpu[0]["commands"][name]["code"] == 0, on_gpu[0]["commands"][name]
    assert on_cpu[0]["commands"][name]["code"] == 0, on_cpu[0]["commands"][name]
    launches = on_gpu[0]["commands"][name]["counts"]["launches"]
    assert launches or name == "report"
    assert [row for row in launches if "one matrix after another" in row[0]] == []


def test_all_results_of_the_commands_are_those_of_the_cpu(trained):
    found, expected = (measured(trained(device, 1)[1] / "two-stages") for device in ("cuda", "cpu"))
    assert len(expected) > 60
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_trial_of_a_sweep_reports_the_numbers_of_the_cpu(trained, processes):
    found, expected = (trained(device, processes)[0]["trial"] for device in ("cuda", "cpu"))
    assert [report["finished"] for report in expected] == [False] * (len(expected) - 1) + [True]
    assert numbers(dict(enumerate(found))) == pytest.approx(numbers(dict(enumerate(expected))), rel=1e-4, nan_ok=True)
