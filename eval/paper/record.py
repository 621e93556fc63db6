"""What is measured of each training and what is known of it: its run folder's record merged with what is kept.

RUN/reproduction.json holds the answers of one run. FOLDER/DATASET.json keeps those of all runs of a data set, with the
parts that results share written once; FOLDER/DATASET/ keeps the pictures that need weights.
"""

import json
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_shards.io.atomic import write_bytes, write_json
from data_shards.io.configuration import configuration
from data_shards.io.errors import InputError
from data_shards.io.regular_files import read_regular
from data_shards.manifest import FILE as MANIFEST
from data_shards.manifest import Manifest
from eval.distance.measures import of_these_versions
from eval.paper.plan import Measurements, Plan, Training, configuration_hash, resolved, training_command
from eval.protocol import fingerprint
from eval.results import DistanceResult, LikelihoodResult, MemorisationResult, Result, UncertaintyResult, VarianceResult

FILE = "reproduction.json"
_ROOT = Path(__file__).parents[2]
_CHECKOUT = _ROOT / "results" / "measured"
KEPT = _CHECKOUT if _CHECKOUT.is_dir() else Path("results/measured")
"""What the checkout keeps of finished runs; an installed package has none and starts one in the current folder."""
BEST = "best"
"""Label of the mixture whose number of components held-out codes choose among `Measurements.candidates`."""
_RESULTS: Mapping[str, type[Result]] = {
    "fid": DistanceResult,
    "likelihood": LikelihoodResult,
    "uncertainty": UncertaintyResult,
    "memorisation": MemorisationResult,
}
_FORMAT = 1
# What a protocol says of one run alone, or of one set of its weights.
_OWN = ("run", "weights", "checkpoint", "mixture_digest", "variance_floor")


@configuration
class Question:
    """A measurement of one set of weights of a training."""

    kind: str
    """fid, likelihood, uncertainty, memorisation, or mixture, whose answer is the summary of the fit."""
    weights: str = "final"
    """final or stage1."""
    source: str = ""
    """Images of a distance, and of a memorisation where they are not g(z)."""
    mixture: str = ""
    """Label of a `MixtureForm`, or BEST; empty where no mixture is needed."""

    @property
    def key(self) -> str:
        """The name under which answers are kept, such as `fid q_hat 32-full-posterior final`."""
        return " ".join(word for word in (self.kind, self.source, self.mixture, self.weights) if word)


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
    """By `Question.key`: results, summaries of fits, and what pythae_samples.py wrote; by `picture_key` what pictures
    were drawn from."""

    def missing(self, questions: Iterable[Question]) -> list[Question]:
        """The questions without an answer."""
        return [question for question in questions if question.key not in self.results]

    def measured_as(self, measure: Measurements) -> "Record":
        """The record without results by another protocol than the plan's, or of another training.

        Of another training are those whose weights or fitted density are not those of the newest result.
        """
        found = {key: r for key, r in self.results.items() if _measured_as(key, r, measure)}
        return replace(self, results=_of_one_training(found))

    def to_json(self) -> dict[str, Any]:
        """The content of its file."""
        results = {key: r.to_json() if isinstance(r, Result) else r for key, r in self.results.items()}
        return vars(self) | {"results": results}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Record":
        """The inverse of `to_json`."""
        kinds = {key: _RESULTS.get(key.partition(" ")[0]) for key in content["results"]}
        results = {key: kind.from_json(r) if (kind := kinds[key]) else r for key, r in content["results"].items()}
        return cls(**{**content, "results": results})

    def save(self, run: Path) -> None:
        """Writes RUN/reproduction.json."""
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / FILE, self.to_json())


def picture_key(name: str) -> str:
    """The name under which it is kept what a picture was drawn from: weights, checkpoint, and mixture, as a label."""
    return f"picture {name}"


def weights_of(result: Any) -> tuple[str, str] | None:
    """The name and the digest of the weights that a result is of; None where it does not say, as those of peers, and
    summaries of fits by earlier versions."""
    if (protocol := getattr(result, "protocol", None)) is not None:
        return protocol.weights, protocol.checkpoint
    if not isinstance(result, Mapping):
        return None
    made_from = (result.get("codes") or {}).get("train") or result
    return (result["weights"], made_from["checkpoint"]) if {"weights", "checkpoint"} <= {*result, *made_from} else None


def _of_one_training(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results whose weights, and fitted density, are those of the results before them.

    results: by `Question.key`, the newest first: only what agrees with it is of the same training.
    """
    subjects: dict[tuple[str, ...], str] = {}
    kept = {}
    for key, result in results.items():
        protocol: Any = getattr(result, "protocol", None)
        own: dict[tuple[str, ...], str] = {}
        if (weights := weights_of(result)) is not None:
            own[weights[:1]] = weights[1]
        if digest := getattr(protocol, "mixture_digest", ""):
            kind, *source, label, _ = key.split(" ")
            # Of transported samples, each kind of result has its own digest.
            density = (kind, *source) if "transported" in source else source if source == ["flow"] else ()
            own[(protocol.weights, protocol.mixture, label, *density)] = digest
        if all(subjects.get(subject, digest) == digest for subject, digest in own.items()):
            subjects |= own
            kept[key] = result
    return kept


def _measured_as(key: str, result: Any, measure: Measurements) -> bool:
    """Whether a result was measured as the plan and the code say now: as many images, by the same extractor, with the
    same seed, by measures of these versions."""
    if key.startswith("pythae "):
        found = (result["extractor"]["name"], result["samples"], result["reference"])
        return found == (measure.extractor, measure.distance_images, measure.distance_split)
    if not isinstance(result, Result):  # the summary of a fit
        return True
    protocol: Any = result.protocol  # type: ignore[attr-defined]
    same: bool = protocol.seed == measure.seed
    if isinstance(result, VarianceResult):
        same &= result.is_of_this_version
    if isinstance(result, DistanceResult):
        same &= of_these_versions(result) is not None
        same &= (protocol.extractor["name"], protocol.split) == (measure.extractor, measure.distance_split)
        same &= protocol.source != "q_hat" or set(measure.also) <= set(result.also)
        return same and (protocol.source == "half" or protocol.n == measure.distance_images)
    if isinstance(result, LikelihoodResult):
        same &= protocol.importance_samples == measure.importance_samples
    memorisation = isinstance(result, MemorisationResult)
    return same and protocol.n == (measure.memorisation_images if memorisation else measure.likelihood_images)


def read_record(run: Path) -> Record | None:
    """The record in a run folder, or None where there is none. Raises InputError where it is damaged."""
    path = run / FILE
    if not path.exists():
        return None
    try:
        return Record.from_json(json.loads(read_regular(path)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: is no record of measurements ({error}); delete it and measure again") from error


def known_records(
    plan: Plan, trainings: Iterable[Training], runs: Path | None, kept: Mapping[str, Record]
) -> dict[str, Record]:
    """What is known of trainings by their name: from what was kept, and above it from run folders under `runs`.

    A record counts only where it is of the same configuration, and of the same shards where those are there. Its
    training command is that of today: defaults may have changed since it was trained.
    """
    data = Manifest.load(plan.shards).hash if (Path(plan.shards) / MANIFEST).exists() else None
    found = {}
    for training in trainings:
        name = training.name
        candidates = [one for one in (kept.get(name), read_record(runs / name) if runs else None) if one]
        wanted = configuration_hash(resolved(plan, training)) if candidates else ""
        same = [one for one in candidates if one.configuration == wanted and data in (None, one.data)]
        if same:
            # The newest first, see `measured_as`: those in the run folder, then those that were kept.
            results = dict(reversed(same[-1].results.items()))
            results |= {key: result for key, result in reversed(same[0].results.items()) if key not in results}
            results |= read_peers(runs / name) if runs else {}
            fields = {**training.fields, "data.shards": plan.shards}
            commands = [training_command(plan.config, name, fields)]
            record = replace(same[-1], commands=commands, results=results).measured_as(plan.measure)
            if record.results:
                found[name] = record
    return found


def read_kept(folder: Path, dataset: str) -> dict[str, Record]:
    """The kept records by the name of their run; empty where none are kept. Raises InputError for a damaged file."""
    path = folder / f"{dataset}.json"
    if not path.exists():
        return {}
    try:
        content = json.loads(read_regular(path))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, not {_FORMAT}")
        for record in content["runs"].values():
            for small in record["results"].values():
                if "shared" in small:
                    common = content["shared"][small.pop("shared")]
                    small |= common | {"protocol": common["protocol"] | small.pop("own")}
        return {name: Record.from_json(record) for name, record in content["runs"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: holds no measurements ({error!r}); restore it from the repository") from error


def write_kept(folder: Path, dataset: str, records: Mapping[str, Record]) -> None:
    """Writes the records, results rounded to seven digits; what protocols share is written once, under its digest."""
    shared: dict[str, Any] = {}
    runs = {}
    for name, record in sorted(records.items()):
        content = record.to_json()
        results = {}
        for key, whole in sorted(content["results"].items()):
            results[key] = result = _rounded(whole)
            if protocol := result.pop("protocol", None):
                common = {"protocol": {name: value for name, value in protocol.items() if name not in _OWN}}
                common |= {name: result.pop(name) for name in ("label", "remarks") if name in result}
                digest = fingerprint(common)[:8]
                shared[digest] = common
                own = {name: protocol[name] for name in _OWN if name in protocol}
                results[key] = {"shared": digest, "own": own} | result
        # The training command says which run it was; how it was measured is in the protocols.
        runs[name] = content | {"commands": record.commands[:1], "results": results}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{dataset}.json", {"format": _FORMAT, "shared": dict(sorted(shared.items())), "runs": runs})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, Mapping):
        return {name: _rounded(inner) for name, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def read_peers(run: Path) -> dict[str, Any]:
    """What tests/benchmarks/pythae_samples.py measured of pythae's models beside a run of ours, by its key."""
    found = {}
    for path in sorted((run / "eval").glob("pythae-*.json")):
        try:
            result = json.loads(read_regular(path))
            found[f"pythae {result['model']} {result['components']} seed{result['seed']}"] = result
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: is no result of pythae_samples.py ({error!r}); delete it") from error
    return found


def keep_pictures(
    folder: Path, drawn: Collection[tuple[str, Path]], records: Mapping[str, Record], kept: Mapping[str, Record]
) -> None:
    """Copies pictures, (name of the training, path in its run folder) each, into `folder`.

    Earlier ones stay where there is no new one and the training is the same: `records` is what is known now, `kept`
    what was kept with the pictures.
    """
    for name, path in drawn:
        now, before = records.get(name), kept.get(name)
        own = read_record(path.parents[1]) if now and path.exists() else None
        # A run folder may hold another training of this name than the one that is known.
        if now and own and (own.configuration, own.data) == (now.configuration, now.data):
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / path.name, path.read_bytes())
        elif not (now and before and (now.configuration, now.data) == (before.configuration, before.data)):
            (folder / path.name).unlink(missing_ok=True)


def commit() -> str:
    """The commit of the code that runs, `-dirty` where the code was changed since; empty outside a repository."""
    name = _git("rev-parse", "--short=10", "HEAD")
    code = [f"{package}/*.py" for package in ("data_shards", "trainer", "eval")]
    return f"{name}-dirty" if name and _git("status", "--porcelain", "--untracked-files=no", "--", *code) else name


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
