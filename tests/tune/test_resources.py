"""What fits on the machines of a cluster, node by node, with Ray's own placement on logical CPUs and GPUs."""

import dataclasses

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from ray.tune.experiment import Trial as RayTrial
from support.sweep_cases import write_sweep

from data_shards.io.errors import InputError
from tune.resources import Needs, machines_text, nodes, runs_on_gpu, trials_at_once
from tune.sweep_config import read_sweep
from tune.terminal import SweepProgress


@pytest.fixture(scope="module")
def cluster(monkeypatch_module):
    """A machine of two CPUs and one (logical) GPU, and one of sixteen CPUs and four GPUs."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=16, num_gpus=4)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield patch


def placed(needs: Needs, seconds: float = 200) -> int:
    """How many trials Ray places at the same time, of one more than should fit."""
    fit = needs.trials_on(nodes())
    groups = [needs.placement().to_placement_group() for _ in range(fit + 1)]
    if fit:
        ray.wait([group.ready() for group in groups], num_returns=fit, timeout=seconds)
    ready, _ = ray.wait([group.ready() for group in groups], num_returns=len(groups), timeout=0.5)
    for group in groups:
        ray.util.remove_placement_group(group)
    return len(ready)


@pytest.mark.parametrize(
    ("needs", "fit"),
    [
        (Needs(workers=1, cpus=1, gpus=0), 18),
        (Needs(workers=1, cpus=3, gpus=0), 5),  # none on the small machine
        (Needs(workers=17, cpus=1, gpus=0), 1),  # on both machines
        (Needs(workers=1, cpus=17, gpus=0), 0),  # there are 18 CPUs, but at most 16 a machine
        (Needs(workers=2, cpus=1, gpus=1), 2),  # of five GPUs, one of which stays free
        (Needs(workers=5, cpus=1, gpus=1), 1),  # the GPUs of both machines
        (Needs(workers=6, cpus=1, gpus=1), 0),
        (Needs(workers=1, cpus=1, gpus=0.25), 18),  # as many as there are CPUs
        (Needs(workers=1, cpus=1, gpus=0.4), 10),  # two a GPU, whose rests do not add up to another one
    ],
)
def test_as_many_trials_fit_as_ray_places(cluster, needs, fit):
    assert needs.trials_on(nodes()) == fit
    assert placed(needs) == fit


def test_a_trial_that_fits_on_no_machine_is_refused_with_what_the_machines_have(cluster, tmp_path, digits_shards):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, cpus_per_worker=17, concurrent=0))
    needs = Needs(workers=1, cpus=17, gpus=0)
    with pytest.raises(InputError, match=r"workers: 1 of 17 CPUs .* have 16 CPUs and 4 GPUs; 2 CPUs and 1 GPUs"):
        trials_at_once(sweep, needs)
    assert trials_at_once(dataclasses.replace(sweep, concurrent=2), needs) == 2  # an autoscaler may bring more


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpus_that_ray_counts_and_torch_cannot_use_are_none(cluster, tmp_path, digits_shards, capsys):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards))
    assert not runs_on_gpu(sweep)
    said = "trials train on the CPU: Ray has GPUs, but torch there finds no CUDA device\n"
    assert capsys.readouterr().err == said
    cuda = dataclasses.replace(sweep, fields=sweep.fields | {"device": "cuda"})
    with pytest.raises(InputError, match="device: cuda is requested, and Ray has GPUs, but torch there finds no CUDA"):
        runs_on_gpu(cuda)


def test_trials_of_more_gpus_than_there_are_train_on_the_cpu_which_is_said(cluster, tmp_path, digits_shards, capsys):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, workers=6))
    assert not runs_on_gpu(sweep)
    said = capsys.readouterr().err
    assert said.startswith(
        "trials train on the CPU: a trial on GPUs needs 6 of 1 CPUs and 1 GPUs each, but the machines "
    )


def test_a_trial_that_waits_says_once_for_what_after_30_seconds(cluster, tmp_path, digits_shards, capsys):
    needs = Needs(workers=1, cpus=17, gpus=0)
    progress = SweepProgress("search", read_sweep(write_sweep(tmp_path, digits_shards)), 2, needs, ended={})
    trial = RayTrial("trial", stub=True)
    for now in (100.0, 129.0):
        progress._tell_of_waiting([trial], now)
    assert capsys.readouterr().err == ""
    for now in (131.0, 140.0):
        progress._tell_of_waiting([trial], now)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "1 trials have waited 31s for machines: each needs 1 of 17 CPUs each; there are 16 CPUs and 4 GPUs; 2"
    )
    assert machines_text(nodes()) in line
