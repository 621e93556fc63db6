"""Another configuration for a run folder: taken where nothing was trained, and in part where something was."""

from pathlib import Path

from data_shards.io.atomic import write_text
from data_shards.io.errors import InputError
from trainer.config.config import Config, changed_fields, extended, is_changeable, load_config, to_yaml
from trainer.run_folder.checkpoint import complete_checkpoints, links_to_checkpoints

_FILE, _HISTORY = "config.yaml", "configurations"


def accepted_changes(config: Config, *, allow_change: bool) -> tuple[str, ...] | None:
    """The fields, as `field: old -> new`, in which `config` differs from the configuration of its run folder.

    None where nothing was trained there, so that any configuration may begin. A longer last stage is always accepted,
    and with allow_change other values of fields that do not alter what was learnt so far. Raises InputError for
    changes that are not accepted, and where the configuration of a trained run is missing or damaged, or all of its
    checkpoints are links.
    """
    path = config.folder / _FILE
    if not complete_checkpoints(config.folder):
        if links := links_to_checkpoints(config.folder):
            raise InputError(
                f"{links[-1]}: is a link, and the run has no other checkpoint; put the folder itself in its place, or "
                "choose another name"
            )
        return None
    if not path.is_file():
        raise InputError(f"{path}: is missing, but the run has checkpoints; put it back, or choose another name")
    stored = load_config(config.folder)
    fields, longer = changed_fields(stored, config), changed_fields(stored, extended(stored, config))
    changes = tuple(f"{name}: {old} -> {new}" for name, (old, new) in fields.items())
    if any(not is_changeable(name) for name in fields):
        raise InputError(
            f"{path}: the run was trained with another configuration ({'; '.join(changes)}); "
            "restore these fields or choose another name"
        )
    if not allow_change and any(name not in longer for name in fields):
        raise InputError(
            f"{path}: the run was trained with another configuration ({'; '.join(changes)}); "
            "add --allow-change to go on with it, restore these fields or choose another name"
        )
    return changes


def record_changes(config: Config, images: int) -> None:
    """Keeps the former configuration, of up to so many images, and writes the new one."""
    path = config.folder / _FILE
    history = _history(config.folder, images)
    history.parent.mkdir(exist_ok=True)
    write_text(history, path.read_text(encoding="utf-8"))
    write_text(path, to_yaml(config))


def _history(run: Path, images: int) -> Path:
    """configurations/IMAGES.yaml, or IMAGES-2.yaml and so on where there is one."""
    number, path = 1, run / _HISTORY / f"{images:012d}.yaml"
    while path.exists():
        number += 1
        path = path.with_name(f"{images:012d}-{number}.yaml")
    return path
