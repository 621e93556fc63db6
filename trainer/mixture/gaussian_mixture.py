"""The mixture as a scikit-learn estimator."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from data_shards.io.errors import InputError
from trainer.mixture.arguments import seed_of, whole
from trainer.mixture.chunks import chunks_of
from trainer.mixture.density import MixtureDensity
from trainer.mixture.em.loop import printed_every
from trainer.mixture.fitted import FitRecord, FittedMixture, load_mixture, save_mixture
from trainer.mixture.fitting import fit_mixture
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Array, checked_points, matrix, refuse_masked, tensor_of
from trainer.mixture.settings import Settings
from trainer.mixture.start import Start, given_start
from trainer.mixture.stepwise import Stepwise
from trainer.process_group import single

# scikit-learn's wording, which filters of warnings match.
_NOT_CONVERGED = (
    "Best performing initialization did not converge. Try different init parameters, or increase max_iter, tol, "
    "or check for degenerate data."
)
_SCIKIT_STARTS = {"kmeans": "auto", "random_from_data": "random"}


class GaussianMixture(DensityMixin, BaseEstimator):
    """q_hat(z) = sum_k w_k N(z; mu_k, Sigma_k), equation 12, fitted by EM on one process.

    Points are numpy arrays, or what scikit-learn converts to them, or torch tensors, which are fitted on their device.
    Methods return arrays for arrays and tensors for tensors; fitted attributes and samples are of the kind that was
    fitted to. `fit_mixture` is the same fit for points that are Gaussians, several processes and checkpoints.

    Points that do not fit in memory are a memory-mapped file (`np.memmap`, above 1 GiB), or anything that gives arrays
    (n, D) each time it is iterated, such as a list of them. `fit` reads them once an iteration, and its memory does not
    grow with their number: what it holds out, at most 100,000, and what k-means starts from are samples.

    n_components to random_state: see `Settings`, which checks them when a fit begins.
    weights_init: (K,); means_init: (K, D); precisions_init: inverse covariances in the shape of `precisions_`.
    Where all three are given there is no k-means, else the others follow from it.
    warm_start: whether a further fit starts from the parameters of the last one, without annealing.

    init_params also takes scikit-learn's names "kmeans" (auto) and "random_from_data" (random); every start is followed
    by kmeans_iter iterations of k-means. verbose: 1 prints a line every verbose_interval iterations, 2 also their time.

    With prior_strength=0, inflation=1 and annealing_iter=0 the fit is maximum likelihood, as scikit-learn's. Attributes
    are of the number format of the points; log-densities are float64 always.
    """

    parameters_: Parameters
    """The parameters as the project stores them: float64 tensors, symmetric matrices packed."""
    settings_: Settings
    """The settings of the last fit."""
    n_features_in_: int
    """D."""
    converged_: bool
    """Whether the last iteration gained less than `tol`."""
    n_iter_: int
    """EM iterations; after `partial_fit`, batches."""
    history_: list[dict[str, float]]
    """One record an iteration, see `FitRecord.history`."""
    prior_strength_: float
    """nu of the last M-step, as given or chosen."""
    inflation_: float
    """Factor on all covariances, as given or chosen."""
    truncation_loss_: float | None
    """Nats per point that the truncated E-step left out; None where the E-step was exact."""
    seconds_: dict[str, float]
    """Wall time by phase."""
    alive_: int | None
    """Components with an expected point or more; None where the fit does not know."""
    remarks_: list[str]
    """What a user should know, see `FitRecord.remarks`; `fit` warns of each."""

    _fitted_tensors = False
    _fitted_dtype = torch.float64
    _stepwise: Stepwise | None = None
    _waiting: Sequence[Tensor] = ()

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        reg_covar: float = 1e-6,
        tol: float = 1e-4,
        max_iter: int = 50,
        n_init: int = 1,
        init_params: str = "auto",
        kmeans_iter: int = 20,
        prior_strength: float | None = None,
        annealing_iter: int = 10,
        annealing_start: float | None = None,
        inflation: float | None = None,
        validation_fraction: float = 0.1,
        candidates: int | None = None,
        products: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
        weights_init: Array | None = None,
        means_init: Array | None = None,
        precisions_init: Array | None = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.kmeans_iter = kmeans_iter
        self.prior_strength = prior_strength
        self.annealing_iter = annealing_iter
        self.annealing_start = annealing_start
        self.inflation = inflation
        self.validation_fraction = validation_fraction
        self.candidates = candidates
        self.products = products
        self.random_state = random_state
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def fit(self, X: Any, y: object = None) -> "GaussianMixture":
        """Fits to points X (n, D), n at least n_components. y is ignored.

        Raises ValueError on parameters out of range, NaN, wrong shapes, or fewer points than components.
        """
        settings = self._settings()
        chunks = chunks_of(X)
        x = self._points(X if chunks is None else chunks.first, reset=True)
        ranks, dim = single(x.device), x.shape[1]
        points = checked_points(x, None, "X", None, ranks) if chunks is None else chunks
        if self.warm_start and hasattr(self, "parameters_"):
            start = self._last(dim, "warm_start")
            settings = self._settings(annealing_iter=0)
        else:
            start = given_start(self.weights_init, self.means_init, self.precisions_init, settings=settings, dim=dim)
        printed = printed_every(self.verbose_interval, self.verbose) if self.verbose else None
        self._take(fit_mixture(points, None, settings=settings, start=start, ranks=ranks, after=printed))
        self._fitted_tensors = isinstance(X, Tensor) if chunks is None else chunks.are_tensors
        self._fitted_dtype = x.dtype
        for remark in self.remarks_:
            warnings.warn(remark, UserWarning, stacklevel=2)
        if not self.converged_ and settings.max_iter > 0:
            warnings.warn(_NOT_CONVERGED, ConvergenceWarning, stacklevel=2)
        return self

    def partial_fit(self, X: Any, y: object = None) -> "GaussianMixture":
        """One step of stepwise EM by one batch X (n, D), for points that do not fit in memory. y is ignored.

        The first batch gives the k-means start, unless the mixture has parameters already; where it has fewer points
        than components, it waits for the next ones. A batch of no points does nothing. Prior strength is 2 D where it
        is None; nothing is held out. A `fit` in between forgets the batches; what follows it continues from its
        parameters.
        """
        if isinstance(X, Tensor):
            X = matrix(X, "X")
        shape: Sequence[int] = getattr(X, "shape", ())
        if len(shape) == 2 and shape[0] == 0:
            return self
        waiting = self._waiting
        x = self._points(X, reset=not (waiting or hasattr(self, "parameters_")))
        ranks = single(x.device)
        batch = checked_points(torch.cat([*waiting, x]), None, "X", None, ranks)
        if self._stepwise is None:
            settings, start = self._settings(), None
            if hasattr(self, "parameters_"):
                start = self._last(batch.x.shape[1], "partial_fit").grown(
                    settings.covariance_type, settings.n_components
                )
            elif len(batch) < settings.n_components:
                self._waiting = [batch.x]
                return self
            self.settings_, self._stepwise = settings, Stepwise(settings, batch, start, ranks)
            self._fitted_tensors, self._fitted_dtype = isinstance(X, Tensor), x.dtype
            self.history_, self._waiting = [], []
        self.history_.append({"log_likelihood": self._stepwise.step(batch)})
        self._set(self._stepwise.parameters)
        self.converged_, self.n_iter_ = False, len(self.history_)
        self.prior_strength_, self.inflation_ = self.settings_.nu(self.parameters_.dim), 1.0
        self.truncation_loss_, self.seconds_, self.alive_, self.remarks_ = None, {}, None, []
        return self

    def fit_predict(self, X: Any, y: object = None) -> Array:
        """Fits to X (n, D) and returns the most responsible component of each point, (n,) integers."""
        return self.fit(X).predict(X)

    def score_samples(self, X: Any) -> Array:
        """log q_hat in nats for points X (n, D). Returns (n,) float64; gradients flow to a tensor."""
        return self._of_all(X, self.density_.score_samples)

    def score(self, X: Any, y: object = None) -> float:
        """The mean of log q_hat over points X (n, D), in nats per point."""
        total, count = self._log_likelihood(X)
        return total / count

    def predict_proba(self, X: Any) -> Array:
        """Responsibilities (n, K) of the components for points X (n, D), float64."""
        return self._of_all(X, self.density_.predict_proba)

    def predict(self, X: Any) -> Array:
        """The most responsible component of each point of X (n, D), (n,) integers."""
        return self._of_all(X, self.density_.predict)

    def sample(self, n_samples: int = 1, *, generator: torch.Generator | None = None) -> tuple[Array, Array]:
        """Draws (n_samples, D), in random order of components, and the component (n_samples,) of each.

        generator: on the CPU; None seeds one with random_state.
        """
        density = self.density_
        n_samples = whole(n_samples, "n_samples", 0)
        if generator is None:
            generator = torch.Generator().manual_seed(seed_of(self.random_state))
        draws, components = density.sample_with_components(n_samples, generator)
        return self._attribute(draws), self._attribute(components)

    def bic(self, X: Any) -> float:
        """-2 log-likelihood of X plus log n for each free parameter; lower is better.

        Beyond n / D components it counts more parameters than numbers in X: select by held-out likelihood instead.
        """
        total, count = self._log_likelihood(X)
        return -2 * total + self.parameters_.n_free_numbers() * math.log(count)

    def aic(self, X: Any) -> float:
        """-2 log-likelihood of X plus 2 for each free parameter; lower is better."""
        return -2 * self._log_likelihood(X)[0] + 2 * self.parameters_.n_free_numbers()

    @property
    def weights_(self) -> Array:
        """(K,) float64, summing to 1."""
        return self._attribute(self.parameters_.weights)

    @property
    def means_(self) -> Array:
        """(K, D) float64."""
        return self._attribute(self.parameters_.means)

    # Matrices are computed at each access: with 10,000 components in 64 dimensions each of these takes 0.3 GB.
    @property
    def covariances_(self) -> Array:
        """full (K, D, D), tied (D, D), diag (K, D), spherical (K,); float64."""
        return self._attribute(self.parameters_.expanded_covariances())

    @property
    def precisions_(self) -> Array:
        """Inverse covariances, in the shapes of `covariances_`."""
        factors = self.parameters_.precision_factors()
        has_matrices = self.parameters_.covariance_type in ("full", "tied")
        return self._attribute(factors @ factors.mT if has_matrices else factors.square())

    @property
    def precisions_cholesky_(self) -> Array:
        """U, upper triangular with U U^T the precision matrix, or 1 / standard deviation, as `covariances_`."""
        return self._attribute(self.parameters_.precision_factors())

    @property
    def lower_bounds_(self) -> list[float]:
        """Mean log-likelihood of the training points in each iteration before its M-step, nats per point."""
        return [record["log_likelihood"] for record in self.history_]

    @property
    def lower_bound_(self) -> float:
        """The last of `lower_bounds_`; minus infinity where there was no iteration."""
        return self.lower_bounds_[-1] if self.history_ else -math.inf

    @property
    def density_(self) -> MixtureDensity:
        """The same mixture as a density of tensors."""
        check_is_fitted(self, "parameters_")
        return self._density

    def save(self, folder: str | Path) -> None:
        """Writes mixture.safetensors and mixture.json into `folder`, in place of what is there."""
        check_is_fitted(self, "parameters_")
        names = [field.name for field in fields(FitRecord)]
        record = FitRecord(**{name: getattr(self, f"{name}_") for name in names}) if hasattr(self, "n_iter_") else None
        save_mixture(folder, FittedMixture(parameters=self.parameters_, settings=self.settings_, record=record))

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "GaussianMixture":
        """Reads what `save` wrote, with tensors on `device`. Raises InputError where it is missing or damaged."""
        return cls.from_fitted(load_mixture(folder, device))

    @classmethod
    def from_fitted(cls, fitted: FittedMixture) -> "GaussianMixture":
        """The result of `fit_mixture` as an estimator, whose attributes are tensors."""
        mixture = cls(**asdict(fitted.settings))
        mixture._take(fitted)
        mixture.n_features_in_ = fitted.parameters.dim
        mixture._fitted_tensors = True
        return mixture

    @classmethod
    def from_parameters(
        cls, weights: Array, means: Array, covariances: Array, covariance_type: str
    ) -> "GaussianMixture":
        """A mixture of known parameters, covariances in scikit-learn's shape for `covariance_type`."""
        tensors = [torch.as_tensor(array) for array in (weights, means, covariances)]
        settings = cls(len(weights), covariance_type=covariance_type)._settings()
        mixture = cls.from_fitted(
            FittedMixture(parameters=Parameters.of(covariance_type, *tensors), settings=settings, record=None)
        )
        mixture._fitted_tensors, mixture._fitted_dtype = isinstance(weights, Tensor), tensors[0].dtype
        return mixture

    def _settings(self, **changed: Any) -> Settings:
        """The constructor's parameters, checked."""
        whole(self.verbose, "verbose", 0)
        whole(self.verbose_interval, "verbose_interval", 1)
        if not isinstance(self.warm_start, (bool, np.bool_)):
            raise InputError(f"{self.warm_start!r} is neither True nor False", parameter="warm_start")
        values = {field.name: getattr(self, field.name) for field in fields(Settings)} | changed
        values["random_state"] = seed_of(self.random_state)
        if isinstance(self.init_params, str):
            values["init_params"] = _SCIKIT_STARTS.get(self.init_params, self.init_params)
        return Settings(**{name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()})

    def _take(self, fitted: FittedMixture) -> None:
        """Makes a fit's results the attributes."""
        self._set(fitted.parameters)
        self.settings_ = fitted.settings
        for name, value in vars(fitted.record).items() if fitted.record else ():
            setattr(self, f"{name}_", value)
        self._stepwise, self._waiting = None, ()

    def _set(self, parameters: Parameters) -> None:
        self.parameters_, self._density = parameters, MixtureDensity(parameters)

    def _last(self, dim: int, of: str) -> Start:
        """The last parameters in `dim` dimensions, which `of`, a parameter or method, continues from."""
        last = self.parameters_
        if last.dim != dim:
            raise InputError(f"{dim} dimensions, but {of} continues from {last.dim}", parameter="X")
        if last.covariance_type != self.covariance_type:
            message = f"{self.covariance_type!r}, but {of} continues from {last.covariance_type!r}"
            raise InputError(message, parameter="covariance_type")
        if last.n_components > self.n_components:
            message = f"{self.n_components}, but {of} continues from {last.n_components}; use as many or more"
            raise InputError(message, parameter="n_components")
        return replace(Start.at(last), record=self.history_[-1] if getattr(self, "history_", None) else None)

    def _points(self, X: Any, *, reset: bool = False) -> Tensor:
        """X as a float tensor (n, D), which scikit-learn has checked where it is not one. reset: D is new."""
        if not (reset or self._waiting):
            check_is_fitted(self, "parameters_")
        if not isinstance(X, Tensor):
            refuse_masked(X, "X")
            return tensor_of(validate_data(self, X, reset=reset, dtype=[np.float64, np.float32]))
        tensor = matrix(X, "X", None if reset else self.n_features_in_)
        if reset:
            self.n_features_in_ = tensor.shape[1]
        return tensor

    def _attribute(self, tensor: Tensor) -> Array:
        """A tensor as what was fitted to: of its number format, and the tensor itself or an array."""
        tensor = tensor.to(self._fitted_dtype) if tensor.is_floating_point() else tensor
        return tensor if self._fitted_tensors else tensor.cpu().numpy()

    def _of_all(self, X: Any, method: Callable[[Tensor], Tensor]) -> Array:
        """A method's results for all points, as what they were computed from."""
        chunks = chunks_of(X)
        if chunks is None:
            found = method(self._points(X))
            return found if isinstance(X, Tensor) else found.cpu().numpy()
        found = torch.cat([method(self._points(part)) for part in chunks])
        return found if chunks.are_tensors else found.cpu().numpy()

    def _log_likelihood(self, X: Any) -> tuple[float, int]:
        """(nats of all points, their number)."""
        total, count = 0.0, 0
        for part in chunks_of(X) or [X]:
            scores = self.density_.score_samples(self._points(part).detach())
            total, count = total + float(scores.sum()), count + len(scores)
        return total, count
