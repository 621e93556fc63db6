"""The measurements of real runs in one small file that a repository can keep, long after the weights are gone.

measured/DATASET.json holds what run folders know, with the parts that results share written once; measured/DATASET/
holds pictures that need weights. Both are read back in place of run folders.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_shards.io.atomic import write_json
from data_shards.io.errors import InputError
from eval.paper.record import Record
from eval.protocol import fingerprint

MEASURED = Path("results/measured")
_FORMAT = 1
_DIGITS = 7
# What a protocol says of one run alone, or of one set of its weights.
_OWN = ("run", "weights", "checkpoint", "mixture_digest", "variance_floor")


def merged(ours: Record | None, kept: Record | None) -> Record | None:
    """Two records of one configuration and data set as one; `ours` counts where both have an answer."""
    if ours is None or kept is None:
        return ours or kept
    return dataclasses.replace(ours, results=kept.results | ours.results)


def read_measured(folder: Path, dataset: str) -> dict[str, Record]:
    """The kept records by the name of their run; empty where none are kept. Raises InputError for a damaged file."""
    path = folder / f"{dataset}.json"
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        shared = content["shared"]
        records = {name: Record(**record) for name, record in content["runs"].items()}
        for record in records.values():
            record.results = {key: _whole(result, shared) for key, result in record.results.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: holds no measurements ({error!r}); restore it from the repository") from error
    return records


def write_measured(folder: Path, dataset: str, records: Mapping[str, Record]) -> None:
    """Writes the records, results rounded to seven digits."""
    shared: dict[str, Any] = {}
    runs = {}
    for name, record in sorted(records.items()):
        results = {key: _small(result, shared) for key, result in sorted(record.results.items())}
        # The training command says which run it was; those that measured it follow from the protocols.
        runs[name] = dataclasses.asdict(dataclasses.replace(record, commands=record.commands[:1], results=results))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{dataset}.json", {"format": _FORMAT, "shared": dict(sorted(shared.items())), "runs": runs})


def _small(result: Mapping[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """A result whose protocol is a reference to `shared`, but for what is its own."""
    small: dict[str, Any] = _rounded(result)
    if "protocol" in small:
        protocol = small.pop("protocol")
        common = {name: value for name, value in protocol.items() if name not in _OWN}
        common = {"protocol": common} | {name: small.pop(name) for name in ("label", "remarks") if name in small}
        key = fingerprint(common)[:8]
        shared[key] = common
        small = {"shared": key, "own": {name: protocol[name] for name in _OWN if name in protocol}} | small
    return small


def _whole(small: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_small`."""
    if "shared" not in small:
        return dict(small)
    common = shared[small["shared"]]
    rest = {name: value for name, value in small.items() if name not in ("shared", "own")}
    return {**common, **rest, "protocol": common["protocol"] | small["own"]}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: _rounded(inner) for name, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
