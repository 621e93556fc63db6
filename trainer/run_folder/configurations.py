"""The configurations of a run: config.yaml, the copy of it in each checkpoint, and the former ones in configurations/.

A run is known by the configuration that its newest checkpoint was trained with. config.yaml may be edited, or cut to
what is still valid YAML, and every field that it lacks would then be a default in silence.
"""

import contextlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_shards.io.atomic import write_text
from data_shards.io.errors import InputError
from trainer.config.config import Config, build_as_written, load_config, to_yaml
from trainer.config.sections import DataConfig
from trainer.config.what_may_change import changed_fields, is_changeable
from trainer.run_folder.checkpoint import IMAGES, complete_checkpoints, configuration_file, place_of
from trainer.run_folder.log import read_events
from trainer.run_folder.plain_files import require_plain_files

_FILE, _HISTORY = "config.yaml", "configurations"
_FORMER = re.compile(rf"({IMAGES})(?:-\d+)?\.yaml")
_NAMED_FIELDS = 5


def trained_configuration(run: str | Path) -> Config:
    """The configuration in a run folder. Raises InputError where config.yaml is missing or wrong.

    So it does where a field that decides what is learnt is not as in the newest checkpoint, or, where that is of an
    earlier version, as at the last start that metrics.jsonl names.
    """
    run = Path(run)
    require_plain_files(run)
    stored = load_config(run)
    path, checkpoints = run / _FILE, complete_checkpoints(run)
    if not path.is_file() or not checkpoints:
        return stored
    copy, images = _newest_copy(checkpoints)
    trained = load_config(copy) if copy is not None else _at_last_start(run)
    if trained is None:
        return stored
    fields = changed_fields(trained, stored)
    if any(former >= images for former in _former(run)):  # changed since this checkpoint was written
        fields = {name: values for name, values in fields.items() if not is_changeable(name)}
    if not fields:
        return stored
    listed = [f"{name}: {now}, trained with {then}" for name, (then, now) in fields.items()]
    more = f"; and {len(listed) - _NAMED_FIELDS} more fields" if len(listed) > _NAMED_FIELDS else ""
    remedy = f"restore these fields, as `configuration` in the last start of {run / 'metrics.jsonl'} has them"
    if copy is not None:
        remedy = f"restore it with `cp {shlex.quote(str(copy))} {shlex.quote(str(path))}`"
    raise InputError(
        f"{path}: is not what the run was trained with ({'; '.join(listed[:_NAMED_FIELDS])}{more}); {remedy}; "
        "a field that may change is an option of `python -m trainer`, with --allow-change"
    )


def own_splits(run: str | Path) -> tuple[str, str]:
    """The splits that a run trains on and holds out, data.train_split and data.valid_split.

    A folder that holds codes without a configuration has the default names. Raises InputError where config.yaml is
    wrong.
    """
    data = load_config(run).data if (Path(run) / _FILE).is_file() else DataConfig()
    return data.train_split, data.valid_split


def require_of_this_run(checkpoint: Path, config: Config) -> None:
    """Raises InputError where a checkpoint was trained with a configuration that the run of `config` never had.

    Of a checkpoint without a readable copy of its configuration, as of an earlier version, nothing is known.
    """
    try:
        copy = configuration_file(checkpoint)
        trained = load_config(copy) if copy is not None else config
    except InputError:
        return
    fields = {name: both for name, both in changed_fields(config, trained).items() if not is_changeable(name)}
    if fields:
        listed = [f"{name}: {other}, here {own}" for name, (own, other) in fields.items()][:_NAMED_FIELDS]
        raise InputError(
            f"{checkpoint}: is a checkpoint of another run ({'; '.join(listed)}); put the run's own in its place"
        )


def _newest_copy(checkpoints: Sequence[Path]) -> tuple[Path | None, int]:
    """The copy of config.yaml in the newest of these checkpoints that is undamaged, and the images of that."""
    for folder in reversed(checkpoints):
        with contextlib.suppress(InputError):
            return configuration_file(folder), (place_of(folder) or (0, 0))[0]
    return None, 0


def _at_last_start(run: Path) -> Config | None:
    """The configuration with which the run was started or resumed last; None where the log has none."""
    starts = [event for event in read_events(run) if event["event"] in ("start", "resume")]
    written = starts[-1].get("configuration") if starts else None
    if not isinstance(written, dict):
        return None
    content: dict[str, Any] = {}
    for name, value in written.items():
        section, _, field = name.rpartition(".")
        (content.setdefault(section, {}) if section else content)[field] = value
    try:
        return build_as_written(content)
    except InputError:  # of a version whose values are not taken any more
        return None


def record_changes(config: Config, images: int) -> None:
    """Keeps the former configuration, of up to so many images, and writes the new one."""
    path = config.folder / _FILE
    number, history = 1, config.folder / _HISTORY / f"{images:012d}.yaml"
    while history.exists():
        number += 1
        history = history.with_name(f"{images:012d}-{number}.yaml")
    history.parent.mkdir(exist_ok=True)
    write_text(history, path.read_text(encoding="utf-8"))
    write_text(path, to_yaml(config))


def _former(run: Path) -> list[int]:
    """The images after which config.yaml was changed; the former ones are configurations/IMAGES.yaml, IMAGES-2.yaml."""
    names = (_FORMER.fullmatch(path.name) for path in (run / _HISTORY).glob("*.yaml"))
    return [int(name[1]) for name in names if name]
