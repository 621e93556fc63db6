"""Held-out nats a point of our mixture beside scikit-learn's, by problem and covariance type, at equal K.

By defaults: ours as GaussianMixture(K), scikit-learn's as GaussianMixture(K) with its own k-means. By maximum
likelihood: both from the same start, ours with prior_strength=0, inflation=1, annealing_iter=0. Each over several seeds
of points and of start; differences are ours less theirs, with their standard error over seeds, and a line ends with
"worse" where ours is worse by more than two of them.

    OMP_NUM_THREADS=1 python tests/benchmarks/mixture_against_sklearn.py
    OMP_NUM_THREADS=1 python tests/benchmarks/mixture_against_sklearn.py --run runs/demo
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.mixture import GaussianMixture as ScikitMixture

from trainer.mixture import GaussianMixture

TRAIN, HELD_OUT = 2000, 4000
Rng = np.random.Generator


def clusters(rng: Rng, k: int, dim: int, widths: np.ndarray, stretch: float = 1.0, apart: float = 4.0) -> np.ndarray:
    """Points of k Gaussians of these widths; stretch: ratio of the largest standard deviation to the smallest."""
    means = apart * rng.standard_normal((k, dim))
    scales = widths[:, None] * stretch ** rng.uniform(-0.5, 0.5, (k, dim))
    bases = np.linalg.qr(rng.standard_normal((k, dim, dim)))[0]
    which = rng.integers(0, k, TRAIN + HELD_OUT)
    noise = rng.standard_normal((TRAIN + HELD_OUT, dim)) * scales[which]
    return means[which] + np.einsum("nij,nj->ni", bases[which], noise)


def duplicated(rng: Rng) -> np.ndarray:
    places = rng.standard_normal((40, 4))
    return places[rng.integers(0, 40, TRAIN + HELD_OUT)] + 1e-3 * rng.standard_normal((TRAIN + HELD_OUT, 4))


def constant_columns(rng: Rng) -> np.ndarray:
    x = clusters(rng, 8, 5, np.ones(8))
    return np.concatenate([x, np.full((len(x), 2), 3.0)], 1)


PROBLEMS: dict[str, tuple[int, Callable[[Rng], np.ndarray]]] = {
    "blobs of equal width": (10, lambda rng: clusters(rng, 10, 5, np.ones(10))),
    "widths over 1:100": (10, lambda rng: clusters(rng, 10, 5, np.geomspace(0.03, 3, 10))),
    "elongated clusters": (10, lambda rng: clusters(rng, 10, 5, np.ones(10), stretch=100.0)),
    "more components than clusters": (30, lambda rng: clusters(rng, 10, 5, np.ones(10))),
    "uniform noise": (10, lambda rng: rng.uniform(size=(TRAIN + HELD_OUT, 4))),
    "heavy tails": (10, lambda rng: rng.standard_t(2.0, (TRAIN + HELD_OUT, 4))),
    "duplicated points": (20, duplicated),
    "constant columns": (8, constant_columns),
}


def codes_of(run: str) -> Callable[[Rng], np.ndarray]:
    """Samples z ~ q(z|x) of the training codes of a run."""
    from trainer.run_folder import latents

    codes = latents.read(run, "train")
    mean, std = codes.mean.double().numpy(), codes.std.double().numpy()

    def drawn(rng: Rng) -> np.ndarray:
        rows = rng.permutation(len(mean))[: TRAIN + HELD_OUT]
        return mean[rows] + std[rows] * rng.standard_normal((len(rows), mean.shape[1]))

    return drawn


def compared(x: np.ndarray, k: int, kind: str, seed: int, likelihood: bool) -> tuple[float, float, float, int]:
    """(held-out nats of ours, of theirs, seconds of ours, components of ours with a point or more)."""
    train, fresh = x[:TRAIN], x[TRAIN:]
    theirs = ScikitMixture(k, covariance_type=kind, random_state=seed)
    ours = GaussianMixture(k, covariance_type=kind, random_state=seed)
    if likelihood:
        first = ScikitMixture(k, covariance_type=kind, random_state=seed, max_iter=1, tol=0.5).fit(train)
        start = {"weights_init": first.weights_, "means_init": first.means_, "precisions_init": first.precisions_}
        theirs.set_params(**start, tol=1e-7, max_iter=500)
        ours.set_params(**start, prior_strength=0.0, inflation=1.0, annealing_iter=0, tol=1e-8, max_iter=500)
    began = time.process_time()
    ours.fit(train)
    seconds = time.process_time() - began
    theirs.fit(train)
    alive = int((ours.weights_ * len(train) >= 1).sum())
    return float(ours.score(fresh)), float(theirs.score(fresh)), seconds, alive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="add the latent codes of this run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", nargs="+", help="only those whose names begin so")
    parser.add_argument("--covariance", nargs="+", default=["full", "tied", "diag", "spherical"])
    args = parser.parse_args()
    problems = PROBLEMS | ({} if args.run is None else {"latent codes": (50, codes_of(args.run))})
    warnings.simplefilter("ignore")
    for name, (k, draw) in problems.items():
        if args.problems and not any(name.startswith(wanted) for wanted in args.problems):
            continue
        for kind in args.covariance:
            for likelihood in (False, True):
                found = np.array(
                    [compared(draw(np.random.default_rng(s)), k, kind, s, likelihood) for s in range(args.seeds)]
                )
                gain = found[:, 0] - found[:, 1]
                error = gain.std(ddof=1) / len(gain) ** 0.5
                how = "maximum likelihood" if likelihood else "defaults"
                worse = "  worse" if gain.mean() < -2 * error and gain.mean() < -1e-3 else ""
                print(
                    f"{name:30} {kind:9} {how:18} ours {found[:, 0].mean():9.3f}  theirs {found[:, 1].mean():9.3f}  "
                    f"gain {gain.mean():+8.3f} +- {error:.3f}  {found[:, 2].mean():.2f} s  "
                    f"alive {found[:, 3].mean():.1f}{worse}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
