"""Distances of another library's models on the same images with the same networks, where they were measured.

tests/benchmarks/pythae_samples.py writes RUN/eval/pythae-MODEL-COMPONENTS-seedSEED.json beside a run of ours.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_shards.io.errors import InputError
from eval.paper.record import Record

PEER_MODELS = {"VAE": "VAE with its mixture sampler", "RAE_L2": "RAE-L2 with its mixture sampler"}
_KIND = "pythae"


def read_peers(run: Path) -> dict[str, Any]:
    """The results that lie in a run folder, by their key among the run's results."""
    found = {}
    for path in sorted((run / "eval").glob(f"{_KIND}-*.json")):
        try:
            result = json.loads(path.read_text())
            found[f"{_KIND} {result['model']} {result['components']} seed{result['seed']}"] = result
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: is no result of pythae_samples.py ({error!r}); delete it") from error
    return found


def peer_results(records: Mapping[str, Record], model: str, *, carried: bool = False) -> dict[int, list[float]]:
    """Distances of a model's samples, one a training, by the number of components of its sampler.

    carried: of the samples carried to the spread of training images, where they were measured.
    """
    name = "carried_frechet_distance" if carried else "frechet_distance"
    found: dict[int, list[float]] = defaultdict(list)
    for result in peers_of(records):
        if result["model"] == model and name in result:
            found[result["components"]].append(float(result[name]))
    return dict(found)


def peers_of(records: Mapping[str, Record]) -> Iterable[dict[str, Any]]:
    """Every result of another library's model."""
    for record in records.values():
        yield from (result for key, result in record.results.items() if key.startswith(f"{_KIND} "))
