"""The optimal transport between two Gaussians."""

import torch
from torch import Tensor


def optimal_map(source: Tensor, target: Tensor) -> Tensor:
    """The symmetric A with A source A = target: x to A x moves N(0, source) to N(0, target) by the least mean square.

    A = S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2 for S = source and T = target (Knott and Smith 1984).
    source: (P, P), positive definite; target: (P, P), positive semi-definite; both float64. Returns (P, P).
    """
    values, vectors = torch.linalg.eigh(source)
    root = (vectors * values.sqrt()) @ vectors.mT
    inverse_root = (vectors / values.sqrt()) @ vectors.mT
    values, vectors = torch.linalg.eigh(root @ target @ root)
    return inverse_root @ (vectors * values.clamp_min(0).sqrt()) @ vectors.mT @ inverse_root
