"""The latent density q_hat(z): a Gaussian mixture fitted to the encodings of a run."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.mixture.gaussian_mixture import GaussianMixture

__all__ = ["GaussianMixture"]


def __getattr__(name: str) -> Any:
    # Loaded when it is used: scikit-learn and faiss take seconds that most commands need not spend.
    if name == "GaussianMixture":
        from trainer.mixture.gaussian_mixture import GaussianMixture

        return GaussianMixture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
