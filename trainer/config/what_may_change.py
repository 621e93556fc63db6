"""Which fields of a run's configuration may have other values when it goes on."""

import dataclasses
from typing import Any

from trainer.config.config import Config, to_dict

# These say where and how a run is carried out, not what is learnt: a run may be resumed with other values.
FREE_TO_CHANGE = (
    "name",
    "runs",
    "device",
    *(
        f"data.{name}"
        for name in ("shards", "workers", "on_device", "substitutes", "patience_seconds", "cache_bytes", "cache_dir")
    ),
    "engine",
    "checkpoint",
    "log",
)


# What was learnt so far stays what it was under other values of these: how fast and how long a run goes on. With
# --allow-change a trained run is continued with them.
CHANGEABLE = (
    "stage1",
    "stage2",
    "data.valid_images",
    "objective.kl_warmup_images",
    "variance.learning_rate",
    "variance.smoothing_images",
    "variance.min_variance",
    "optimiser.learning_rate",
    "optimiser.schedule",
    "optimiser.final_fraction",
    "optimiser.stage2_fraction",
    "optimiser.warmup_images",
    "optimiser.switch_warmup_images",
    "optimiser.at_switch",
    "optimiser.max_grad_norm",
)


def extended(old: Config, new: Config) -> Config:
    """`old` with the longer last stage that `new` may have: a run, finished or not, may go on with it."""
    last = "stage2" if new.two_stages else "stage1"
    asked, had = getattr(new, last).max_epochs, getattr(old, last).max_epochs
    return dataclasses.replace(old, **{last: dataclasses.replace(getattr(old, last), max_epochs=max(asked, had))})


def changed_fields(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The old and the new value of each field, by dotted name, that decides what is learnt and is not equal."""
    return _changed_fields(to_dict(old), to_dict(new), "")


def _changed_fields(old: dict[str, Any], new: dict[str, Any], prefix: str) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for key in old:
        name = prefix + key
        if name in FREE_TO_CHANGE or old[key] == new[key]:
            continue
        if isinstance(old[key], dict):
            found |= _changed_fields(old[key], new[key], f"{name}.")
        else:
            found[name] = (old[key], new[key])
    return found


def is_changeable(name: str) -> bool:
    """Whether CHANGEABLE has the field, or the section that it is in."""
    return name in CHANGEABLE or name.partition(".")[0] in CHANGEABLE
