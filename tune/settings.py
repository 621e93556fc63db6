"""The settings that a sweep was started with, in sweep.json of its folder, and which may be others when it goes on."""

import json
import sys
from dataclasses import asdict
from typing import Any

from data_shards.io.atomic import write_json
from data_shards.io.configuration import build, shown
from data_shards.io.errors import InputError
from data_shards.io.regular_files import read_regular
from trainer.config.what_may_change import FREE_TO_CHANGE
from tune.sweep_config import MeasureConfig, SweepConfig

# With another of these the trials that are there would not be those of the sweep. `fields` are compared one by one.
_FIXED = ("search", "seed", "objectives")


def _settings(sweep: SweepConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(asdict(sweep)))
    return found


def _before(sweep: SweepConfig) -> dict[str, Any] | None:
    path = sweep.folder / "sweep.json"
    if not path.exists():
        return None
    try:
        found = json.loads(read_regular(path))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("fields", {}), dict):
        raise InputError(f"{path}: is damaged; remove it to go on with the trials that are there, under this file")
    return found


def former_measure(sweep: SweepConfig) -> MeasureConfig | None:
    """What the sweep measured when it was started last; None for a new one."""
    before = _before(sweep)
    try:
        return None if before is None else build(MeasureConfig, before.get("measure", {}))
    except InputError:
        return None


def keep_settings(sweep: SweepConfig) -> None:
    """Writes the settings into the sweep's folder, and says which ones have changed since it was started last.

    Raises InputError, and writes nothing, where trials that are there would be others under them.
    """
    before, now = _before(sweep), _settings(sweep)
    sweep.trials_folder.mkdir(parents=True, exist_ok=True)
    if before is not None and any(sweep.trials_folder.glob("*/trial.json")):
        changed = {name: (before[name], now[name]) for name in now if name in before and before[name] != now[name]}
        fields = _changed_fields(before.get("fields", {}), now["fields"])
        fixed = [name for name in _FIXED if name in changed] + [f"fields.{name}" for name in fields]
        if fixed:
            raise InputError(
                f"{sweep.folder / 'sweep.json'}: the sweep was started with another {', '.join(fixed)}; restore it or "
                "choose another name"
            )
        for name, (old, new) in changed.items():
            if name not in ("fields", "name", "runs", "base"):
                print(f"the sweep goes on with {name} {shown(new)}, before {shown(old)}", file=sys.stderr)
    write_json(sweep.folder / "sweep.json", now)


def _changed_fields(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The fields, in both, with other values that decide what is learnt."""

    def free(name: str) -> bool:
        return name in FREE_TO_CHANGE or name.partition(".")[0] in FREE_TO_CHANGE

    return [name for name in now if name in before and before[name] != now[name] and not free(name)]
