"""Our encoder and decoder, freshly initialised, in the form that pythae asks for."""

from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor

from trainer.config.sections import ModelConfig
from trainer.networks.model import SigmaVAE


class Encoder(BaseEncoder):
    """Images to the mean and log-variance of q(z|x)."""

    def __init__(self, network: SigmaVAE) -> None:
        super().__init__()
        self.features, self.to_posterior = network.encoder, network.to_posterior
        self.latent_dim = network.latent_dim

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_std = self.to_posterior(self.features(x)).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=2 * log_std)


class Decoder(BaseDecoder):
    """Latents to the mean of p(x|z)."""

    def __init__(self, network: SigmaVAE) -> None:
        super().__init__()
        self.features, self.to_mean = network.decoder, network.to_mean

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.to_mean(self.features(z)).sigmoid())


def vae(image_shape: tuple[int, int, int], config: ModelConfig) -> VAE:
    """pythae's VAE with our networks."""
    network = SigmaVAE(image_shape, config)
    return VAE(
        VAEConfig(input_dim=image_shape, latent_dim=config.latent_dim),
        encoder=Encoder(network),
        decoder=Decoder(network),
    )
