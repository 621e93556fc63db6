"""What the trainer's benchmarks measure in turns of a few updates: the trainer, and a bare loop."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from support.running import ROOT, write_idx
from torch import Tensor, nn
from turns import Work

from trainer.config.config import Config, load_config
from trainer.loop import train
from trainer.networks.model import SigmaVAE
from trainer.objectives.gaussian import kl_to_prior, log_likelihood

IMAGE_SHAPE = (1, 28, 28)
IMAGES = 12_800
UPDATES = 50
"""Updates in a turn."""
EARLY_TURNS = 8
"""Turns before the first that is measured: held-out images are measured more often at the beginning of a training."""
CONFIG = ROOT / "trainer" / "configs" / "fashion_mnist.yaml"


def build_shards(folder: Path) -> Path:
    """Shards of random pixels: 12,800 images for training and 1,000 held out."""
    source, shards = folder / "source", folder / "shards"
    source.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES + 1000, *IMAGE_SHAPE[1:]))
    for name, part in (("train", pixels), ("t10k", pixels[:100])):
        write_idx(source / f"{name}-images-idx3-ubyte.gz", part)
        write_idx(source / f"{name}-labels-idx1-ubyte.gz", np.zeros(len(part)))
    words = ["data_shards", "build", "mnist", "--source", str(source), "--out", str(shards), "--valid", "1000"]
    subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True, capture_output=True)
    return shards


def configuration(shards: Path, name: str, batch: int) -> Config:
    """fashion_mnist.yaml with a log line and a held-out check in every turn, and a checkpoint every five turns.

    A check evaluates 4 % as many images as were trained on since the last one, as with the file's own settings. Log
    lines, checks and checkpoints come several times as often as there.
    """
    turn = UPDATES * batch
    fields = {
        "data.shards": str(shards),
        "data.global_batch": batch,
        "data.valid_images": turn // 25,
        "runs": str(shards.parent / "runs"),
        "name": name,
        "stage1.max_epochs": 1000,
        "stage1.eps": 0,
        "stage1.check_images": turn,
        "stage2.max_epochs": 0,
        "checkpoint.every_images": 5 * turn,
        "log.every_images": turn,
    }
    return load_config(CONFIG, fields)


def trainer(config: Config) -> Work:
    """The trainer; a turn ends with a line of its log, those apart that come with the checks between two turns.

    The first turn is as long as EARLY_TURNS of the others.
    """

    def work(turn_over: Callable[[], None]) -> None:
        early = EARLY_TURNS * config.log.every_images

        def listener(kind: str, images: int, facts: object) -> None:
            if kind == "train" and images >= early and images % config.log.every_images == 0:
                turn_over()

        train(config, listener)

    return work


class Loss(nn.Module):
    """The negative ELBO of images in [0, 1] and nothing else."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = SigmaVAE(IMAGE_SHAPE, config.model, initial_variance=0.05).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.model.encode(x)
        output = self.model.decode(mean + std * torch.randn_like(std))
        return (kl_to_prior(mean, std) - log_likelihood(x, output.mean, output.variance)).mean()


def bare(config: Config) -> Work:
    """A bare loop: the same network and batch from floats in memory, Adam in one fused kernel, nothing else.

    On several processes each has its part of the batch, and DistributedDataParallel sums the gradients.
    """

    def work(turn_over: Callable[[], None]) -> None:
        loss: nn.Module = Loss(config)
        processes = dist.get_world_size() if dist.is_initialized() else 1
        if processes > 1:
            loss = nn.parallel.DistributedDataParallel(loss, gradient_as_bucket_view=True, broadcast_buffers=False)
        adam = torch.optim.Adam(loss.parameters(), lr=1e-3, fused=True)
        rows = config.data.global_batch // processes
        batches = torch.rand(UPDATES * rows, *IMAGE_SHAPE).split(rows)
        while True:
            for x in batches:
                adam.zero_grad()
                loss(x).backward()
                adam.step()
            turn_over()

    return work
