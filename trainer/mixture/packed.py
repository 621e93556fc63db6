"""Packed quadratic features: every log-density of the mixture becomes one row of a matrix product.

log w_k + log N(x; mu_k, Sigma_k) is linear in phi(x) = [1, x, quadratic terms of x], so that the E-step is the product
of the features with one coefficient row a component, and the M-step's sums are the product of the responsibilities
with the same features. For full covariances that is half the arithmetic of whitening with triangular factors, and no
product is small. Symmetric matrices are kept as their upper triangle, row by row, P = D (D + 1) / 2 numbers.
"""

from functools import cache

import torch
from torch import Tensor


def packed_size(dim: int) -> int:
    """P, the number of entries of the upper triangle."""
    return dim * (dim + 1) // 2


@cache
def _flat_index(dim: int) -> Tensor:
    """(P,): the place in a flattened D x D matrix of each packed entry."""
    row, column = torch.triu_indices(dim, dim)
    return row * dim + column


@cache
def _packed_index(dim: int) -> Tensor:
    """(D * D,): the packed place of each entry of a flattened D x D matrix."""
    row, column = torch.triu_indices(dim, dim)
    index = torch.empty(dim, dim, dtype=torch.int64)
    index[row, column] = index[column, row] = torch.arange(packed_size(dim))
    return index.flatten()


@cache
def diagonal_index(dim: int) -> Tensor:
    """(D,): the packed places of the diagonal."""
    return _packed_index(dim).view(dim, dim).diagonal().clone()


def pack(matrices: Tensor) -> Tensor:
    """Upper triangles of symmetric matrices, (..., D, D) to (..., P)."""
    dim = matrices.shape[-1]
    return matrices.flatten(-2).index_select(-1, _flat_index(dim).to(matrices.device))


def unpack(packed: Tensor, dim: int) -> Tensor:
    """Symmetric matrices from their upper triangles, (..., P) to (..., D, D)."""
    return packed.index_select(-1, _packed_index(dim).to(packed.device)).unflatten(-1, (dim, dim))


def quadratic_columns(covariance_type: str, dim: int) -> int:
    """Number of quadratic features: P for full, D for diag, 1 for spherical, 0 for tied (there it is common to all)."""
    return {"full": packed_size(dim), "diag": dim, "spherical": 1, "tied": 0}[covariance_type]


def features(x: Tensor, variance: Tensor | None, covariance_type: str) -> Tensor:
    """phi(x) for points x (n, D), or its expectation under N(x, diag(variance)). Returns (columns, n).

    One row a feature, so that each is one contiguous product.
    """
    count, dim = x.shape
    columns = 1 + dim + quadratic_columns(covariance_type, dim)
    phi = torch.empty(columns, count, dtype=x.dtype, device=x.device)
    phi[0] = 1
    rows = phi[1 : 1 + dim]  # (D, n)
    rows.copy_(x.t())
    quadratic = phi[1 + dim :]
    if covariance_type == "full":
        start = 0
        for i in range(dim):
            torch.mul(rows[i], rows[i:], out=quadratic[start : start + dim - i])
            start += dim - i
        if variance is not None:
            quadratic[diagonal_index(dim).to(x.device)] += variance.t()
    elif covariance_type == "diag":
        torch.mul(rows, rows, out=quadratic)
        if variance is not None:
            quadratic += variance.t()
    elif covariance_type == "spherical":
        quadratic[0] = rows.square().sum(0)
        if variance is not None:
            quadratic[0] += variance.sum(1)
    return phi
