"""Kernels that give the same bits each time are asked for in the run that wants them, and nowhere else."""

import os

import torch

from trainer.engines.determinism import deterministic_kernels


def test_the_settings_of_the_process_come_back(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.backends.cudnn.benchmark = True
    try:
        with deterministic_kernels(wanted=True):
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.backends.cudnn.benchmark
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = False


def test_nothing_changes_where_it_is_not_wanted():
    with deterministic_kernels(wanted=False):
        assert not torch.are_deterministic_algorithms_enabled()
