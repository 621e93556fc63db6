"""Small sweeps that the tests of tune start, and records of trials as a sweep leaves them."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from tune.trial.record import Check, StageRecord, TrialRecord

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
    "log.to": [],
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
        "stopping": {"scheduler": "none"},
        "measure": {"images": 0},
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content | changed, sort_keys=False))
    return path


def record(number: int, **changed: Any) -> TrialRecord:
    """A finished trial's record; keywords replace its fields."""
    seed = changed.get("seed", 0)
    stage = StageRecord(reason="cap", end_images=1, images=1, sigma2=1, kl=1, active_dimensions=2, elbo=1, seconds=1)
    made = TrialRecord(
        trial=f"search-{number:03d}-seed{seed}",
        phase="search",
        number=number,
        seed=seed,
        fields={"model.latent_dim": 2 + number},
        status="finished",
        reason="",
        again=False,
        parameters=1000,
        images=2000,
        stage=2,
        seconds=10.0,
        peak_memory_mib=500.0,
        retries=0,
        checks=tuple(Check(images, factor * number) for images, factor in ((500, 1.0), (1000, 2.0), (2000, 3.0))),
        final_elbo=3.0 * number,
        images_per_second=200.0,
        stage1=stage,
        stage2=stage,
        fd_stage1=90.0,
        fd_final=100.0 - number,
        fd_reconstruction=50.0,
        iwae_stage1=5.0,
        iwae_final=6.0,
    )
    return dataclasses.replace(made, **changed)
