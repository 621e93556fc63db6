"""The latent density q_hat(z): a Gaussian mixture fitted to the encodings of a run."""

from trainer.mixture.gaussian_mixture import GaussianMixture

__all__ = ["GaussianMixture"]
