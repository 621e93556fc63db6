"""Training of the two-stage sigma-VAE on any number of processes.

    from trainer import load_config, train
    run = train(load_config("trainer/configs/fashion_mnist.yaml", {"name": "short", "stage1.max_epochs": 1}))

The rooms, each of which imports only those after it: loop, mixture and flow, dry_run, updates, engines, run_folder,
objectives, networks, config, group_command, then process_group, noise, waiting and preemption, then peers.
"""

from typing import TYPE_CHECKING

from data_shards.io.lazy_names import lazy_names

if TYPE_CHECKING:
    from trainer.config.config import Config, load_config
    from trainer.loop import train

__all__ = ["Config", "load_config", "train"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Config": "trainer.config.config",
        "load_config": "trainer.config.config",
        "train": "trainer.loop",
    },
)
