"""Seconds of one EM iteration, dense and truncated, over the floor and against scikit-learn, and of a whole fit.

The floor of a dense iteration is the arithmetic of the two products in packed features, 4 N K columns floating-point
operations, at the sgemm rate that this machine reaches just before and just after the iteration (a square product of
2048). Rounds of the two alternate and the median of the ratios is printed, with the smallest and the largest. Times are
CPU seconds of one thread; cores that share their caches with other work disturb them nevertheless. Each size has a
process of its own, so that its peak memory is its own, without that of the recipe of the points.

    OMP_NUM_THREADS=1 python tests/benchmarks/mixture_speed.py --covariance diag full --components 500 2000
    OMP_NUM_THREADS=1 python tests/benchmarks/mixture_speed.py --measure gap --components 2000
    OMP_NUM_THREADS=1 python tests/benchmarks/mixture_speed.py --measure fit --components 10000
    OMP_NUM_THREADS=1 python tests/benchmarks/mixture_speed.py --measure scores --components 10000
    OMP_NUM_THREADS=1 python tests/benchmarks/mixture_speed.py --measure million --components 10000
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from mixture_data import manifold_mixture
from safetensors.torch import load_file, save_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as ScikitMixture
from torch import Tensor

from trainer.engines.cpu import keep_freed_memory
from trainer.mixture import GaussianMixture
from trainer.mixture.density import MixtureDensity
from trainer.mixture.em.dense import DenseEStep, hard_statistics
from trainer.mixture.em.e_step import EStep
from trainer.mixture.em.m_step import m_step
from trainer.mixture.em.truncated import TruncatedEStep
from trainer.mixture.kmeans import kmeans
from trainer.mixture.packed import quadratic_columns
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points, Standardisation, second_moment
from trainer.process_group import single

DIM, WIDTH, NU = 64, 32, 128.0
DENSE_POINTS = 4000


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of `work`."""
    began = time.process_time()
    work()
    return time.process_time() - began


def sgemm_rate(repeats: int = 3) -> float:
    """Floating-point operations a second of a product of two 2048 x 2048 float32 matrices."""
    a, b = torch.randn(2, 2048, 2048)
    return 2 * 2048**3 / min(seconds(lambda: a @ b) for _ in range(repeats))


def memory(kind: str) -> float:
    """GB of this process: VmHWM, the most so far, RssFile, pages of files such as libraries, or RssAnon,
    all other pages."""
    # getrusage would give the largest of this process and the one that started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[kind].split()[0]) / 1e6


def say(kind: str, k: int, line: str) -> None:
    """One result, with the peak memory so far."""
    peak, files = memory("VmHWM"), memory("RssFile")
    print(f"{kind} {k}: {line}; peak memory so far {peak:.2f} GB, {peak - files:.2f} without libraries", flush=True)


def standardised(train: Tensor) -> Points:
    """The points, centred and of unit size, in a process that keeps freed memory as a fit does."""
    keep_freed_memory()
    return Standardisation.of(train, single()).apply(Points(train), torch.float32)


def started(points: Points, kind: str, k: int) -> Parameters:
    """The mixture of the clusters of three iterations of k-means."""
    generator = torch.Generator().manual_seed(0)
    centroids, labels = kmeans(points.x, k, iterations=3, init="random", generator=generator, ranks=single())
    return m_step(hard_statistics(points, labels, kind, centroids), kind, ridge=1e-6, prior_strength=NU)


def iteration(e_step: EStep, parameters: Parameters) -> Parameters:
    """One E-step and one M-step."""
    kind = parameters.covariance_type
    return m_step(e_step.statistics(parameters, 1.0), kind, ridge=1e-6, prior_strength=NU)


def truncated_iteration(e_step: EStep, parameters: Parameters) -> float:
    """Mean seconds of the second to fifth iteration: the first searches, every fourth looks for neighbours anew."""
    times = []
    for _ in range(5):
        began = time.process_time()
        parameters = iteration(e_step, parameters)
        times.append(time.process_time() - began)
    return statistics.mean(times[1:])


def iterations(kind: str, k: int, data: Path, repeats: int, against_sklearn: bool) -> None:
    """Dense iterations over their floor, truncated ones, and scikit-learn's."""
    points = standardised(load_file(data)["train"])
    count = len(points)
    parameters = started(points, kind, k)
    moment = second_moment(points, single())
    dense = DenseEStep(points, None, moment, "auto")
    arithmetic = 4 * count * k * (1 + DIM + quadratic_columns(kind, DIM))
    ratios, times, rates = [], [], [sgemm_rate()]
    for _ in range(repeats):
        times.append(seconds(lambda: iteration(dense, parameters)))
        rates.append(sgemm_rate())
        ratios.append(times[-1] / (arithmetic / statistics.mean(rates[-2:])))
    middle = statistics.median(times)
    say(
        kind,
        k,
        f"dense {middle:.3f} s, {statistics.median(ratios):.2f} x the floor ({min(ratios):.2f} to {max(ratios):.2f}) "
        f"of {arithmetic / statistics.median(rates):.3f} s at {statistics.median(rates) / 1e9:.0f} GFLOP/s",
    )
    mean = truncated_iteration(TruncatedEStep(points, None, moment, "auto", width=WIDTH), parameters)
    say(kind, k, f"truncated to {WIDTH} candidates {mean:.3f} s, the dense one is {middle / mean:.1f} x")
    if against_sklearn:
        compare_with_sklearn(points, parameters, middle)


def compare_with_sklearn(points: Points, parameters: Parameters, ours: float) -> None:
    """Prints the ratio to one iteration of scikit-learn in float32 from the same parameters, and both likelihoods."""
    kind, k = parameters.covariance_type, parameters.n_components
    start = GaussianMixture.from_parameters(
        parameters.weights, parameters.means, parameters.expanded_covariances(), kind
    )
    step = ScikitMixture(
        k,
        covariance_type=kind,
        max_iter=1,
        reg_covar=1e-3,  # with fewer points than dimensions in a component float32 needs it
        weights_init=start.weights_.numpy().astype("float32"),
        means_init=start.means_.numpy().astype("float32"),
        precisions_init=start.precisions_.numpy().astype("float32"),
    )
    x = points.x.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        both = seconds(lambda: step.fit(x))
    # fit() is one iteration and one closing E-step; an E-step alone is what score_samples does.
    theirs = both - seconds(lambda: step.score_samples(x))
    # scikit-learn can score parameters that it did not fit.
    step.weights_, step.means_, step.precisions_cholesky_ = (
        values.numpy() for values in (start.weights_, start.means_, start.precisions_cholesky_)
    )
    likelihood, own = float(step.score(x[:2000])), start.score(points.x[:2000])
    say(
        kind,
        k,
        f"scikit-learn {theirs:.2f} s, {theirs / ours:.1f} x ours; "
        f"log-likelihood {likelihood:.5f} theirs, {own:.5f} ours",
    )


def gap(kind: str, k: int, data: Path) -> None:
    """Held-out log-likelihood after five iterations, exact and truncated, from the same start."""
    both = load_file(data)
    standardisation = Standardisation.of(both["train"], single())
    points, held_out = (standardisation.apply(Points(both[name]), torch.float32) for name in ("train", "held_out"))
    start, moment = started(points, kind, k), second_moment(points, single())
    scores = {}
    for name, e_step in (
        ("exact", DenseEStep(points, None, moment, "auto")),
        ("truncated", TruncatedEStep(points, None, moment, "auto", width=WIDTH)),
    ):
        parameters = start
        for _ in range(5):
            parameters = iteration(e_step, parameters)
        scores[name] = float(MixtureDensity(parameters).score_samples(held_out.x).mean())
    lost = scores["exact"] - scores["truncated"]
    say(kind, k, f"held out, five iterations: {scores['exact']:.4f} exact, truncated loses {lost:.4f} nats")


def whole_fit(kind: str, k: int, data: Path) -> None:
    """Phases of a fit of ten iterations by defaults."""
    libraries = memory("RssAnon")
    train = load_file(data)["train"]
    mixture = GaussianMixture(k, covariance_type=kind, max_iter=10)
    used = seconds(lambda: mixture.fit(train))
    phases = ", ".join(f"{phase} {value:.1f} s" for phase, value in mixture.seconds_.items())
    say(
        kind,
        k,
        f"fit of {mixture.n_iter_} iterations {used:.1f} s of one core (wall: {phases}); "
        f"truncation loses {mixture.truncation_loss_} nats; libraries alone took {libraries:.2f} GB",
    )


def scores(kind: str, k: int, data: Path) -> None:
    """Points a second by blocks of components and by comparing all, with clusters apart and with the benchmark's.

    Clusters apart are the same mixture, 50 components a cluster, with the clusters moved away from each other.
    """
    near, generator = started(standardised(load_file(data)["train"]), kind, k), torch.Generator().manual_seed(0)
    apart = moved_apart(near, generator)
    for name, parameters, count in (("clusters apart", apart, 20_000), ("the benchmark's points", near, 5_000)):
        say(kind, k, f"{name}: {_scoring_rates(parameters, count, generator)}")


def moved_apart(near: Parameters, generator: torch.Generator) -> Parameters:
    """The mixture with each 50 components moved away from all others."""
    k = near.n_components
    centres = 20 * torch.randn(-(-k // 50), DIM, generator=generator, dtype=torch.float64)
    return replace(near, means=near.means + centres.repeat_interleave(50, 0)[:k])


def million(kind: str, k: int, data: Path) -> None:
    """10^6 points in one call, with clusters apart, over the rate of comparing all with every component."""
    generator = torch.Generator().manual_seed(0)
    parameters = moved_apart(started(standardised(load_file(data)["train"]), kind, k), generator)
    density, dense = MixtureDensity(parameters), MixtureDensity(parameters)
    x = torch.cat([density.sample(100_000, generator).float() for _ in range(10)])
    found: list[Tensor] = []
    by_block = len(x) / seconds(lambda: found.extend(density.score_samples_within(x)))
    few = x[:: len(x) // DENSE_POINTS]
    dense.score_samples(few[:50])  # what is computed once
    compared = len(few) / seconds(lambda: found.append(dense.score_samples(few)))
    scores, bounds, exact = found
    difference = float((exact - scores[:: len(x) // DENSE_POINTS]).abs().max())
    say(
        kind,
        k,
        f"{len(x)} points in {len(x) / by_block:.1f} s, {by_block:.0f} a second with what is made once; {compared:.0f} "
        f"comparing all, of {len(few)}: {by_block / compared:.1f} x; components left out add at most "
        f"{float(bounds.max()):.1g} nats, largest difference {difference:.1g}",
    )


def _scoring_rates(parameters: Parameters, count: int, generator: torch.Generator) -> str:
    """Turns of scoring `count` points with blocks allowed, and 500 without."""
    density, dense = MixtureDensity(parameters), MixtureDensity(parameters)
    x = density.sample(4 * count, generator)
    density.score_samples(x[:count]), dense.score_samples(x[:50])  # what is computed once
    ratios, rates, errors = [], [], []
    for part in x[count:].split(count):
        by_block = len(part) / seconds(lambda part=part: density.score_samples(part))  # type: ignore[misc]
        compared = 500 / seconds(lambda part=part: dense.score_samples(part[:500]))  # type: ignore[misc]
        errors.append(float(density.score_samples_within(part)[1].max()))
        ratios.append(by_block / compared)
        rates.append((by_block, compared))
    by_block, compared = (statistics.median(column) for column in zip(*rates, strict=True))
    return (
        f"{by_block:.0f} points a second, {compared:.0f} comparing all, {statistics.median(ratios):.1f} x; "
        f"components left out add at most {max(errors):.1g} nats to a point"
    )


MEASURES = {"iterations": iterations, "gap": gap, "fit": whole_fit, "scores": scores, "million": million}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", default="iterations", choices=tuple(MEASURES))
    parser.add_argument("--covariance", nargs="+", default=["full"], choices=["diag", "full"])
    parser.add_argument("--components", nargs="+", type=int, default=[500, 2000])
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against-sklearn", action="store_true", help="scikit-learn too: slow, and 12 GB at 10,000")
    args = parser.parse_args()
    measure = MEASURES[args.measure]
    more = (args.repeats, args.against_sklearn) if args.measure == "iterations" else ()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "points.safetensors"
        points = manifold_mixture(args.points, 10_000)
        save_file({"train": points.train, "held_out": points.held_out}, data)
        for kind in args.covariance:
            for k in args.components:
                process = multiprocessing.get_context("spawn").Process(target=measure, args=(kind, k, data, *more))
                process.start()
                process.join()
                if process.exitcode:
                    raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
