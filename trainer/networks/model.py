"""The two-stage sigma-VAE: encoder, decoder, and the variance of the decoder's Gaussian noise."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config.sections import ModelConfig
from trainer.networks.layers import decoder_features, encoder_features

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
        """Enters stage 2: freezes sigma_dataset^2 and gives each pixel the variance floor + v_k(z), v_k >= 0 (Alg. 1).

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
