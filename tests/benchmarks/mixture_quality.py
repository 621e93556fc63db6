"""Held-out log-likelihood of large mixtures by defaults on points of known density, and the time of each fit.

The floor is one full Gaussian, the ceiling the truth. Plain maximum likelihood is printed for comparison with --plain.

    OMP_NUM_THREADS=1 python tests/benchmarks/mixture_quality.py --components 500 2000 10000
"""

import argparse
import resource
import tempfile
from pathlib import Path

import torch
from mixture_data import manifold_mixture
from safetensors.torch import load_file, save_file

from trainer.mixture import GaussianMixture


def points() -> dict[str, torch.Tensor]:
    """Training and held-out points, and log-densities of the latter under the truth; kept between runs."""
    path = Path(tempfile.gettempdir()) / "mixture-quality-seed-0.safetensors"
    if not path.exists():
        data = manifold_mixture()
        truth = data.truth.score_samples(data.held_out)
        save_file({"train": data.train, "held_out": data.held_out, "truth": truth}, path)
    return load_file(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--components", nargs="+", type=int, default=[500, 2000, 10_000])
    parser.add_argument("--plain", action="store_true", help="maximum likelihood too")
    args = parser.parse_args()
    data = points()
    train, held_out = data["train"], data["held_out"]
    one = GaussianMixture(1).fit(train).score(held_out)
    print(f"held-out nats per point: truth {float(data['truth'].mean()):.2f}, one full Gaussian {one:.2f}", flush=True)
    plain = {"prior_strength": 0.0, "inflation": 1.0, "annealing_iter": 0, "reg_covar": 1e-3, "max_iter": 5}
    for k in args.components:
        for name, settings in {"defaults": {}, **({"maximum likelihood": plain} if args.plain else {})}.items():
            mixture = GaussianMixture(k, **settings).fit(train)
            score = mixture.score(held_out)
            seconds = ", ".join(f"{phase} {value:.1f} s" for phase, value in mixture.seconds_.items())
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(
                f"{k}, {name}: {score:.2f} ({score - one:+.2f}); nu {mixture.prior_strength_:.0f}, "
                f"inflation {mixture.inflation_}, truncation loses {mixture.truncation_loss_}, "
                f"{mixture.n_iter_} iterations; {seconds}; peak {peak:.2f} GB",
                flush=True,
            )


if __name__ == "__main__":
    main()
