"""Training of the two-stage sigma-VAE on any number of processes.

    from trainer import load_config, train
    run = train(load_config("trainer/configs/fashion_mnist.yaml", {"name": "short", "stage1.max_epochs": 1}))

The rooms, each of which imports only those after it: loop, mixture and flow, dry_run, updates, engines, run_folder,
objectives, networks, config, and process_group, noise and preemption.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config.config import Config, load_config
    from trainer.loop import train

__all__ = ["Config", "load_config", "train"]

_MODULES = {
    "Config": "trainer.config.config",
    "load_config": "trainer.config.config",
    "train": "trainer.loop",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that importing one room of the package stays light.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
