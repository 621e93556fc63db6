"""Whether torch.compile can make kernels on this machine, which takes a compiler of C beside torch."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch

from data_shards.io.errors import InputError
from trainer.config.config import Config


def compiles(config: Config, device: torch.device) -> bool:
    """Whether the networks are compiled: where engine.compile says so, or for auto on a GPU where it is possible."""
    if config.engine.compile == "auto":
        return _is_automatic(config, device) and not hindrance(device)
    return config.engine.compile


def remark(config: Config, device: torch.device) -> str:
    """A warning where `auto` would compile on this device and cannot; empty where it does, or would not."""
    reason = hindrance(device) if _is_automatic(config, device) else ""
    return f"engine.compile: the networks run without torch.compile, which is slower: {reason}" if reason else ""


def require_compiler(config: Config, device: torch.device) -> None:
    """Raises InputError where engine.compile is true and nothing can be compiled."""
    if config.engine.compile is True and (reason := hindrance(device)):
        raise InputError(f"{reason}; or use auto", parameter="engine.compile")


def _is_automatic(config: Config, device: torch.device) -> bool:
    return config.engine.compile == "auto" and config.engine.name == "ddp" and device.type == "cuda"


def hindrance(device: torch.device) -> str:
    """Why nothing can be compiled for the device, and what would help; empty where it can."""
    if device.type == "cuda":
        variable, names = "CC", ["gcc", "clang"]
    else:
        variable, names = "CXX", ["clang++" if sys.platform == "darwin" else "g++"]
    compiler = os.environ.get(variable)
    if not any(map(shutil.which, [compiler] if compiler else names)):
        return f"no compiler is found; install {' or '.join(names)}, or name one in {variable}"
    if device.type == "cpu":
        return ""
    # Triton compiles a module of Python to launch its kernels.
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers are not installed; install them, as from the package python3-dev"
    from torch.utils._triton import has_triton  # imported here: it takes a second

    return "" if has_triton() else "triton makes no kernels for this GPU or is not installed; install triton"
