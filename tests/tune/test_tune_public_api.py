"""What `import tune` offers."""

import subprocess
import sys

import pytest
from support.running import ROOT

import tune


def test_the_public_names_are_functions_and_classes_of_the_rooms():
    from tune.sweep import run_sweep
    from tune.sweep_config import SweepConfig, read_sweep

    assert tune.__all__ == ["SweepConfig", "read_sweep", "run_sweep"]
    assert (tune.SweepConfig, tune.read_sweep, tune.run_sweep) == (SweepConfig, read_sweep, run_sweep)
    with pytest.raises(AttributeError, match="nothing"):
        _ = tune.nothing


def test_importing_the_package_does_not_load_ray():
    code = "import sys, tune; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
