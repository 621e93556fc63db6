"""The device that a run has where none is asked for."""

import pytest
import torch
from support.training import train

from data_shards.io.errors import InputError
from trainer.device import DEVICES, resolved_device


@pytest.fixture
def gpus(monkeypatch):
    """Makes torch see that many GPUs."""

    def see(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return see


@pytest.mark.parametrize(("count", "processes", "kind"), [(0, 1, "cpu"), (1, 1, "cuda"), (4, 4, "cuda"), (1, 2, "cpu")])
def test_auto_is_cuda_where_each_process_has_a_gpu(gpus, count, processes, kind):
    gpus(count)
    assert resolved_device("auto", processes=processes) == kind


def test_torchrun_says_how_many_processes_share_the_machine(gpus, monkeypatch):
    gpus(1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert resolved_device("auto") == "cpu"
    with pytest.raises(InputError, match="device: 2 processes on this machine have 1 CUDA devices; start one process"):
        resolved_device("cuda")


def test_cuda_without_a_gpu_is_refused(gpus):
    gpus(0)
    with pytest.raises(InputError, match="device: cuda is requested, but this machine has no CUDA device; use cpu"):
        resolved_device("cuda")


def test_bf16_is_refused_where_auto_has_become_the_cpu(gpus, digits_shards, tmp_path):
    gpus(0)
    with pytest.raises(InputError, match=r"engine\.precision: bf16 is many times slower than float32 on a CPU"):
        train(digits_shards, tmp_path, "bf16", engine__precision="bf16")
    assert not (tmp_path / "bf16").exists()


def test_another_name_is_refused():
    with pytest.raises(InputError, match="device: 'gpu' is unknown; use auto, cpu or cuda"):
        resolved_device("gpu")
    assert DEVICES == ("auto", "cpu", "cuda")
