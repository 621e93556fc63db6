"""Sweeps over architectures and stage thresholds, on one machine or a Ray cluster.

In Python: `records, ended = run_sweep(read_sweep("tune/configs/fashion_mnist.yaml"), None)`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune.sweep import run_sweep
    from tune.sweep_config import SweepConfig, read_sweep

__all__ = ["SweepConfig", "read_sweep", "run_sweep"]

_MODULES = {
    "SweepConfig": "tune.sweep_config",
    "read_sweep": "tune.sweep_config",
    "run_sweep": "tune.sweep",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: Ray takes seconds to import.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
