"""An extractor of the user's whose own code fails: one line that names it, its file and the line."""

import re

import pytest
import torch
from torch import nn

from data_shards.io.errors import InputError, MachineFault
from eval.distance.extractors.by_name import extractor_by_name

MODULES = {
    "at_import": ("x = 1\ny = undefined\n", r"NameError: name 'undefined' .*at_import\.py, line 2\)"),
    "wrong_syntax": ("x = = 1\n", r"SyntaxError: invalid syntax .*wrong_syntax\.py, line 1\)"),
    "exits": ("import sys\nsys.exit('use my own program')\n", r"SystemExit: use my own program .*exits\.py, line 2\)"),
    "in_a_package": ("import json\nx = json.loads('{')\n", r"JSONDecodeError: .*in_a_package\.py, line 2\)"),
    "when_made": (
        "def make(device):\n    weights = {}\n    return weights['head']\n",
        r"KeyError: 'head' .*when_made\.py, line 3\)",
    ),
    "no_device": ("def make():\n    return 1\n", r"TypeError: make\(\) takes 0 .*no_device\.py\)"),
    "no_network": ("def make(device):\n    return None\n", "gave NoneType; return a network"),
    "when_called": (
        "def make(device):\n    return features\n\ndef features(images):\n    return images.view(11, -1)\n",
        r"RuntimeError: shape '\[11, -1\]' is invalid .*when_called\.py, line 5\)",
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_what_the_code_of_an_extractor_raises_is_told_with_its_place(name, tmp_path, monkeypatch):
    content, message = MODULES[name]
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as told:
        extractor_by_name(f"{name}:make", torch.device("cpu"))
    assert told.value.parameter == "extractor"
    assert re.search(rf"{name}:make .*{message}", str(told.value))
    assert "\n" not in str(told.value)


def test_a_module_that_is_not_there_is_asked_for_and_one_that_it_imports_named(tmp_path, monkeypatch):
    (tmp_path / "lacks.py").write_text("import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, missing in (("nowhere_at_all", "nowhere_at_all"), ("lacks", "not_installed_here")):
        with pytest.raises(InputError, match=rf"module {name} cannot be imported \(No module named '{missing}'\)"):
            extractor_by_name(f"{name}:make", torch.device("cpu"))


def test_a_torchscript_file_that_fails_on_images_is_named(tmp_path):
    torch.jit.script(nn.Linear(5, 2)).save(str(tmp_path / "mine.pt"))
    with pytest.raises(InputError, match=r"mine\.pt raised RuntimeError: .*/mine\.pt\)"):
        extractor_by_name(str(tmp_path / "mine.pt"), torch.device("cpu"))


def test_a_fault_of_the_machine_in_an_extractor_stays_one(tmp_path, monkeypatch):
    (tmp_path / "full.py").write_text(
        "def make(device):\n    raise OSError(28, 'No space left on device', '/data/w')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MachineFault, match="/data/w: the disk is full"):
        extractor_by_name("full:make", torch.device("cpu"))
