"""What is known of a user's extractor without loading it, for pages, which run no code of the user's."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from data_shards.io.disk import sha256_of_file


@dataclass(frozen=True, kw_only=True)
class FileComparison:
    """An extractor's files now, beside those that were measured by."""

    changed: bool
    """Whether they are others."""
    compared: str
    """What was compared, and what was not, in words."""


def compare_unloaded(description: Mapping[str, object], file: str = "") -> FileComparison | None:
    """What the files of the extractor of a protocol say; None for extractors of ours, which their digests tell apart.

    file: where a TorchScript file lay.
    """
    name = str(description["name"])
    if "source_sha256" in description:
        source = _source_of(name.partition(":")[0])
        if source is None:
            return FileComparison(changed=False, compared="its source was not found here, and nothing was compared")
        same = hashlib.sha256(source.read_bytes()).hexdigest() == description["source_sha256"]
        words = "its source is as it was; its weights, and what else it reads, were not compared"
        return FileComparison(changed=not same, compared=words)
    if "weights_sha256" in description and "probe" in description:
        path = Path(file or name)
        if not path.is_file():
            return FileComparison(changed=False, compared=f"{path} is not there, and nothing was compared")
        same = sha256_of_file(path) == description["weights_sha256"]
        return FileComparison(changed=not same, compared=f"{path} is the file that it was")
    return None


def _source_of(module: str) -> Path | None:
    """The file of a module that is not imported."""
    path: list[str] | None = list(sys.path)
    origin = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            return None
        origin, path = spec.origin, list(spec.submodule_search_locations or [])
    return Path(origin) if origin is not None and Path(origin).is_file() else None
