"""Seconds of one EM iteration, dense and truncated, over the floor and against scikit-learn.

The floor is the arithmetic of the two products in packed features, 4 N K columns floating-point operations, at the
sgemm rate that this machine reaches in the same run (a square product of 2048, best of the repeats before and after
each measurement). Times are CPU seconds of one thread, so that a busy machine disturbs the ratios little.

    OMP_NUM_THREADS=1 python tests/benchmarks/mixture_speed.py --covariance diag full --components 500 2000
"""

import argparse
import resource
import time
import warnings
from collections.abc import Callable

import torch
from mixture_data import manifold_mixture
from sklearn.exceptions import ConvergenceWarning

from trainer.mixture import GaussianMixture
from trainer.mixture.dense import Exact, hard_statistics
from trainer.mixture.estimate import maximise
from trainer.mixture.expectation import Expectation
from trainer.mixture.frame import Frame
from trainer.mixture.kmeans import kmeans
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points, second_moment
from trainer.mixture.sklearn_conversion import to_sklearn
from trainer.mixture.truncated import Truncated
from trainer.process_group import single


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of `work`."""
    began = time.process_time()
    work()
    return time.process_time() - began


def sgemm_rate(repeats: int = 3) -> float:
    """Floating-point operations a second of a product of two 2048 x 2048 float32 matrices."""
    a, b = torch.randn(2, 2048, 2048)
    return 2 * 2048**3 / min(seconds(lambda: a @ b) for _ in range(repeats))


def iteration(expectation: Expectation, parameters: Parameters, kind: str) -> Parameters:
    """One E-step and one M-step."""
    return maximise(expectation.statistics(parameters, 1.0), kind, ridge=1e-6, prior_strength=128.0)


def columns(kind: str, dim: int) -> int:
    """Packed features of one point."""
    return 1 + 2 * dim if kind == "diag" else 1 + dim + dim * (dim + 1) // 2


def measure(points: Points, kind: str, k: int, repeats: int, against_sklearn: bool) -> None:
    """Prints one line for each kind of iteration."""
    count, dim = points.x.shape
    generator = torch.Generator().manual_seed(0)
    _, labels = kmeans(points.x, k, iterations=3, init="random", generator=generator, ranks=single())
    parameters = maximise(hard_statistics(points, labels, kind, k), kind, ridge=1e-6, prior_strength=128.0)
    moment = second_moment(points, single())
    dense = Exact(points, None, moment, "auto")
    rates, times = [sgemm_rate()], []
    for _ in range(repeats):
        times.append(seconds(lambda: iteration(dense, parameters, kind)))
        rates.append(sgemm_rate())
    best = min(times)
    floor = 4 * count * k * columns(kind, dim) / max(rates)
    print(
        f"{kind} {k}: floor {floor:.3f} s at {max(rates) / 1e9:.0f} GFLOP/s, dense {best:.3f} s, {best / floor:.2f} x"
    )
    truncated = Truncated(points, None, moment, "auto", width=32)
    # The first searches for candidates; the graph of neighbours is built at every fourth.
    truncated_times = [seconds(lambda: iteration(truncated, parameters, kind)) for _ in range(5)]
    mean = sum(truncated_times[1:]) / 4
    print(f"{kind} {k}: truncated {mean:.3f} s, dense is {best / mean:.1f} x")
    if against_sklearn:
        compare_with_sklearn(points, parameters, kind, best)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{kind} {k}: peak memory of this process so far {peak:.2f} GB", flush=True)


def compare_with_sklearn(points: Points, parameters: Parameters, kind: str, ours: float) -> None:
    """Prints the ratio to one iteration of scikit-learn in float32 from the same parameters, and both likelihoods."""
    start = GaussianMixture(parameters.n_components, covariance_type=kind)
    start.parameters_ = parameters
    model = to_sklearn(start)
    step = type(model)(
        parameters.n_components,
        covariance_type=kind,
        max_iter=1,
        weights_init=model.weights_.astype("float32"),
        means_init=model.means_.astype("float32"),
        precisions_init=model.precisions_.astype("float32"),
    )
    x = points.x.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        both = seconds(lambda: step.fit(x))
    # fit() is one iteration and one closing E-step; an E-step alone is what score_samples does.
    theirs = both - seconds(lambda: step.score_samples(x))
    likelihood = float(model.score(x[:2000]))
    own = start.score(points.x[:2000])
    print(
        f"{kind} {parameters.n_components}: scikit-learn {theirs:.2f} s, {theirs / ours:.1f} x ours; "
        f"log-likelihood {likelihood:.5f} theirs, {own:.5f} ours"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--covariance", nargs="+", default=["diag", "full"], choices=["diag", "full"])
    parser.add_argument("--components", nargs="+", type=int, default=[500, 2000])
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--against-sklearn", action="store_true", help="scikit-learn too: slow, and 12 GB at 10,000")
    args = parser.parse_args()
    train = manifold_mixture(args.points, 1).train
    points = Frame.of(train, single()).enter(Points(train), torch.float32)
    for kind in args.covariance:
        for k in args.components:
            measure(points, kind, k, args.repeats, args.against_sklearn)


if __name__ == "__main__":
    main()
