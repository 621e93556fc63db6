"""Configurations of earlier versions: the names that fields had, and fields that came later."""

from collections.abc import Mapping
from typing import Any

from data_shards.io.nested import merge, nested

# Fields that came later, with the values at which a run is what it was before them. A run folder without the field has
# this value, and kept measurements know a run with this value by the same hash.
ADDED_FIELDS: dict[str, Any] = {
    "stage1.min_images": 0,
    "stage2.min_images": 0,
    "data.flip": False,
    "stage1.restore_best": False,
    "stage2.restore_best": False,
    "optimiser.switch_warmup_images": 0,
    "variance.family": "gaussian",
}


# The names that fields had in the first run folders.
OLD_NAMES = {
    "optimiser.max_grad_norm": "gradient_clip",
    "engine.grad_accumulation_steps": "micro_batches",
    "checkpoint.keep_last": "keep",
    "variance.min_variance": "smallest",
}


def as_first_written(content: Mapping[str, Any]) -> dict[str, Any]:
    """The result of `to_dict` as the first version had it, with OLD_NAMES and without ADDED_FIELDS at their old values.

    So a hash of it is the same as before fields were renamed and added.
    """
    found = _renamed(content, OLD_NAMES)
    for name, value in ADDED_FIELDS.items():
        section, _, field = name.rpartition(".")
        inner = found[section] if section else found
        if inner.get(field, value) == value:
            inner.pop(field, None)
    return _smoothing(found, "smoothing_images", "smoothing")


def as_written_today(content: Mapping[Any, Any]) -> dict[Any, Any]:
    """The content of a run's config.yaml, which may be of any version, with today's names and ADDED_FIELDS."""
    content = _with_log_targets(content)
    renamed = _renamed(
        content, {f"{new.partition('.')[0]}.{old}": new.partition(".")[2] for new, old in OLD_NAMES.items()}
    )
    found: dict[Any, Any] = {}
    for name, value in ADDED_FIELDS.items():
        merge(found, nested(name, value))
    merge(found, renamed)
    return _smoothing(found, "smoothing", "smoothing_images")


def _smoothing(content: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Replaces the weight of a batch in the mean of sigma^2 by the images that it looks back over, or the reverse."""
    variance, data = content.get("variance"), content.get("data")
    if not isinstance(variance, Mapping) or not isinstance(data, Mapping):  # told by `build`
        return content
    section, batch = dict(variance), data.get("global_batch")
    value = section.pop(old, None)
    if not isinstance(value, int | float) or not isinstance(batch, int) or value <= 0:
        return content
    return {**content, "variance": {**section, new: batch / value}}


def _with_log_targets(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """`content` with log.to for the log.tensorboard of earlier versions."""
    log = content.get("log")
    if not isinstance(log, Mapping) or "tensorboard" not in log:
        return content
    kept = {name: value for name, value in log.items() if name != "tensorboard"}
    return {**content, "log": {"to": ["tensorboard"] if log["tensorboard"] else [], **kept}}


def _renamed(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """`content` with the field "section.field" of each section called `names["section.field"]` instead."""
    return {
        section: {names.get(f"{section}.{name}", name): value for name, value in fields.items()}
        if isinstance(fields, Mapping)
        else fields
        for section, fields in content.items()
    }
