"""The mixture as a class with scikit-learn's names."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.mixture import checks, density, fitting, storage
from trainer.mixture.checks import Array
from trainer.mixture.em.loop import Progress
from trainer.mixture.em.stepwise import Stepwise
from trainer.mixture.parameters import Parameters, pack_covariances
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks, single

# What a fit learns besides the parameters; stored with them.
_LEARNED = ("converged", "n_iter", "history", "prior_strength", "inflation", "truncation_loss", "seconds")


class GaussianMixture:
    """q_hat(z) = sum_k w_k N(z; mu_k, Sigma_k), equation 12, fitted by EM.

    Arguments are those of `Settings`. What is learned ends in an underscore: weights_ (K,), means_ (K, D), covariances_
    in scikit-learn's shapes, all float64 tensors; converged_, n_iter_, history_ (one record an iteration: inverse
    temperature, nats per point), prior_strength_ and inflation_ (as chosen),
    truncation_loss_ (nats per point that the truncated E-step misses, None where it was exact), seconds_ (by phase).
    """

    parameters_: Parameters

    def __init__(self, n_components: int = 1, **settings: Any) -> None:
        self.settings = Settings(n_components=n_components, **settings)
        self._stepwise: Stepwise | None = None
        self._scorer: density.Scorer | None = None

    def fit(
        self,
        x: Array,
        *,
        variance: Array | None = None,
        held_out: Array | None = None,
        held_out_variance: Array | None = None,
        start: Parameters | None = None,
        ranks: Ranks | None = None,
        after: Callable[[Progress], None] | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_seconds: float = 30.0,
    ) -> "GaussianMixture":
        """Fits to points x (n, D), this process's slice of all points.

        variance: (n, D), where each point is a Gaussian q(z|x) = N(x, diag(variance)) (equation 11); then EM raises a
        lower bound of the mean of log q_hat under the aggregate posterior. held_out, held_out_variance: points that
        decide convergence, prior strength and inflation. start: parameters to start from instead of k-means; where they
        have fewer components, the heaviest are split. after: called after each iteration. checkpoint: a folder for
        checkpoints, at most one in checkpoint_seconds; a fit with the same settings and points goes on from it.
        Raises InputError on NaN, wrong shapes, or fewer points than components.
        """
        ranks = ranks or single()
        train = checks.points(x, variance, "x", None, ranks)
        judges = None
        if held_out is not None:
            judges = checks.points(held_out, held_out_variance, "held_out", train.x.shape[1], ranks)
        fitted = fitting.fit(
            train,
            judges,
            settings=self.settings,
            start=start,
            ranks=ranks,
            after=after,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            checkpoint_seconds=checkpoint_seconds,
        )
        self.parameters_ = fitted.parameters
        self.converged_, self.n_iter_ = fitted.progress.converged, fitted.progress.iteration
        self.history_ = fitted.progress.history
        self.prior_strength_, self.inflation_ = fitted.prior_strength, fitted.inflation
        self.truncation_loss_, self.seconds_ = fitted.truncation_loss, fitted.seconds
        return self

    def partial_fit(self, x: Array, *, variance: Array | None = None, ranks: Ranks | None = None) -> "GaussianMixture":
        """Takes in one batch (n, D) by stepwise EM, for points that do not fit in memory.

        The first batch needs at least as many points as components; it sets the start, unless the mixture has
        parameters already. Prior strength is 2 D where the settings leave it open; nothing is held out.
        """
        ranks = ranks or single()
        batch = checks.points(x, variance, "x", None, ranks)
        if self._stepwise is None:
            self._stepwise = Stepwise(self.settings, batch, getattr(self, "parameters_", None), ranks)
            self.history_ = []
        self.history_.append({"log_likelihood": self._stepwise.step(batch)})
        self.parameters_ = self._stepwise.parameters
        return self

    @property
    def weights_(self) -> Tensor:
        """(K,), summing to 1."""
        return self.parameters_.weights

    @property
    def means_(self) -> Tensor:
        """(K, D)."""
        return self.parameters_.means

    @property
    def covariances_(self) -> Tensor:
        """full (K, D, D), tied (D, D), diag (K, D), spherical (K,)."""
        return self.parameters_.expanded_covariances()

    def score_samples(self, x: Array) -> Tensor:
        """log q_hat(x) in nats for points (n, D). Returns (n,) float64; gradients flow to x."""
        if self._scorer is None or self._scorer.parameters is not self.parameters_:
            self._scorer = density.Scorer(self.parameters_)
        return self._scorer.score(self._points(x))

    def score(self, x: Array) -> float:
        """The mean of log q_hat(x) in nats per point."""
        return float(self.score_samples(x).mean())

    def predict_proba(self, x: Array) -> Tensor:
        """Responsibilities (n, K) of the components for points (n, D), float64."""
        return density.weighted_log_densities(self._points(x).double(), self.parameters_).softmax(1)

    def predict(self, x: Array) -> Tensor:
        """The most responsible component of each point, (n,) int64."""
        return density.weighted_log_densities(self._points(x).double(), self.parameters_).argmax(1)

    def sample(self, n: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """n draws, (n, D) float32, in random order of components."""
        return density.sample(self.parameters_, n, generator)

    def bic(self, x: Array) -> float:
        """-2 log-likelihood of x plus log n for each free number of the model; lower is better.

        Beyond n / D components it counts more numbers than there are data: select by held-out likelihood instead.
        """
        x = self._points(x)
        return -2 * float(self.score_samples(x).sum()) + self.parameters_.n_free_numbers() * math.log(len(x))

    def aic(self, x: Array) -> float:
        """-2 log-likelihood of x plus 2 for each free number of the model; lower is better."""
        return -2 * float(self.score_samples(x).sum()) + 2 * self.parameters_.n_free_numbers()

    def save(self, folder: str | Path) -> None:
        """Writes mixture.safetensors and mixture.json into `folder`, replacing what is there."""
        facts = {"settings": asdict(self.settings)}
        for name in _LEARNED:
            if hasattr(self, f"{name}_"):
                facts[name] = getattr(self, f"{name}_")
        storage.save(folder, self.parameters_, facts)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "GaussianMixture":
        """Reads what `save` wrote. Raises InputError where it is missing or damaged."""
        parameters, record = storage.load(folder)
        mixture = cls(**record["settings"])
        mixture.parameters_ = parameters.to(device)
        for name in _LEARNED:
            if name in record:
                setattr(mixture, f"{name}_", record[name])
        return mixture

    @classmethod
    def from_parameters(
        cls, weights: Tensor, means: Tensor, covariances: Tensor, covariance_type: str
    ) -> "GaussianMixture":
        """A mixture of known parameters, covariances in scikit-learn's shape for `covariance_type`."""
        mixture = cls(len(weights), covariance_type=covariance_type)
        mixture.parameters_ = Parameters(
            covariance_type=covariance_type, weights=weights.double(), means=means.double(),
            covariances=pack_covariances(covariance_type, covariances.double()),
        )  # fmt: skip
        return mixture

    def _points(self, x: Array) -> Tensor:
        return checks.matrix(x, "x", self.parameters_.dim).to(self.parameters_.means.device)
