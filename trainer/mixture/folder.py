"""Where the mixtures of a run lie."""

from pathlib import Path

from trainer.run_folder.latents import WEIGHTS


def mixture_folder(run: str | Path, n_components: int, covariance_type: str = "full", weights: str = "final") -> Path:
    """RUN/mixtures/K-covariance, or RUN/mixtures/K-covariance-stage1 for the codes of the end of stage 1."""
    if weights not in WEIGHTS:
        raise ValueError(f"weights {weights!r} is not one of {WEIGHTS}")
    name = f"{n_components}-{covariance_type}"
    return Path(run) / "mixtures" / (name if weights == "final" else f"{name}-{weights}")
