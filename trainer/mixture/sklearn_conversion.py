"""To scikit-learn's mixture and back."""

import torch
from sklearn import mixture as sklearn_mixture

from trainer.mixture.gaussian_mixture import GaussianMixture
from trainer.mixture.parameters import Parameters


def to_sklearn(mixture: GaussianMixture) -> sklearn_mixture.GaussianMixture:
    """The same density as a fitted scikit-learn model (in float64, on the CPU)."""
    parameters = mixture.parameters_.to("cpu")
    settings = mixture.settings
    model = sklearn_mixture.GaussianMixture(
        parameters.n_components,
        covariance_type=parameters.covariance_type,
        reg_covar=settings.reg_covar,
        max_iter=max(1, settings.max_iter),
        random_state=settings.random_state,
    )
    model.weights_ = parameters.weights.numpy()
    model.means_ = parameters.means.numpy()
    model.covariances_ = parameters.expanded_covariances().numpy()
    factors = _precision_factors(parameters)
    model.precisions_cholesky_ = factors.numpy()
    model.precisions_ = (factors @ factors.mT if factors.ndim > 1 and _has_matrices(parameters) else factors**2).numpy()
    model.n_features_in_ = parameters.dim
    model.converged_, model.n_iter_ = True, 0
    return model


def from_sklearn(model: sklearn_mixture.GaussianMixture) -> GaussianMixture:
    """A fitted scikit-learn model as ours; its weights, means and covariances are copied."""
    weights, means, covariances = (
        torch.tensor(array, dtype=torch.float64) for array in (model.weights_, model.means_, model.covariances_)
    )
    return GaussianMixture.from_parameters(weights, means, covariances, model.covariance_type)


def _has_matrices(parameters: Parameters) -> bool:
    return parameters.covariance_type in ("full", "tied")


def _precision_factors(parameters: Parameters) -> torch.Tensor:
    """scikit-learn's precisions_cholesky_: U upper triangular with U U^T = precision, or 1 / standard deviation."""
    if not _has_matrices(parameters):
        return parameters.expanded_covariances().rsqrt()
    factors = parameters.whitening(slice(0, parameters.n_components))[0].mT
    return factors if parameters.covariance_type == "full" else factors[0]
