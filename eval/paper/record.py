"""What is known of each training: its run folder's record, or what a repository keeps of finished runs, or both merged.

RUN/reproduction.json holds the answers of one run. FOLDER/DATASET.json keeps those of all runs of a data set, with the
parts that results share written once; FOLDER/DATASET/ keeps the pictures that need weights.
"""

import json
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from data_shards.io.atomic import write_bytes, write_json
from data_shards.io.errors import InputError
from data_shards.manifest import FILE as MANIFEST
from data_shards.manifest import Manifest
from eval.paper.plan import Measurements, Plan
from eval.paper.trainings import Training, configuration_hash, resolved
from eval.paper.wanted import RESULTS, Question, measured_as
from eval.protocol import fingerprint
from eval.results import Result

FILE = "reproduction.json"
_CHECKOUT = Path(__file__).parents[2] / "results" / "measured"
KEPT = _CHECKOUT if _CHECKOUT.is_dir() else Path("results/measured")
"""What the checkout keeps of finished runs; an installed package has none and starts one in the current folder."""
_FORMAT = 1
_DIGITS = 7
# What a protocol says of one run alone, or of one set of its weights.
_OWN = ("run", "weights", "checkpoint", "mixture_digest", "variance_floor")


@dataclass(kw_only=True)
class Record:
    """The measurements of one training. Every result has its own protocol."""

    configuration: str
    """Hash of the configuration trained with, see `configuration_hash`."""
    data: str
    """Hash of the shards' manifest."""
    commit: str
    """The commit that was trained and measured by; `-dirty` where files had been changed."""
    commands: list[str] = field(default_factory=list)
    """The training command."""
    training: dict[str, Any] = field(default_factory=dict)
    """images, seconds, and the end of each stage as metrics.jsonl has it."""
    results: dict[str, Any] = field(default_factory=dict)
    """By `Question.key`: results, summaries of fits, and what pythae_samples.py wrote."""

    def missing(self, questions: Iterable[Question]) -> list[Question]:
        """The questions without an answer."""
        return [question for question in questions if question.key not in self.results]

    def measured_as(self, measure: Measurements) -> "Record":
        """The record without the results that were measured by another protocol than the plan's."""
        return replace(self, results={key: r for key, r in self.results.items() if measured_as(key, r, measure)})

    def to_json(self) -> dict[str, Any]:
        """The content of its file."""
        content = asdict(replace(self, results={}))
        return content | {"results": {k: r.to_json() if isinstance(r, Result) else r for k, r in self.results.items()}}

    def save(self, run: Path) -> None:
        """Writes RUN/reproduction.json."""
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / FILE, self.to_json())


def _record(content: Mapping[str, Any]) -> Record:
    record = Record(**content)
    kinds = {key: RESULTS.get(key.partition(" ")[0]) for key in record.results}
    record.results = {key: kind.from_json(r) if (kind := kinds[key]) else r for key, r in record.results.items()}
    return record


def read_record(run: Path) -> Record | None:
    """The record in a run folder, or None where there is none. Raises InputError where it is damaged."""
    path = run / FILE
    if not path.exists():
        return None
    try:
        return _record(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is no record of measurements ({error}); delete it and measure again") from error


def known_records(
    plan: Plan, trainings: Iterable[Training], runs: Path | None, kept: Mapping[str, Record]
) -> dict[str, Record]:
    """What is known of trainings by their name: from run folders under `runs`, and from what was kept.

    A record counts only where it is of the same configuration, and of the same shards where those are there.
    """
    data = Manifest.load(plan.shards).hash if (Path(plan.shards) / MANIFEST).exists() else None
    found = {}
    for made in trainings:
        candidates = (read_record(runs / made.name) if runs else None, kept.get(made.name))
        if not any(candidates):
            continue
        wanted = configuration_hash(resolved(plan, made))
        ours, theirs = (r if r and r.configuration == wanted and data in (None, r.data) else None for r in candidates)
        if record := merged(ours, theirs):
            peers = read_peers(runs / made.name) if runs else {}
            record = replace(record, results=record.results | peers).measured_as(plan.measure)
            if record.results:
                found[made.name] = record
    return found


def merged(ours: Record | None, kept: Record | None) -> Record | None:
    """Two records of one configuration and data set as one; `ours` counts where both have an answer."""
    if ours is None or kept is None:
        return ours or kept
    return replace(ours, results=kept.results | ours.results)


def read_kept(folder: Path, dataset: str) -> dict[str, Record]:
    """The kept records by the name of their run; empty where none are kept. Raises InputError for a damaged file."""
    path = folder / f"{dataset}.json"
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, not {_FORMAT}")
        for record in content["runs"].values():
            record["results"] = {key: _whole(small, content["shared"]) for key, small in record["results"].items()}
        return {name: _record(record) for name, record in content["runs"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: holds no measurements ({error!r}); restore it from the repository") from error


def write_kept(folder: Path, dataset: str, records: Mapping[str, Record]) -> None:
    """Writes the records, results rounded to seven digits."""
    shared: dict[str, Any] = {}
    runs = {}
    for name, record in sorted(records.items()):
        content = record.to_json()
        results = {key: _small(result, shared) for key, result in sorted(content["results"].items())}
        # The training command says which run it was; how it was measured is in the protocols.
        runs[name] = content | {"commands": record.commands[:1], "results": results}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{dataset}.json", {"format": _FORMAT, "shared": dict(sorted(shared.items())), "runs": runs})


def _small(result: Mapping[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """A result whose protocol is a reference to `shared`, but for what is its own."""
    small: dict[str, Any] = _rounded(result)
    if "protocol" in small:
        protocol = small.pop("protocol")
        common = {"protocol": {name: value for name, value in protocol.items() if name not in _OWN}}
        common |= {name: small.pop(name) for name in ("label", "remarks") if name in small}
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


def read_peers(run: Path) -> dict[str, Any]:
    """What tests/benchmarks/pythae_samples.py measured of pythae's models beside a run of ours, by its key."""
    found = {}
    for path in sorted((run / "eval").glob("pythae-*.json")):
        try:
            result = json.loads(path.read_text())
            found[f"pythae {result['model']} {result['components']} seed{result['seed']}"] = result
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: is no result of pythae_samples.py ({error!r}); delete it") from error
    return found


def keep_pictures(
    folder: Path, drawn: Collection[tuple[str, Path]], records: Mapping[str, Record], kept: Mapping[str, Record]
) -> None:
    """Copies pictures, (name of the training, path) each, into `folder`.

    Earlier ones stay where there is no new one and the training is the same: `records` is what is known now, `kept`
    what was kept with the pictures.
    """
    for name, path in drawn:
        now, before = records.get(name), kept.get(name)
        if now and path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / path.name, path.read_bytes())
        elif not (now and before and (now.configuration, now.data) == (before.configuration, before.data)):
            (folder / path.name).unlink(missing_ok=True)


def commit() -> str:
    """The commit of the code that runs, `-dirty` where the code was changed since; empty outside a repository."""
    root = Path(__file__).parents[2]
    name = _git(root, "rev-parse", "--short=10", "HEAD")
    code = [f"{package}/*.py" for package in ("data_shards", "trainer", "eval")]
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *code)
    return f"{name}-dirty" if name and changed else name


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
