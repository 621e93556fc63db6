"""Normalisation layers, among them batch norm with the statistics of the global batch on any device."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes. Its gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of `values` over the processes of the group, through which gradients flow to every process."""
    if _several_processes() and not values.is_meta:  # trial_batch.py runs each process's networks alone
        return _SumOverRanks.apply(values)
    return values


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class GlobalBatchNorm(nn.Module):
    """Batch norm of (B, C, H, W) over the images of all processes; B may differ between processes and be 0.

    torch's own SyncBatchNorm works on GPUs only; with this one a run is the same on any number of CPU processes.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, channels: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x, (B, C, H, W), by the global batch in training and by the running moments in evaluation.

        A channel of one value in the whole batch (one image, a 1 x 1 feature map) has no variance: it is normalised by
        the running moments in training too, and these stay.
        """
        if not self.training:
            return self._scale(x, self.running_mean, self.running_variance)
        total, mean, variance = self._global_moments(x)
        several = total > 1
        with torch.no_grad():
            # A batch that is not finite is skipped by the update, and must not change the running moments either.
            good = torch.isfinite(mean) & torch.isfinite(variance) & several
            unbiased = variance * total / (total - 1).clamp_min(1)
            self.running_mean.copy_(torch.where(good, self.running_mean.lerp(mean, self.momentum), self.running_mean))
            self.running_variance.copy_(
                torch.where(good, self.running_variance.lerp(unbiased, self.momentum), self.running_variance)
            )
        mean = torch.where(several, mean, self.running_mean)
        return self._scale(x, mean, torch.where(several, variance, self.running_variance))

    def _global_moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values a channel in the global batch, (), their means and their variances, (C,) each.

        Each process takes its own moments in two passes: a difference of two large sums would lose digits, and so would
        a mean in the bfloat16 that x may have. One sum over all processes brings the moments of each to all.
        """
        channels, dtype = len(self.weight), self.running_mean.dtype
        # Filled on the device: a number that is copied from the host would make it wait.
        count = x.new_full((1,), x.shape[0] * x.shape[2] * x.shape[3], dtype=dtype)
        total = x.sum((0, 2, 3), dtype=dtype)  # (C,)
        mean = total / count
        if not _several_processes():
            return count[0], mean, (x - mean[:, None, None]).square().sum((0, 2, 3), dtype=dtype) / count
        centred = x - (total / count.clamp_min(1))[:, None, None]
        own = torch.cat([total, centred.square().sum((0, 2, 3), dtype=dtype), count])
        # Processes without images add nothing. The rows of others are zero here, so the sum over processes is exact.
        rows = own.new_zeros(dist.get_world_size(), len(own))
        rows[dist.get_rank()] = own
        totals, squares, counts = sum_over_ranks(rows).split([channels, channels, 1], dim=1)  # (processes, ...)
        count = counts.sum()
        mean = totals.sum(0) / count
        # Chan, Golub and LeVeque (1979): squares about each process's mean, and of that mean about the whole batch's.
        between = counts * (totals / counts.clamp_min(1) - mean).square()
        return count, mean, (squares + between).sum(0) / count

    def _scale(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        factor = self.weight * torch.rsqrt(variance + self.eps)  # (C,)
        shift = self.bias - mean * factor
        if x.dtype == factor.dtype:
            return x * factor[:, None, None] + shift[:, None, None]
        # x is bfloat16 under autocast: only the result is rounded.
        return torch.addcmul(shift[:, None, None], x, factor[:, None, None]).to(x.dtype)


def norm_layer(kind: str, channels: int) -> nn.Module:
    """The layer of model.norm: none, batch or group (groups of at least 8 channels)."""
    if kind == "batch":
        return GlobalBatchNorm(channels)
    if kind == "group":
        return nn.GroupNorm(min(32, channels // 8), channels)
    return nn.Identity()
