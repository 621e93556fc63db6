"""A process of distributed fits, started by torchrun: python mixture_worker.py OUT."""

import sys
from pathlib import Path

import torch
from support.mixture_cases import draws, fitted, known_mixture

from trainer.mixture.content import digest_of_points
from trainer.mixture.points import Points
from trainer.process_group import process_group

FITS = {
    "exact": ("full", 0),
    "truncated": ("full", 8),
    "tied": ("tied", 0),
    "of three starts": ("full", 0),
    "centred": ("full", 0),
}
# In float32, until they converge.
CONVERGED = {
    "converged exact": ("full", 0),
    "converged truncated": ("full", 8),
    "converged diag": ("diag", 0),
    "converged tied": ("tied", 0),
    "converged spherical": ("spherical", 0),
}

# Its checkpoint stays.
KEPT = {"products": "float64", "max_iter": 6, "tol": 1e-12, "candidates": 0}


def main(out: str) -> None:
    x = draws(known_mixture("full", k=12, dim=4, spread=2.0), 901)
    with process_group() as ranks:
        own = ranks.partition(len(x))
        start, stop = own.start, own.stop
        spread = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
        digest = digest_of_points(Points(x[start:stop], spread[start:stop]), ranks)
        if ranks.is_main:
            Path(out).mkdir(parents=True, exist_ok=True)
            (Path(out) / "digest").write_text(str(digest))
        for name, (kind, candidates) in (FITS | CONVERGED).items():
            settings = {"covariance_type": kind, "products": "float64", "max_iter": 14, "tol": 1e-12}
            if name == "of three starts":
                settings |= {"n_init": 3, "max_iter": 4}
            if name == "centred":
                settings |= {"products": "centred", "max_iter": 4}
            if name in CONVERGED:
                settings = {"covariance_type": kind, "products": "float32", "max_iter": 100}
            mixture = fitted(x[start:stop], 12, ranks=ranks, candidates=candidates, **settings)
            if ranks.is_main:
                mixture.save(Path(out) / name)
        fitted(x[start:stop], 12, ranks=ranks, checkpoint=Path(out) / "checkpoint", checkpoint_seconds=0, **KEPT)


if __name__ == "__main__":
    main(*sys.argv[1:])
