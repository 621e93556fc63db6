"""Without a compiler `auto` trains as it can and says why; `true` is refused in one line."""

import pytest
import torch

from data_shards.io.errors import InputError
from trainer.config.config import load_config
from trainer.engines.compilation import compiles, remark, require_compiler

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without any compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)


def compiled(value, name="ddp"):
    words = {"engine.deepspeed_config": "zero1.json"} if name == "deepspeed" else {}
    return load_config(None, {"engine.compile": value, "engine.name": name, **words})


@pytest.mark.parametrize(("device", "said"), [(CPU, ".* or name one in CXX"), (GPU, "install gcc or clang")])
def test_what_cannot_be_compiled_is_refused_in_one_line(bare, device, said):
    with pytest.raises(InputError, match=f"no compiler is found; {said}.*use auto"):
        require_compiler(compiled(True), device)


def test_auto_says_why_it_does_not_compile_on_a_gpu(bare):
    assert not compiles(compiled("auto"), GPU)
    assert "no compiler is found; install gcc" in remark(compiled("auto"), GPU)


def test_a_compiler_that_is_named_and_not_there_is_none(bare, monkeypatch):
    monkeypatch.setenv("CC", "/nowhere/cc")
    assert "or name one in CC" in remark(compiled("auto"), GPU)


@pytest.mark.parametrize("config", [compiled("auto"), compiled(False), compiled("auto", "deepspeed")])
def test_where_nothing_is_to_be_compiled_nothing_is_said(bare, config):
    device = CPU if config.engine.name == "ddp" else GPU
    assert not compiles(config, device)
    assert remark(config, device) == ""
    require_compiler(config, device)
