"""Kernels that give the same bits each time are asked for in the run that wants them, and nowhere else."""

import pytest
import torch

from data_shards.io.errors import InputError
from trainer.engines.determinism import deterministic_kernels


def test_the_settings_of_the_process_come_back(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    torch.backends.cudnn.benchmark = True
    try:
        with deterministic_kernels(wanted=True):
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.backends.cudnn.benchmark
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = False


def test_nothing_changes_where_it_is_not_wanted():
    with deterministic_kernels(wanted=False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_a_workspace_of_cublas_without_an_order_is_refused(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
    said = r"CUBLAS_WORKSPACE_CONFIG is ':4096:2:16:8'.*use :4096:8 or :16:8"
    with pytest.raises(InputError, match=said), deterministic_kernels(wanted=True):
        pass
