"""A process of a distributed fit, started by torchrun: python mixture_worker.py OUT KIND CANDIDATES."""

import sys
from pathlib import Path

from mixture_cases import draws, known_mixture

from trainer.mixture import GaussianMixture
from trainer.process_group import process_group


def main(out: str, kind: str, candidates: str) -> None:
    x = draws(known_mixture("full", k=12, dim=4, spread=2.0), 901)
    with process_group() as ranks:
        start, stop = ranks.span(len(x))
        mixture = GaussianMixture(
            12, covariance_type=kind, products="float64", max_iter=14, tol=1e-12, candidates=int(candidates)
        ).fit(x[start:stop], ranks=ranks)
        if ranks.is_main:
            mixture.save(Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
