"""Packed quadratic features: the log-densities of all components are one matrix product.

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
def _packed_rows(dim: int) -> tuple[Tensor, Tensor]:
    """(P,) each: the row and the column of each packed entry."""
    row, column = torch.triu_indices(dim, dim)
    return row, column


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


def upper_triangles(packed: Tensor, dim: int) -> Tensor:
    """Matrices (b, D, D) whose upper triangle is that of packed ones (b, P); below it, anything.

    On a CPU a quarter of the time of `unpack`, as rows of packed entries are rows of the triangle.
    """
    if packed.is_cuda:
        return unpack(packed, dim)
    matrices, start = packed.new_empty(len(packed), dim, dim), 0
    for i in range(dim):
        matrices[:, i, i:] = packed[:, start : start + dim - i]
        start += dim - i
    return matrices


def quadratic_columns(covariance_type: str, dim: int) -> int:
    """Number of quadratic features: P for full, D for diag, 1 for spherical, 0 for tied (there it is common to all)."""
    return {"full": packed_size(dim), "diag": dim, "spherical": 1, "tied": 0}[covariance_type]


def products_at_once(rows: Tensor, out: Tensor) -> None:
    """The packed products x_i x_j of the rows (D, n) into out (P, n), in three operations whatever D is.

    On a GPU launches cost more than the memory of the gathered factors; on a CPU it is the other way round.
    """
    first, second = (index.to(rows.device) for index in _packed_rows(len(rows)))
    torch.mul(rows.index_select(0, first), rows.index_select(0, second), out=out)


class Features:
    """phi of one chunk of points after another, in memory that is allocated once, as (columns, n).

    rows: points of the largest chunk. In memory the products of full covariances have one row a feature, as each is a
    product of two rows; all others have one row a point, so that points need not be transposed.
    """

    def __init__(self, covariance_type: str, dim: int, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        self._covariance_type, self._dim = covariance_type, dim
        columns = 1 + dim + quadratic_columns(covariance_type, dim)
        if covariance_type == "full":
            self._phi = torch.empty(columns, rows, dtype=dtype, device=device)
        else:
            self._phi = torch.empty(rows, columns, dtype=dtype, device=device).t()
        self._products: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def of(self, x: Tensor, variance: Tensor | None) -> Tensor:
        """phi(x) for points x (n, D), or its expectation under N(x, diag(variance)); the next call overwrites it."""
        phi, dim, kind = self._phi[:, : len(x)], self._dim, self._covariance_type
        phi[0] = 1
        rows = phi[1 : 1 + dim]  # (D, n)
        rows.copy_(x.t())
        quadratic = phi[1 + dim :]
        if kind == "full":
            if phi.is_cuda:
                products_at_once(rows, quadratic)
            else:
                for one, others, products in self._factors(phi):
                    torch.mul(one, others, out=products)
            if variance is not None:
                quadratic[diagonal_index(dim).to(x.device)] += variance.t()
        elif kind == "diag":
            torch.mul(rows, rows, out=quadratic)
            if variance is not None:
                quadratic += variance.t()
        elif kind == "spherical":
            quadratic[0] = rows.square().sum(0)
            if variance is not None:
                quadratic[0] += variance.sum(1)
        return phi

    def _factors(self, phi: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each dimension i: x_i, x_i and what follows, and the place of their products; views made once a size."""
        count, dim = phi.shape[1], self._dim
        if count not in self._products:
            rows, views, start = phi[1 : 1 + dim], [], 1 + dim
            for i in range(dim):
                views.append((rows[i], rows[i:], phi[start : start + dim - i]))
                start += dim - i
            self._products[count] = views
        return self._products[count]
