"""The settings of a mixture fit, and their ranges."""

from dataclasses import dataclass

import torch

from data_shards.io.errors import InputError

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
SEEDINGS = ("auto", "random", "k-means++")
PRODUCTS = ("auto", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one fit. The defaults serve many components with few points each."""

    n_components: int = 1
    """Number of components K, from 1 to the number of points."""
    covariance_type: str = "full"
    """full: a D x D matrix each; tied: one matrix for all; diag: D variances each; spherical: one variance each."""
    reg_covar: float = 1e-6
    """Ridge added to every variance, in squared units of the data, at least 0."""
    tol: float = 1e-4
    """The fit ends when an iteration raises the log-likelihood a point by less than this part of its size; above 0."""
    max_iter: int = 50
    """Largest number of EM iterations, annealed ones included, at least 0; 0 leaves the k-means start."""
    init_params: str = "auto"
    """Seeds of k-means: random points, k-means++, or auto, which is k-means++ up to 500 components: beyond, it takes
    longer than k-means itself and gains less than 1 % of its objective."""
    kmeans_iter: int = 20
    """Iterations of k-means, at least 0."""
    prior_strength: float | None = None
    """nu, the pseudo-points that shrink each covariance toward the pooled one, at least 0; 0 is maximum likelihood.
    None is 2 D during EM, and for the last M-step the best on held-out points."""
    annealing_iter: int = 10
    """Iterations over which the inverse temperature rises geometrically to 1, at least 0; 0 is plain EM."""
    annealing_start: float | None = None
    """The first inverse temperature, in (0, 1]. None is 6.4 / D, at most 1: log-densities then differ by as much as
    in about six dimensions. Where it is much lower, all components become one."""
    inflation: float | None = None
    """Factor on all covariances after the fit, above 0. None is the best on held-out points."""
    validation_fraction: float = 0.1
    """Part of the points, in (0, 1), that is held out to choose prior_strength and inflation where none are given."""
    candidates: int | None = None
    """Candidates of each point in the truncated E-step, a multiple of 4 from 8 on; 0 is the exact E-step. None is
    32 for full covariances with 256 components or more and for diag with 4000 or more, else exact."""
    products: str = "auto"
    """Number format of the E- and M-step's products: float32, float64, or auto (float32 where it is safe)."""
    random_state: int = 0
    """Seed of the k-means start and of the choice of validation points."""

    def __post_init__(self) -> None:
        for name, least in (("n_components", 1), ("max_iter", 0), ("kmeans_iter", 0), ("annealing_iter", 0)):
            self._check(name, getattr(self, name) >= least, f"is too small; use {least} or more")
        for name, names in (
            ("covariance_type", COVARIANCE_TYPES),
            ("init_params", SEEDINGS),
            ("products", PRODUCTS),
        ):
            self._check(name, getattr(self, name) in names, f"is unknown; use one of {', '.join(names)}")
        c, nu, beta, factor = self.candidates, self.prior_strength, self.annealing_start, self.inflation
        self._check("reg_covar", self.reg_covar >= 0, "is negative; use 0 or more")
        self._check("tol", self.tol > 0, "is not above 0")
        self._check("candidates", c in (None, 0) or (c % 4 == 0 and c >= 8), "is not 0 or a multiple of 4 from 8 on")
        self._check("prior_strength", nu is None or nu >= 0, "is negative; use 0 or more, or None")
        self._check("annealing_start", beta is None or 0 < beta <= 1, "is outside (0, 1]")
        self._check("inflation", factor is None or factor > 0, "is not above 0")
        self._check("validation_fraction", 0 < self.validation_fraction < 1, "is outside (0, 1)")

    def _check(self, name: str, right: bool, fault: str) -> None:
        if not right:
            raise InputError(f"{getattr(self, name)!r} {fault}", parameter=name)

    @property
    def width(self) -> int:
        """Candidates of a point in the truncated E-step; 0 where the E-step is exact."""
        if self.candidates is not None:
            return self.candidates if self.candidates < self.n_components else 0
        least = {"full": 256, "diag": 4000}.get(self.covariance_type)
        return 32 if least is not None and self.n_components >= least else 0

    @property
    def has_choices(self) -> bool:
        """Whether prior_strength or inflation is chosen on held-out points."""
        return self.prior_strength is None or self.inflation is None

    @property
    def working_dtype(self) -> torch.dtype:
        """The number format that points are kept in during a fit."""
        return torch.float64 if self.products == "float64" else torch.float32

    def nu(self, dim: int) -> float:
        """The prior strength during EM in `dim` dimensions."""
        return 2.0 * dim if self.prior_strength is None else self.prior_strength
