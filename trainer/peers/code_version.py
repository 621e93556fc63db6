"""What must be equal on all processes for their numbers to be: our own code, torch and Python."""

import hashlib
import platform
from pathlib import Path

import torch

_PACKAGES = ("data_shards", "trainer", "eval", "tune")


def code_version() -> str:
    """12 hexadecimal digits of the content of all Python files of the packages beside this one."""
    root, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """The versions, by what they are of."""
    return {"code": code_version(), "torch": torch.__version__, "Python": platform.python_version()}
