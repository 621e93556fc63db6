"""The Frechet distance between two Gaussians, without a matrix square root.

For covariances A = F F^T and B = G G^T the trace of (A B)^(1/2) is the sum of the singular values of F^T G (F and G any
factors, square or not), so Cholesky factors do where both are positive definite and truncated eigenvectors elsewhere.
Where A and B are well conditioned, the eigenvalues of F^T B F are exact enough: their roots are these singular values
and cost a tenth.
"""

import torch
from scipy import linalg
from scipy.linalg import lapack
from torch import Tensor

from eval.distance.measures.measure import Estimate, Measure, Number
from eval.distance.statistics import FeatureStatistics

_EPS = torch.finfo(torch.float64).eps
# Error of the cheap route, relative to the distance, above which the expensive one is taken.
_TOLERANCE = 3e-10


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)) in float64 (Dowson and Landau 1982).

    mean_a, mean_b: (d,); cov_a, cov_b: (d, d), symmetric, positive semidefinite and perhaps singular, as covariances of
    fewer than d + 1 vectors are. Raises ValueError where shapes disagree or an entry is not finite.
    """
    mean_a, cov_a, mean_b, cov_b = (
        torch.as_tensor(t, dtype=torch.float64, device="cpu") for t in (mean_a, cov_a, mean_b, cov_b)
    )
    d = len(mean_a)
    if mean_a.shape != (d,) or mean_b.shape != (d,) or cov_a.shape != (d, d) or cov_b.shape != (d, d):
        shapes = [tuple(t.shape) for t in (mean_a, cov_a, mean_b, cov_b)]
        raise ValueError(f"means and covariances of shapes {shapes} do not fit together")
    if not all(t.isfinite().all() for t in (mean_a, cov_a, mean_b, cov_b)):
        raise ValueError("a mean or covariance has an entry that is not finite")
    cov_a, cov_b = (cov_a + cov_a.T) / 2, (cov_b + cov_b.T) / 2
    apart = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace()
    factor_a = _cholesky(cov_a)
    if factor_a is not None:
        values = _eigenvalues_between(factor_a, cov_b)
        distance = apart - 2 * values.clamp_min(0).sqrt().sum()
        if _error_of_roots(values) <= _TOLERANCE * distance:
            return float(distance)
    factor_a = _truncated_factor(cov_a) if factor_a is None else factor_a
    factor_b = _cholesky(cov_b)
    factor_b = _truncated_factor(cov_b) if factor_b is None else factor_b
    overlap = torch.linalg.svdvals(factor_a.T @ factor_b).sum()
    return float((apart - 2 * overlap).clamp_min(0))


def _cholesky(cov: Tensor) -> Tensor | None:
    """The Cholesky factor, or None where `cov` is singular to working precision."""
    factor, failed = torch.linalg.cholesky_ex(cov)
    pivots = factor.diagonal().square()
    if failed or (pivots.numel() and pivots.min() <= len(cov) * _EPS * pivots.max()):
        return None
    return factor


def _eigenvalues_between(factor: Tensor, cov: Tensor) -> Tensor:
    """Eigenvalues (d,) of F^T C F for a lower triangular F; NaN where they were not found.

    LAPACK's reduction of the product takes a quarter of the arithmetic of two products, and without eigenvectors the
    tridiagonal form is all that costs.
    """
    if len(cov) == 1:
        return (factor.square() * cov).flatten()  # dsterf needs an entry beside the diagonal
    # C order of a lower triangle is Fortran's order of its transpose, an upper one.
    upper, symmetric = factor.numpy().T, cov.numpy().T
    product, failed = lapack.dsygst(symmetric, upper, itype=2, lower=0)
    lwork, _ = lapack.dsytrd_lwork(len(cov), lower=0)
    _, diagonal, beside, _, failed_too = lapack.dsytrd(product, lower=0, lwork=int(lwork), overwrite_a=1)
    values, left = lapack.dsterf(diagonal, beside)
    found = torch.from_numpy(values)
    return found if failed == failed_too == left == 0 else found.fill_(torch.nan)


def _truncated_factor(cov: Tensor) -> Tensor:
    """F of shape (d, rank) with F F^T = cov. Eigenvalues that rounding alone can have made count as 0."""
    negligible = len(cov) * _EPS
    # A constant feature has no part in it, and many of them keep LAPACK's dsyevd, torch's only choice, from converging.
    varying = (cov.diagonal() > negligible * cov.diagonal().abs().max()).nonzero()[:, 0]
    if not len(varying):
        return cov.new_zeros(len(cov), 1)
    found = linalg.eigh(cov[varying][:, varying].numpy(), driver="evr")
    values, vectors = (torch.from_numpy(array) for array in found)  # ascending
    keep = values > negligible * values.abs().max()
    factor = cov.new_zeros(len(cov), int(keep.sum()))
    factor[varying] = vectors[:, keep] * values[keep].sqrt()
    return factor


def _error_of_roots(values: Tensor) -> Tensor:
    """How far the sum of the roots of computed eigenvalues may be off."""
    # Each eigenvalue is off by about eps times the largest, which the root enlarges where the value is small.
    uncertain = _EPS * values.abs().max()
    errors = (values.clamp_min(0) + uncertain).sqrt() - values.clamp_min(0).sqrt()
    small = values < uncertain
    # Errors of either sign add up as in a random walk; a value below its error has a root that is too large.
    return errors[~small].square().sum().sqrt() + errors[small].sum()


def _measure(compared: FeatureStatistics, reference: FeatureStatistics, seed: int) -> list[Estimate]:
    distance = frechet_distance(compared.mean(), compared.covariance(), reference.mean(), reference.covariance())
    return [Estimate(value=distance)]


MEASURE = Measure(
    name="frechet",
    help="the Frechet distance of the features, called FID for Inception's",
    numbers=[
        Number(name="frechet_distance", title="Frechet", unit="squared feature units", decimals=2, better="lower")
    ],
    function=_measure,
    draws=False,
    needs_features=False,
)
