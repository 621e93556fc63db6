"""How fast a GPU can train, from what its maker says it can do: the larger of what it computes and what the host asks.

Small convolutions reach a part of the rate that is printed for large products, and a kernel costs the host as much time
whatever it computes. Both are guesses, within a factor of 2; a run that has begun is timed instead.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.config.config import Config
from trainer.networks.model import SigmaVAE
from trainer.trial_batch import one_update

SHARE = 0.25
"""Of the printed rate, in convolutions as of CelebA."""
LAUNCH_SECONDS = 8e-6
"""Of the host for one kernel, with autograd's part."""
REPLAY_SECONDS = 3e-6
"""Of the GPU for a kernel of a CUDA graph, however little that computes."""
BESIDE = 27
"""Kernels of an update beside the passes forward and backward (tests/device counts them)."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU by what its name holds, and its printed rates for dense products and for memory."""

    name: str
    bf16: float
    """Operations a second in bfloat16, added in float32."""
    float32: float
    """The same in TF32, which convolutions take by default."""
    bandwidth: float
    """Bytes a second of its memory."""
    link: float
    """Bytes a second between the GPUs of one machine, as sums over them reach."""


GPUS = (
    Gpu(name="H100", bf16=989e12, float32=495e12, bandwidth=3.35e12, link=200e9),
    Gpu(name="H200", bf16=989e12, float32=495e12, bandwidth=4.8e12, link=200e9),
    Gpu(name="A100", bf16=312e12, float32=156e12, bandwidth=2.0e12, link=150e9),
    Gpu(name="L40S", bf16=362e12, float32=183e12, bandwidth=0.86e12, link=15e9),
    Gpu(name="RTX 4090", bf16=165e12, float32=83e12, bandwidth=1.0e12, link=10e9),
)


_PARTS = ("MIG", "GRID", "Laptop")
"""Words in the names of a part of a GPU, a virtual one, and a smaller one with the same number."""


def known_gpu(name: str) -> Gpu | None:
    """The GPU that torch.cuda.get_device_name calls so; None for one that is not in the table, or a part of one."""
    if any(part in name for part in _PARTS):
        return None
    return next((gpu for gpu in GPUS if gpu.name in name), None)


def update_seconds(
    gpu: Gpu, *, operations: float, weights: int, launches: int, bf16: bool, graphs: bool, processes: int
) -> float:
    """The time of one update on a global batch.

    operations: of the whole batch, forward and backward. weights: of the model; Adam reads and writes them with their
    moments and gradients. launches: kernels of the passes forward and backward of one process. graphs: whether updates
    are replayed as CUDA graphs. processes: one a GPU.
    """
    computing = operations / processes / (SHARE * (gpu.bf16 if bf16 else gpu.float32))
    adam = 7 * 4 * weights / gpu.bandwidth
    summing = 2 * 4 * weights / gpu.link if processes > 1 else 0.0
    return max(computing + adam + summing, (REPLAY_SECONDS if graphs else LAUNCH_SECONDS) * (launches + BESIDE))


class _Launches(TorchDispatchMode):
    """Counts operations that compute."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or func.__name__.startswith(("empty", "detach", "new_empty", "_unsafe_view")))
        return func(*args, **(kwargs or {}))


def launches_of(config: Config, image_shape: tuple[int, int, int]) -> int:
    """Kernels of the passes forward and backward of an update in stage 1. Nothing is computed. image_shape: (C, H, W).

    config: without `auto` channels.
    """
    small = replace(config, data=replace(config.data, global_batch=2))
    with torch.device("meta"):
        model = SigmaVAE(image_shape, config.model, family=config.variance.family)
        with _Launches() as counter:
            one_update(model, small)
    return counter.count
