"""Small sweeps that the tests of tune start, and records of trials as a sweep leaves them."""

from pathlib import Path
from typing import Any

import yaml

FAST: dict[str, Any] = {
    "data.valid_images": 100,
    "data.global_batch": 50,
    "model.latent_dim": 2,
    "model.encoder_channels": [8],
    "model.decoder_channels": [8, 8],
    "model.hidden": 16,
    "stage1.max_epochs": 1,
    "stage1.check_images": 300,
    "stage1.eps": 0,
    "stage2.max_epochs": 1,
    "stage2.check_images": 300,
    "stage2.eps": 0,
    "optimiser.learning_rate": 0.005,
    "log.every_images": 300,
    "log.tensorboard": False,
    "checkpoint.every_images": 300,
}


def write_sweep(folder: Path, shards: Path, **changed: Any) -> Path:
    """The YAML file of a small sweep over the digits; `fields` are added to FAST, other keywords replace."""
    base = folder / "base.yaml"
    base.write_text("name: base\n")
    fields = FAST | {"data.shards": str(shards)} | changed.pop("fields", {})
    content: dict[str, Any] = {
        "name": "sweep",
        "runs": str(folder / "runs"),
        "base": str(base),
        "fields": fields,
        "space": {"model.latent_dim": {"choice": [2, 4]}},
        "search": "grid",
        "concurrent": 1,
        "asha": {"enabled": False},
        "measure": {"images": 0},
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content | changed, sort_keys=False))
    return path


def record(number: int, **changed: Any) -> dict[str, Any]:
    """A finished trial's record."""
    seed = changed.get("seed", 0)
    content: dict[str, Any] = {
        "trial": f"search-{number:03d}-seed{seed}",
        "phase": "search",
        "number": number,
        "seed": seed,
        "fields": {"model.latent_dim": 2 + number},
        "status": "finished",
        "reason": "",
        "parameters": 1000,
        "images": 2000,
        "stage": 2,
        "seconds": 10.0,
        "peak_memory_mib": 500.0,
        "retries": 0,
        "checks": [(500, 1.0 * number), (1000, 2.0 * number), (2000, 3.0 * number)],
        "final_elbo": 3.0 * number,
        "images_per_second": 200.0,
        "fd_stage1": 90.0,
        "fd_final": 100.0 - number,
        "fd_reconstruction": 50.0,
        "iwae_stage1": 5.0,
        "iwae_final": 6.0,
    }
    for stage in (1, 2):
        content |= {f"stage{stage}_{name}": 1 for name in ("end_images", "images", "sigma2", "kl", "elbo", "seconds")}
        content |= {f"stage{stage}_active_dimensions": 2, f"stage{stage}_reason": "cap"}
    return content | changed
