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
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return _SumOverRanks.apply(values)
    return values


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
        """Normalises x, (B, C, H, W), by the global batch in training and by the running moments in evaluation."""
        if not self.training:
            return self._scale(x, self.running_mean, self.running_variance)
        count = self.running_mean.new_tensor([x.shape[0] * x.shape[2] * x.shape[3]])
        sums = sum_over_ranks(torch.cat([x.sum((0, 2, 3), dtype=self.running_mean.dtype), count]))  # (C + 1,)
        total = sums[-1]
        mean = sums[:-1] / total  # (C,)
        # In two passes: the variance as a difference of two large sums would lose digits.
        centred = x - mean.to(x.dtype)[:, None, None]
        variance = sum_over_ranks(centred.square().sum((0, 2, 3), dtype=self.running_mean.dtype)) / total  # (C,)
        with torch.no_grad():
            # A batch that is not finite is skipped by the update, and must not change the running moments either.
            good = torch.isfinite(mean) & torch.isfinite(variance)
            unbiased = variance * total / (total - 1)
            self.running_mean.copy_(torch.where(good, self.running_mean.lerp(mean, self.momentum), self.running_mean))
            self.running_variance.copy_(
                torch.where(good, self.running_variance.lerp(unbiased, self.momentum), self.running_variance)
            )
        return self._scale(x, mean, variance)

    def _scale(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        factor = self.weight * torch.rsqrt(variance + self.eps)  # (C,)
        shift = self.bias - mean * factor
        return x * factor.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]


def norm_layer(kind: str, channels: int) -> nn.Module:
    """The layer of model.norm: none, batch or group (groups of at least 8 channels)."""
    if kind == "batch":
        return GlobalBatchNorm(channels)
    if kind == "group":
        return nn.GroupNorm(min(32, channels // 8), channels)
    return nn.Identity()
