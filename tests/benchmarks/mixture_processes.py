"""How much faster two processes of one thread are than one: EM iterations of a full mixture, wall time.

The floor is half the time of one process. Run it on a machine with two idle cores.

    python tests/benchmarks/mixture_processes.py --components 500 --points 50000
"""

import argparse
import os
import subprocess
import sys

import torch

from trainer.mixture.fitting import fit_mixture
from trainer.mixture.points import Points
from trainer.mixture.settings import Settings
from trainer.process_group import process_group


def fit(components: int, count: int, iterations: int) -> None:
    """One process's part; the first prints the fastest iteration in seconds."""
    torch.set_num_threads(1)
    x = torch.randn(count, 64, generator=torch.Generator().manual_seed(0))
    settings = {"prior_strength": 128.0, "inflation": 1.0, "kmeans_iter": 2, "max_iter": iterations, "tol": 1e-15}
    with process_group() as ranks:
        own = ranks.partition(count)
        wanted = Settings(n_components=components, candidates=0, annealing_iter=0, **settings)
        record = fit_mixture(Points(x[own.start : own.stop]), None, settings=wanted, ranks=ranks).record
        if ranks.is_main:
            print(min(iteration["seconds"] for iteration in record.history), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--components", type=int, default=500)
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--iterations", type=int, default=4)
    args = parser.parse_args()
    if "RANK" in os.environ:
        fit(args.components, args.points, args.iterations)
        return
    fastest: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2):  # interleaved, so that a busy moment does not fall on one of them alone
        for processes, found in fastest.items():
            launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            words = [f"--{name}={value}" for name, value in vars(args).items()]
            done = subprocess.run(
                [*launcher, "--", __file__, *words],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                check=True,
                capture_output=True,
                text=True,
            )
            found.append(float(done.stdout.split()[-1]))
    one, two = min(fastest[1]), min(fastest[2])
    print(f"one process {one:.3f} s, two {two:.3f} s an iteration: {one / two:.2f} times faster")


if __name__ == "__main__":
    main()
