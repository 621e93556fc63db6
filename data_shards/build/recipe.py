"""How the shards in a folder are built: the options, where the source lies and how it is divided, in recipe.json.

It is written before the first shard. As long as no shard is finished, another recipe replaces it.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_shards import manifest
from data_shards.build.record import recorded_shards
from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.regular_files import read_regular

FILE = "recipe.json"
_WORDS = {"valid": "--valid", "test": "--test", "shard_images": "--shard-images", "window": "--window"}


def read_recipe(out: Path) -> dict[str, Any] | None:
    """The recipe of the shards in `out`; None where there is none. Raises InputError where the file is damaged."""
    try:
        kept = json.loads(read_regular(out / FILE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        kept = None
    if not isinstance(kept, dict):
        raise InputError(f"{out / FILE}: damaged, or of no build; choose another folder", parameter="out")
    return kept


def was_finished(out: Path, kept: Mapping[str, Any]) -> bool:
    """Whether all shards were finished once, so that how images are divided goes on to hold."""
    return (out / manifest.FILE).is_file() or bool(kept.get("finished"))


def division_kept(out: Path) -> dict[str, Any] | None:
    """How a finished build divided its source, by `Source.division`."""
    kept = read_recipe(out)
    return kept.get("division") or None if kept and was_finished(out, kept) else None


def agree_on_recipe(out: Path, options: Mapping[str, Any], planned: Iterable[str]) -> dict[str, Any] | None:
    """The kept recipe, or None where these options may be written as a new one.

    planned: names of the files that the build will write. Raises InputError where `out` holds shards that were built
    with other options, or files that no build has written.
    """
    kept = read_recipe(out)
    if kept is None:
        there = next((name for name in (manifest.FILE, *planned) if (out / name).exists()), None)
        if there is None:
            return None
        kept = read_recipe(out)  # another part of the same build may have begun meanwhile
        if kept is None:
            raise InputError(f"{out / there} is there already, and is of no build; choose another folder", "out")
    if not {"name", "pixels"} <= kept.keys():
        raise InputError(f"{out / FILE} is there already, and is of no build; choose another folder", "out")
    if kept.get("divided"):
        raise InputError(f"{out} holds shards that `split` has divided since; choose another folder", parameter="out")
    if not was_finished(out, kept) and not any(recorded_shards(out)):
        return None
    if differing := list(differences(kept, options)):
        raise InputError(
            f"{out} holds shards built with another {' and '.join(differing)}; choose another folder, or remove it",
            parameter="out",
        )
    return kept


def differences(kept: Mapping[str, Any], options: Mapping[str, Any]) -> Iterable[str]:
    """Each option that is not as it was kept, with both values."""
    for name, value in json.loads(json.dumps(options)).items():
        former = kept.get(name)
        if former == value:
            continue
        if isinstance(former, dict) and isinstance(value, dict):
            fields = sorted(former.keys() | value.keys())
            yield from (
                f"{field} ({_shown(former.get(field))}, not {_shown(value.get(field))})"
                for field in fields
                if former.get(field) != value.get(field)
            )
        else:
            yield f"{_WORDS.get(name, name)} ({_shown(former)}, not {_shown(value)})"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def write_recipe(out: Path, content: Mapping[str, Any]) -> None:
    """Writes the file, unless it has this content."""
    if read_recipe(out) != json.loads(json.dumps(content)):
        atomic.write_json(out / FILE, content)
