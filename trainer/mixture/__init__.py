"""The latent density q_hat(z): a Gaussian mixture fitted to the encodings of a run."""

from typing import TYPE_CHECKING

from data_shards.io.lazy_names import lazy_names

if TYPE_CHECKING:
    from trainer.mixture.gaussian_mixture import GaussianMixture

__all__ = ["GaussianMixture"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "GaussianMixture": "trainer.mixture.gaussian_mixture",
    },
)
