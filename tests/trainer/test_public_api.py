"""What `import trainer` offers."""

import subprocess
import sys

import pytest
from support.running import ROOT

import trainer


def test_the_public_names_are_functions_and_classes_of_the_rooms():
    from trainer.config.config import Config, load_config
    from trainer.loop import train

    assert trainer.__all__ == ["Config", "load_config", "train"]
    assert (trainer.Config, trainer.load_config, trainer.train) == (Config, load_config, train)
    with pytest.raises(AttributeError, match="nothing"):
        _ = trainer.nothing


def test_importing_the_package_loads_neither_torch_nor_a_room():
    code = "import sys, trainer; print([m for m in sys.modules if m == 'torch' or m.startswith('trainer.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
