"""Sweeps over architectures and stage thresholds, on one machine or a Ray cluster.

In Python: `records, ended = run_sweep(read_sweep("tune/configs/fashion_mnist.yaml"), None)`.
"""

from typing import TYPE_CHECKING

from data_shards.io.lazy_names import lazy_names

if TYPE_CHECKING:
    from tune.sweep import run_sweep
    from tune.sweep_config import SweepConfig, read_sweep

__all__ = ["SweepConfig", "read_sweep", "run_sweep"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "SweepConfig": "tune.sweep_config",
        "read_sweep": "tune.sweep_config",
        "run_sweep": "tune.sweep",
    },
)
