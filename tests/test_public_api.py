"""What the packages offer: the names of `__all__`, imported when they are first used."""

import subprocess
import sys
from importlib import import_module

import pytest
from support.running import ROOT

PUBLIC = {
    "data_shards": ["InputError", "Location", "MachineFault", "Manifest", "ShardStream", "build_shards"],
    "trainer": ["Config", "load_config", "train"],
    "trainer.mixture": ["GaussianMixture"],
    "eval": [
        "DistanceResult",
        "LikelihoodResult",
        "Measured",
        "MemorisationResult",
        "TrainedRun",
        "UncertaintyResult",
        "open_run",
    ],
    "tune": ["SweepConfig", "read_sweep", "run_sweep"],
}


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_there_and_no_others(package):
    module = import_module(package)
    assert module.__all__ == dir(module) == PUBLIC[package]
    assert [getattr(module, name).__name__ for name in PUBLIC[package]] == PUBLIC[package]
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing


def test_importing_the_packages_loads_nothing_slow():
    slow = {"torch", "ray", "sklearn", "faiss", "webdataset", "pydantic"}
    code = f"import sys, {', '.join(PUBLIC)}; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
