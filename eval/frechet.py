"""The Frechet distance between two Gaussians, without a matrix square root.

For covariances A = F F^T and B = G G^T the trace of (A B)^(1/2) is the sum of the singular values of F^T G (F and G any
factors, square or not), so Cholesky factors do where both are positive definite and truncated eigenvectors elsewhere.
Where A is well conditioned the cheaper eigenvalues of F^T B F, whose roots these singular values are, are exact enough.
"""

import torch
from torch import Tensor

_EPS = torch.finfo(torch.float64).eps
# Relative to the distance: the error of the cheap route above which the dear one is taken.
_TOLERANCE = 1e-10


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)) in float64 (Dowson and Landau 1982).

    mean_a, mean_b: (d,); cov_a, cov_b: (d, d), symmetric, positive semidefinite and perhaps singular, as covariances of
    fewer than d + 1 vectors are. Raises ValueError where shapes disagree or an entry is not finite.
    """
    mean_a, cov_a, mean_b, cov_b = (torch.as_tensor(t, dtype=torch.float64) for t in (mean_a, cov_a, mean_b, cov_b))
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
        overlap, error = _trace_by_eigenvalues(factor_a, cov_b)
        if error <= _TOLERANCE * (apart - 2 * overlap):
            return float((apart - 2 * overlap).clamp_min(0))
    factors = [
        _factor(cov) if known is None else known for cov, known in ((cov_a, factor_a), (cov_b, _cholesky(cov_b)))
    ]
    overlap = torch.linalg.svdvals(factors[0].T @ factors[1]).sum()
    return float((apart - 2 * overlap).clamp_min(0))


def _cholesky(cov: Tensor) -> Tensor | None:
    """The Cholesky factor, or None where `cov` is singular to working precision."""
    factor, failed = torch.linalg.cholesky_ex(cov)
    pivots = factor.diagonal().square()
    if failed or (pivots.numel() and pivots.min() <= len(cov) * _EPS * pivots.max()):
        return None
    return factor


def _factor(cov: Tensor) -> Tensor:
    """F of shape (d, rank) with F F^T = cov. Eigenvalues that rounding alone can have made count as 0."""
    values, vectors = torch.linalg.eigh(cov)  # ascending
    keep = values > len(cov) * _EPS * values.abs().max()
    return vectors[:, keep] * values[keep].sqrt()


def _trace_by_eigenvalues(factor_a: Tensor, cov_b: Tensor) -> tuple[Tensor, Tensor]:
    """tr (A B)^(1/2), and a bound of its rounding error, from the eigenvalues of F^T B F with A = F F^T."""
    product = factor_a.T @ cov_b @ factor_a
    values = torch.linalg.eigvalsh((product + product.T) / 2)
    # Each eigenvalue is off by at most about eps times the largest; the root enlarges that where the value is small.
    uncertain = _EPS * values.abs().max()
    roots = values.clamp_min(0).sqrt()
    error = ((values.clamp_min(0) + uncertain).sqrt() - roots).sum()
    return roots.sum(), error
