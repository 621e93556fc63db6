"""Full learning curves of 24 configurations, on which early stopping is replayed (replayed_stopping.py).

    python tests/benchmarks/learning_curves.py --shards shards/fashion-mnist --out results/sweep/curves.json

They are drawn from the space of tune/configs/fashion_mnist.yaml and trained to their caps on one core: half an epoch or
one epoch of either stage, with a check each percent of the longest budget. One to three minutes a curve; a curve that
the file has already is not trained again.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from data_shards.io.atomic import write_json
from data_shards.manifest import Manifest
from trainer.loop import train
from tune.search.trials import random_fields
from tune.sweep_config import read_sweep

CONFIGURATIONS = 24
_CHECK_IMAGES = 1100
# The stages end at their caps, so that every curve is whole.
_LEFT_OUT = {f"stage{stage}.{name}" for stage in (1, 2) for name in ("eps", "patience", "max_epochs")}
_CAPS = (0.5, 1.0)
_FIELDS: dict[str, Any] = {
    "device": "cpu",
    "data.valid_images": 500,
    "stage1.check_images": _CHECK_IMAGES,
    "stage2.check_images": _CHECK_IMAGES,
    "stage1.patience": 10**6,
    "stage2.patience": 10**6,
    "stage1.restore_best": False,
    "stage2.restore_best": False,
    "checkpoint.every_images": 10**6,
}


def curve(number: int, shards: str) -> dict[str, Any]:
    """Trains configuration `number` and returns what was drawn, the caps in images, and its checks."""
    sweep = read_sweep("tune/configs/fashion_mnist.yaml")
    space = tuple(dimension for dimension in sweep.space if dimension.field not in _LEFT_OUT)
    fields = random_fields(space, sweep.seed, number)
    # Each pair of budgets is as frequent as the others, and goes with no other field.
    fields |= {"stage1.max_epochs": _CAPS[number % 2], "stage2.max_epochs": _CAPS[number // 2 % 2]}
    checks: list[tuple[int, int, float]] = []

    def note(kind: str, images: int, facts: dict[str, Any]) -> None:
        if kind == "valid":
            checks.append((facts["stage"], images, round(facts["elbo_at_closed_form"], 1)))

    with tempfile.TemporaryDirectory() as runs:
        config = sweep.trainer_config(
            f"curve-{number}", 0, {**_FIELDS, "data.shards": str(Path(shards).resolve()), **fields}
        )
        config = type(config)(**{**vars(config), "runs": runs})
        train(config, note)
    images = Manifest.load(shards).num_samples(config.data.train_split)
    caps = [stage.cap(images) for stage in (config.stage1, config.stage2)]
    return {"number": number, "fields": fields, "caps": caps, "checks": checks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", default="shards/fashion-mnist")
    parser.add_argument("--out", type=Path, default=Path("results/sweep/curves.json"))
    parser.add_argument("--only", type=int, help="train this configuration alone")
    args = parser.parse_args()
    for number in range(CONFIGURATIONS) if args.only is None else (args.only,):
        done = json.loads(args.out.read_text()) if args.out.exists() else []
        if number not in [one["number"] for one in done]:
            write_json(args.out, sorted([*done, curve(number, args.shards)], key=lambda one: one["number"]))


if __name__ == "__main__":
    main()
