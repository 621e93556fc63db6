"""The two-stage sigma-VAE: encoder, decoder, and the variance of the decoder's Gaussian noise.

First the layers, among them batch norm with the statistics of the global batch on any device.
"""

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from data_shards.io.errors import InputError
from trainer.config.sections import ModelConfig

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
}


def activation(config: ModelConfig) -> nn.Module:
    """The nonlinearity of model.activation."""
    return _ACTIVATIONS[config.activation]()


class ResidualBlock(nn.Module):
    """x + f(x) with two 3 x 3 convolutions in f; (B, C, H, W) to the same shape."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        with_bias = config.norm == "none"
        self.branch = nn.Sequential(
            norm_layer(config.norm, channels),
            activation(config),
            nn.Conv2d(channels, channels, 3, padding=1, bias=with_bias),
            norm_layer(config.norm, channels),
            activation(config),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        # The block starts as the identity, so that deep stacks can be trained without normalisation.
        for parameter in self.branch[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Crop(nn.Module):
    """Crops (B, C, H', W') to its top left H x W, since doubling gives one row too many for an odd size."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.height, : self.width]


def encoder_features(image_shape: tuple[int, int, int], config: ModelConfig) -> tuple[nn.Sequential, int]:
    """Images (B, C, H, W) to features (B, F), and F."""
    channels, height, width = image_shape
    layers: list[nn.Module] = []
    assert config.encoder_channels != "auto", "chosen before a network is built"
    for wider in config.encoder_channels:
        # With this padding an even size is halved exactly, for odd and even kernels.
        layers.append(
            nn.Conv2d(
                channels, wider, config.kernel, stride=2, padding=(config.kernel - 1) // 2, bias=config.norm == "none"
            )
        )
        layers += [norm_layer(config.norm, wider), activation(config)]
        layers += [ResidualBlock(wider, config) for _ in range(config.residual_blocks)]
        height, width = (_halved(side, config.kernel) for side in (height, width))
        if min(height, width) < 1:
            raise InputError(
                f"{len(config.encoder_channels)} convolutions with kernel {config.kernel} leave nothing of images of "
                f"{image_shape[1]} x {image_shape[2]} pixels; use fewer, auto, or a kernel of 3 or 5",
                parameter="encoder_channels",
            )
        channels = wider
    layers.append(nn.Flatten())
    features = channels * height * width
    if config.hidden:
        layers += [nn.Linear(features, config.hidden), activation(config)]
        features = config.hidden
    return nn.Sequential(*layers), features


def _halved(side: int, kernel: int) -> int:
    return (side + 2 * ((kernel - 1) // 2) - kernel) // 2 + 1


def decoder_features(image_shape: tuple[int, int, int], config: ModelConfig) -> tuple[nn.Sequential, int]:
    """Latents (B, D) to a feature map (B, F, H, W) of the image's size, and F."""
    _, height, width = image_shape
    assert config.decoder_channels != "auto", "chosen before a network is built"
    sizes = [(height, width)]  # from the image's size down to the first feature map's
    for _ in config.decoder_channels[1:]:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    sizes.reverse()
    first = config.decoder_channels[0]
    features = first * sizes[0][0] * sizes[0][1]
    layers: list[nn.Module] = []
    if config.hidden:
        layers += [nn.Linear(config.latent_dim, config.hidden), activation(config), nn.Linear(config.hidden, features)]
    else:
        layers.append(nn.Linear(config.latent_dim, features))
    layers += [nn.Unflatten(1, (first, *sizes[0])), norm_layer(config.norm, first), activation(config)]
    padding, odd = (config.kernel - 1) // 2, config.kernel % 2
    for before, channels, size in zip(config.decoder_channels, config.decoder_channels[1:], sizes[1:], strict=False):
        layers += [ResidualBlock(before, config) for _ in range(config.residual_blocks)]
        layers.append(
            nn.ConvTranspose2d(
                before,
                channels,
                config.kernel,
                stride=2,
                padding=padding,
                output_padding=odd,
                bias=config.norm == "none",
            )
        )
        layers += [Crop(*size), norm_layer(config.norm, channels), activation(config)]
    return nn.Sequential(*layers), config.decoder_channels[-1]


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


# exp(-8) to exp(4): beyond these a standard deviation of q(z|x) has no meaning, and its square may overflow.
_LOG_STD_RANGE = (-8.0, 4.0)


class Posterior(NamedTuple):
    """q(z|x) = N(mean, diag(std^2)). mean, std: (B, D), std above 0."""

    mean: Tensor
    std: Tensor


class Likelihood(NamedTuple):
    """p(x|z) by mean and variance. mean: (B, C, H, W) in [0, 1]; variance, above 0: (1,) in stage 1, then as mean."""

    mean: Tensor
    variance: Tensor
    family: str = "gaussian"
    """That of `variance.family` in stage 2; stage 1 is Gaussian, as its closed form (equation 9) is."""


class SigmaVAE(nn.Module):
    """Encoder, decoder and the variance of the likelihood.

    image_shape: (C, H, W); initial_variance: sigma^2 before the first update, above 0; learn_variance: whether log
    sigma^2 is a parameter, learnt by gradients, or a buffer, constant or set by a closed form; family: of p(x|z) in
    stage 2, as `variance.family`.
    """

    log_variance: Tensor
    variance_floor: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        config: ModelConfig,
        *,
        initial_variance: float = 1.0,
        learn_variance: bool = False,
        family: str = "gaussian",
    ) -> None:
        super().__init__()
        self.family = family
        self.image_shape, self.latent_dim = image_shape, config.latent_dim
        self.encoder, width = encoder_features(image_shape, config)
        self.to_posterior = nn.Linear(width, 2 * config.latent_dim)
        self.decoder, channels = decoder_features(image_shape, config)
        self.to_mean = nn.Conv2d(channels, image_shape[0], 3, padding=1)
        # log sigma^2 of the data set; shape (1,) because sharded optimisers refuse a 0-d parameter.
        log_variance = torch.tensor([math.log(initial_variance)])
        if learn_variance:
            self.log_variance = nn.Parameter(log_variance)
        else:
            self.register_buffer("log_variance", log_variance)
        self.to_variance: nn.Conv2d | None = None
        self.register_buffer("variance_floor", torch.zeros(1))

    @property
    def pixels(self) -> int:
        """d = C * H * W."""
        return math.prod(self.image_shape)

    @property
    def per_pixel(self) -> bool:
        """True in stage 2, where each pixel has its own variance."""
        return self.to_variance is not None

    @property
    def dataset_variance(self) -> float:
        """sigma_dataset^2 in squared pixel units of the [0, 1] scale."""
        return math.exp(self.log_variance.item())

    def freeze_variance(self, variance: float) -> None:
        """Sets sigma_dataset^2 and removes it from the parameters."""
        self._freeze(torch.full_like(self.log_variance.detach(), math.log(variance)))

    def _freeze(self, log_variance: Tensor) -> None:
        del self.log_variance
        self.register_buffer("log_variance", log_variance)

    def add_variance_head(self, floor: float) -> None:
        """Enters stage 2: freezes sigma_dataset^2 and gives each pixel the variance floor + v_k(z), v_k >= 0.

        v_k starts constant, such that every variance is sigma_dataset^2 and stage 2 begins at the likelihood at which
        stage 1 ended. If the floor is above sigma_dataset^2, v_k starts at a hundredth of the floor.
        """
        above_floor = max(self.dataset_variance - floor, 0.01 * floor)
        head = nn.Conv2d(self.to_mean.in_channels, self.image_shape[0], 3, padding=1).to(self.log_variance.device)
        # softplus(bias) = above_floor; expm1 keeps the digits of small variances.
        bias = torch.full((self.image_shape[0],), math.log(math.expm1(above_floor)))
        head.load_state_dict({"weight": torch.zeros_like(head.weight), "bias": bias})
        self.to_variance = head
        self.variance_floor.fill_(floor)
        self._freeze(self.log_variance.detach().clone())

    def encode(self, x: Tensor) -> Posterior:
        """q(z|x) for images x, (B, C, H, W) in [0, 1]."""
        mean, log_std = self.to_posterior(self.encoder(x)).float().chunk(2, dim=1)  # (B, D) each
        low, high = _LOG_STD_RANGE
        return Posterior(mean, log_std.clamp(low, high).exp())

    def decode(self, z: Tensor) -> Likelihood:
        """p(x|z) for latents z, (B, D)."""
        features = self.decoder(z)  # (B, F, H, W)
        mean = self.to_mean(features).float().sigmoid()  # (B, C, H, W)
        if self.to_variance is None:
            return Likelihood(mean, self.log_variance.exp())
        # Algorithm 1: sigma_k(z)^2 = v_k(z) + floor
        variance = F.softplus(self.to_variance(features).float()) + self.variance_floor
        return Likelihood(mean, variance, self.family)
