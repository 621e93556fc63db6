"""The parameters of a mixture, in float64, with symmetric matrices packed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from trainer.mixture.packed import diagonal_index, pack, packed_size, unpack, upper_triangles
from trainer.mixture.working_memory import numbers_at_a_time

LOG_2PI = math.log(2 * math.pi)
# Components whose D x D matrices are held unpacked at one time.
_BLOCK_NUMBERS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """weights: (K,), sum 1; means: (K, D); covariances: full (K, P), tied (1, P), diag (K, D), spherical (K, 1)."""

    covariance_type: str
    weights: Tensor
    means: Tensor
    covariances: Tensor

    @classmethod
    def of(cls, covariance_type: str, weights: Tensor, means: Tensor, covariances: Tensor) -> "Parameters":
        """From tensors of any float type; covariances in scikit-learn's shape, see `expanded_covariances`."""
        return cls(
            covariance_type=covariance_type, weights=weights.double(), means=means.double(),
            covariances=pack_covariances(covariance_type, covariances.double()),
        )  # fmt: skip

    @property
    def dim(self) -> int:
        """D, the number of dimensions."""
        return self.means.shape[1]

    @property
    def n_components(self) -> int:
        """K, the number of components."""
        return self.means.shape[0]

    def moved(self, scale: float, shift: Tensor) -> "Parameters":
        """The mixture of scale * z + shift, where this is the mixture of z."""
        return replace(self, means=self.means * scale + shift, covariances=self.covariances * scale**2)

    def inflated(self, factor: float) -> "Parameters":
        """The same with every covariance multiplied by `factor`."""
        return replace(self, covariances=self.covariances * factor)

    def to(self, device: str | torch.device) -> "Parameters":
        """The same on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("weights", "means", "covariances")}
        return replace(self, **tensors)

    def variances(self) -> Tensor:
        """The diagonals of the covariances: (K, D), or (1, D) for tied."""
        if self.covariance_type in ("full", "tied"):
            return self.covariances[:, diagonal_index(self.dim).to(self.covariances.device)]
        return self.covariances.expand(-1, self.dim)

    def blocks(self) -> Iterator[slice]:
        """Slices of components small enough for their matrices to be held unpacked."""
        size = max(1, numbers_at_a_time(_BLOCK_NUMBERS, self.means.device) // self.dim**2)
        for start in range(0, self.n_components, size):
            yield slice(start, min(start + size, self.n_components))

    def matrices(self, chosen: slice | Tensor) -> Tensor:
        """Covariance matrices (b, D, D) of some full components; (1, D, D) for tied."""
        return unpack(self._packed(chosen), self.dim)

    def _packed(self, chosen: slice | Tensor) -> Tensor:
        """The covariances (b, P) of some full components; (1, P) for tied."""
        if self.covariance_type == "tied":
            return self.covariances
        return self.covariances[chosen] if isinstance(chosen, slice) else self.covariances.index_select(0, chosen)

    def cholesky(self, chosen: slice | Tensor) -> Tensor:
        """Lower Cholesky factors (b, D, D) of full or tied components. Raises InputError where one is singular."""
        # The lower triangle of the transpose, in the order in which LAPACK stores matrices.
        factors, info = torch.linalg.cholesky_ex(upper_triangles(self._packed(chosen), self.dim).mT)
        if info.any():
            raise ill_defined(int((info > 0).sum()))
        return factors

    def whitening(self, chosen: slice | Tensor) -> tuple[Tensor, Tensor]:
        """W (b, D, D), lower triangular with W Sigma W^T = I, and log det Sigma (b,), of full or tied components."""
        cholesky = self.cholesky(chosen)
        identity = torch.eye(self.dim, dtype=cholesky.dtype, device=cholesky.device).expand_as(cholesky)
        log_det = 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return torch.linalg.solve_triangular(cholesky, identity, upper=False), log_det

    def precision(self, chosen: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Sigma^-1 (b, D, D) and log det Sigma (b,) of full or tied components."""
        cholesky = self.cholesky(chosen)
        log_det = 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return inverse(cholesky), log_det

    def expanded_covariances(self) -> Tensor:
        """Covariances in scikit-learn's shapes: full (K, D, D), tied (D, D), diag (K, D), spherical (K,)."""
        if self.covariance_type == "full":
            return unpack(self.covariances, self.dim)
        if self.covariance_type == "tied":
            return unpack(self.covariances[0], self.dim)
        return self.covariances if self.covariance_type == "diag" else self.covariances[:, 0]

    def precision_factors(self) -> Tensor:
        """scikit-learn's precisions_cholesky_: U upper triangular with U U^T = precision, or 1 / standard deviation."""
        if self.covariance_type in ("diag", "spherical"):
            return self.expanded_covariances().rsqrt()
        factors = self.whitening(slice(0, self.n_components))[0].mT
        return factors if self.covariance_type == "full" else factors[0]

    def n_free_numbers(self) -> int:
        """Free numbers of the model, as BIC counts them."""
        k, dim = self.n_components, self.dim
        covariance = {"full": k * packed_size(dim), "tied": packed_size(dim), "diag": k * dim, "spherical": k}
        return covariance[self.covariance_type] + k * dim + k - 1

    def eigenvalue_range(self) -> tuple[float, float]:
        """Smallest and largest eigenvalue of all covariances, in squared units of the data."""
        if self.covariance_type in ("diag", "spherical"):
            return float(self.covariances.min()), float(self.covariances.max())
        blocks = [slice(0, 1)] if self.covariance_type == "tied" else list(self.blocks())
        # On the host: CUDA does matrices of more than 32 rows one after another, a millisecond each.
        values = [torch.linalg.eigvalsh(self.matrices(block).cpu()) for block in blocks]
        return min(float(v.min()) for v in values), max(float(v.max()) for v in values)


def inverse(cholesky: Tensor) -> Tensor:
    """(b, D, D): the inverse of L L^T for each of the lower triangular factors L (b, D, D)."""
    if not cholesky.is_cuda:
        return torch.cholesky_inverse(cholesky)
    # CUDA inverts factors one after another, but solves for all of them at once.
    identity = torch.eye(cholesky.shape[-1], dtype=cholesky.dtype, device=cholesky.device).expand_as(cholesky)
    whitening = torch.linalg.solve_triangular(cholesky, identity, upper=False)
    return whitening.mT @ whitening


def ill_defined(count: int) -> InputError:
    """The error of a mixture of which `count` covariances are singular, in scikit-learn's wording."""
    return InputError(
        "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
        "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or "
        f"scale the input data. ({count} covariances are not positive definite.)",
        parameter="reg_covar",
    )


def pack_covariances(covariance_type: str, covariances: Tensor) -> Tensor:
    """scikit-learn's shapes to those of `Parameters.covariances`."""
    if covariance_type == "full":
        return pack(covariances)
    if covariance_type == "tied":
        return pack(covariances)[None]
    return covariances if covariance_type == "diag" else covariances[:, None]


def coefficients(parameters: Parameters, dtype: torch.dtype) -> Tensor:
    """What turns features into log w_k + log N(x; mu_k, Sigma_k): (columns, K), rounded once from float64.

    For tied, all but the common term -x^T Sigma^-1 x / 2, which `common_precision` gives.
    """
    kind, dim, means = parameters.covariance_type, parameters.dim, parameters.means
    log_weights = parameters.weights.log()
    if kind in ("diag", "spherical"):
        precision = 1 / parameters.covariances  # (K, D) or (K, 1)
        log_det = -precision.log().expand(-1, dim).sum(1)
        constant = log_weights - 0.5 * (dim * LOG_2PI + log_det + (means.square() * precision).sum(1))
        return torch.cat([constant[:, None], means * precision, -0.5 * precision], 1).to(dtype).t().contiguous()
    columns = 1 + dim + (packed_size(dim) if kind == "full" else 0)
    found = torch.empty(columns, parameters.n_components, dtype=dtype, device=means.device)
    # Each off-diagonal product x_i x_j is once in phi and twice in the quadratic form.
    factor = torch.full((packed_size(dim),), -1.0, dtype=torch.float64, device=means.device)
    factor[diagonal_index(dim).to(means.device)] = -0.5
    for block in parameters.blocks():
        precision, log_det = parameters.precision(block)  # (b, D, D), (b,); b = 1 for tied
        linear = (precision @ means[block, :, None])[..., 0]  # (b, D)
        constant = log_weights[block] - 0.5 * (dim * LOG_2PI + log_det + (means[block] * linear).sum(1))
        found[0, block] = constant.to(dtype)
        found[1 : 1 + dim, block] = linear.to(dtype).t()
        if kind == "full":
            found[1 + dim :, block] = pack(precision).mul_(factor).to(dtype).t()
    return found


def common_precision(parameters: Parameters) -> Tensor:
    """The precision matrix (D, D) that all components of a tied mixture share."""
    return parameters.precision(slice(0, 1))[0][0]


def log_constants(parameters: Parameters) -> Tensor:
    """log w_k - D log(2 pi) / 2 - log det Sigma_k / 2, the log-density without its quadratic term: (K,)."""
    kind, dim = parameters.covariance_type, parameters.dim
    if kind in ("diag", "spherical"):
        log_det = parameters.covariances.log().expand(-1, dim).sum(1)
    else:
        blocks = [slice(0, 1)] if kind == "tied" else parameters.blocks()
        factors = (parameters.cholesky(block).diagonal(dim1=-2, dim2=-1) for block in blocks)
        log_det = torch.cat([2 * diagonal.log().sum(-1) for diagonal in factors])
    return parameters.weights.log() - 0.5 * (dim * LOG_2PI + log_det)
