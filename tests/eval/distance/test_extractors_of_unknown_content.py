"""Extractors of the user's that do not do the same each time, or on each process, are refused in one line."""

import importlib
import sys

import pytest
import torch
from support.running import run_module

from data_shards.io.errors import InputError
from eval.distance.extractors.by_name import extractor_by_name


def module_with(place, body):
    head = "import os\nimport torch\nfrom torch import nn\n\n\ndef make(device):\n"
    (place / "probed_extractor.py").write_text(f"{head}{body}\n")
    sys.modules.pop("probed_extractor", None)
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return nn.Conv2d(3, 4, 8, stride=8).eval()", "other features each time it is made"),
        (
            "    torch.manual_seed(0)\n    return nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4))",
            "is in train mode; return network.eval()",
        ),
        (
            "    network = nn.BatchNorm2d(3)\n    return lambda x: network(x[:, :, ::8, ::8])",
            "other features in another batch",
        ),
        ("    return lambda x: torch.full((len(x), 4), torch.nan)", "not finite"),
    ],
)
def test_an_extractor_that_does_not_know_what_it_is_is_refused_in_one_line(tmp_path, monkeypatch, body, message):
    monkeypatch.syspath_prepend(str(tmp_path))
    module_with(tmp_path, body)
    with pytest.raises(InputError, match=message) as refused:
        extractor_by_name("probed_extractor:make", torch.device("cpu"), size=32)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_an_extractor_that_differs_between_processes_is_refused(digits_run, tmp_path):
    body = (
        "    gain = 1.0 + float(os.environ.get('RANK', '0'))\n    return lambda x: gain * x[:, :, ::8, ::8].flatten(1)"
    )
    module_with(tmp_path, body)
    words = ("--from", "prior", "--n", "128", "--extractor", "probed_extractor:make", "--extractor-size", "32")
    done = run_module("eval", "fid", "--run", str(digits_run), *words, processes=2, env={"PYTHONPATH": f"{tmp_path}:."})
    assert done.returncode != 0
    assert "another extractor on some processes" in done.stderr
