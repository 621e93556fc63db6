"""The layers from an image to its features, and from features back to an image: convolutions with residual blocks."""

import math

from torch import Tensor, nn

from data_shards.io.errors import InputError
from trainer.config.sections import ModelConfig
from trainer.networks.norm import norm_layer

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
