"""Seconds for one Frechet distance at 2048 dimensions, against clean-fid's matrix square root.

    OMP_NUM_THREADS=1 python tests/benchmarks/fid_frechet.py

Covariances of 20,000 vectors whose spectrum falls as 1 / k; then of 1,000 vectors: singular, and more expensive.
The floor is what a route by eigenvalues computes, at the rate of a float64 product in the same run: a Cholesky factor,
the two-sided product and its tridiagonal form, (1 + 3 + 4) d^3 / 3 operations. Half of the last is products of a matrix
and a vector, which memory bandwidth limits. Times are CPU seconds. Required: at least 20 times faster, equal to 1e-8.
"""

import time

import numpy as np
import torch
from cleanfid.fid import frechet_distance as clean_fid_distance

from eval.distance.measures.frechet import frechet_distance

DIM, REPEATS = 2048, 3


def moments(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of n vectors."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, DIM + 1, dtype=torch.float64).rsqrt()
    x = torch.randn(n, DIM, dtype=torch.float64, generator=generator) * scale + 0.01 * seed
    return x.mean(0), x.T.cov()


def best_of_ours(a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    """The distance and the seconds of the fastest of REPEATS calls."""
    best = np.inf
    for _ in range(REPEATS):
        began = time.process_time()
        value = frechet_distance(*a, *b)
        best = min(best, time.process_time() - began)
    return value, best


def floor() -> float:
    """Seconds of the arithmetic that cannot be left out."""
    x = torch.randn(DIM, DIM, dtype=torch.float64)
    best = np.inf
    for _ in range(REPEATS):
        began = time.process_time()
        x @ x
        best = min(best, time.process_time() - began)
    return best / (2 * DIM**3) * 8 / 3 * DIM**3


def main() -> None:
    a, b = moments(20_000, 0), moments(20_000, 1)
    value, ours = best_of_ours(a, b)
    began = time.process_time()
    expected = float(clean_fid_distance(*(t.numpy() for t in (*a, *b))))
    theirs = time.process_time() - began
    print(
        f"20,000 vectors: ours {ours:.2f} s, floor {floor():.2f} s, clean-fid's sqrtm {theirs:.1f} s, "
        f"{theirs / ours:.1f} times; relative difference {abs(value - expected) / expected:.1e}"
    )
    _, singular = best_of_ours(moments(1_000, 0), moments(1_000, 1))
    print(f" 1,000 vectors: ours {singular:.2f} s (singular covariances), {theirs / singular:.1f} times")


if __name__ == "__main__":
    main()
