"""Fixtures that several rooms share: shards of small real images, and a run trained on them."""

import os
import signal
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.running import run_module, write_digits

# The same examples in every run, and as much time for each as a busy machine takes: a failure is one of the code.
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_configure() -> None:
    """Heeds Ctrl-C where a shell started the tests in its background and ignored it; commands inherit that.

    On a GPU float32 is float32: results are compared with those of the CPU, and TF32 has ten bits.
    """
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # read by cuBLAS and cuDNN when they start
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, saying so, what needs more GPUs than this machine has."""
    for item in items:
        marker = item.get_closest_marker("gpus")
        wanted = marker.args[0] if marker else int(item.get_closest_marker("gpu") is not None)
        if wanted and wanted > gpu_count():
            item.add_marker(pytest.mark.skip(reason=f"needs {wanted} CUDA devices, there are {gpu_count()}"))


@cache
def gpu_count() -> int:
    """How many GPUs this machine has."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@pytest.fixture(scope="session")
def digits_source(tmp_path_factory) -> Path:
    """A folder of idx files, as MNIST is distributed."""
    return write_digits(tmp_path_factory.mktemp("digits-idx"))


@pytest.fixture(scope="session")
def digits_shards(tmp_path_factory, digits_source) -> Path:
    """Shards of the digits: 1397 for training, 200 held out, 200 for testing."""
    out = tmp_path_factory.mktemp("digits") / "shards"
    words = ["data_shards", "build", "mnist", "--source", str(digits_source), "--out", str(out), "--valid", "200"]
    done = run_module(*words)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory, digits_shards) -> Path:
    """A short run on the digits with its codes and a mixture of 4. Tests that write into it copy it first."""
    from trainer.config.config import load_config
    from trainer.loop import train

    runs = tmp_path_factory.mktemp("runs")
    fields = {
        "runs": str(runs),
        "name": "digits",
        "data.shards": str(digits_shards),
        "data.global_batch": 50,
        "data.valid_images": 100,
        "model.latent_dim": 2,
        "model.encoder_channels": [8],
        "model.decoder_channels": [8, 8],
        "model.hidden": 16,
        "stage1.max_epochs": 4,
        "stage1.check_images": 1000,
        "stage2.max_epochs": 2,
        "stage2.check_images": 1000,
        "optimiser.learning_rate": 0.005,
        "log.every_images": 250,
        "log.to": [],
    }
    run = train(load_config(None, fields))
    for command in (
        ("eval", "encode", "--run", str(run), "--split", "train", "valid", "test"),
        ("trainer.mixture", "--run", str(run), "--components", "4"),
    ):
        done = run_module(*command)
        assert done.returncode == 0, done.stderr
    return run
