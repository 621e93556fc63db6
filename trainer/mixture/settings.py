"""The settings of a mixture fit, and their ranges."""

from dataclasses import replace
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field

from data_shards.io.configuration import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    configuration,
)
from data_shards.io.errors import InputError
from trainer.mixture.packed import quadratic_columns

CovarianceType = Literal["full", "tied", "diag", "spherical"]
Seeding = Literal["auto", "random", "k-means++"]
COVARIANCE_TYPES: tuple[CovarianceType, ...] = get_args(CovarianceType)
SEEDINGS: tuple[Seeding, ...] = get_args(Seeding)
FORMS = ("posterior", "mean", "sample")
"""How a code is fitted: as the Gaussian q(z|x), as its mean, or as one sample."""

# Products of a point, a component and a feature in one E-step, up to which exact arithmetic costs nothing.
_SMALL_WORK = 100_000_000


@configuration
class Settings:
    """Settings of one fit. The defaults serve many components with few points each."""

    n_components: PositiveInt = 1
    """Number of components K, from 1 to the number of points."""
    covariance_type: CovarianceType = "full"
    """full: a D x D matrix each; tied: one matrix for all; diag: D variances each; spherical: one variance each."""
    reg_covar: NonNegativeFloat = 1e-6
    """Ridge added to every variance, in squared units of the data, at least 0."""
    tol: PositiveFloat = 1e-4
    """The fit ends when an iteration raises the log-likelihood a point by less than this part of its size; above 0."""
    max_iter: NonNegativeInt = 50
    """Largest number of EM iterations, annealed ones included, at least 0; 0 leaves the start as it is."""
    n_init: PositiveInt = 1
    """Number of starts, at least 1, with seeds from random_state on. The fit with the best held-out log-likelihood is
    kept, or with the best training log-likelihood where nothing is held out."""
    init_params: Seeding = "auto"
    """Seeds of k-means: random points, k-means++, or auto, which is k-means++ up to 500 components: beyond, it takes
    longer than k-means itself and gains less than 1 % of its objective."""
    kmeans_iter: NonNegativeInt = 20
    """Iterations of k-means, at least 0."""
    prior_strength: NonNegativeFloat | None = None
    """nu, the pseudo-points that shrink each covariance toward the pooled one, at least 0; 0 is maximum likelihood.
    None is 2 D during EM, and for the last M-step the best on held-out points."""
    annealing_iter: NonNegativeInt = 10
    """Iterations over which the inverse temperature rises geometrically to 1, at least 0; 0 is plain EM."""
    annealing_start: PositiveFraction | None = None
    """The first inverse temperature, in (0, 1]. None is 6.4 / D, at most 1: log-densities then differ by as much as
    in about six dimensions. Where it is much lower, all components become one."""
    inflation: PositiveFloat | None = None
    """Factor on all covariances after the fit, above 0. None is the best on held-out points."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Part of the points, in (0, 1), that is held out to choose prior_strength and inflation where none are given."""
    candidates: NonNegativeInt | None = None
    """Candidates of each point in the truncated E-step, a multiple of 4 from 8 on; 0 is the exact E-step. None is
    32 for full covariances with 256 components or more and for diag with 4000 or more, else exact."""
    products: Literal["auto", "float32", "float64", "centred"] = "auto"
    """Number format of the E- and M-step's products. centred: float64, with differences from the means taken before
    they are squared, for components that are narrow beside the spread of all points. auto: the fastest that holds
    log-densities to 1e-3 nats, and centred for small problems, where it costs nothing. float64: it or centred."""
    random_state: NonNegativeInt = 0
    """Seed of the k-means start and of the choice of validation points."""

    def __post_init__(self) -> None:
        c = self.candidates
        if c is not None and (c % 4 or c == 4):
            raise InputError(f"{c} is not 0 or a multiple of 4 from 8 on", parameter="candidates")

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
        return torch.float64 if self.products in ("float64", "centred") else torch.float32

    def for_points(self, count: int, dim: int) -> "Settings":
        """The settings with products = auto decided, where `count` points in `dim` dimensions are few."""
        work = count * self.n_components * (1 + dim + quadratic_columns(self.covariance_type, dim))
        few = self.products == "auto" and work <= _SMALL_WORK and self.width == 0
        return replace(self, products="centred") if few else self

    def nu(self, dim: int) -> float:
        """The prior strength during EM in `dim` dimensions."""
        return 2.0 * dim if self.prior_strength is None else self.prior_strength
