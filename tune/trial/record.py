"""What is known of a trial, read from its run folder: a flat record for the report, whatever state the trial is in."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from data_shards.io.atomic import write_json
from eval.run import read_result
from trainer.run_folder.checkpoint import complete_checkpoints
from trainer.run_folder.log import read_events
from tune.search.trials import failure, load_trial

Record = dict[str, Any]
ATTEMPTS, _OUTCOME = "attempts.jsonl", "outcome.json"


def headline(folder: Path) -> Record:
    """The numbers that rank a trial and that a search learns from.

    images: seen in all; elbo: held out, at the closed-form sigma, nats per image; fd: of samples of the final weights;
    cost: seconds of training. What was not measured is left out.
    """
    record = trial_record(folder)
    names = {"images": "images", "elbo": "final_elbo", "fd": "fd_final", "cost": "seconds", "stage": "stage"}
    return {name: record[key] for name, key in names.items() if record[key] is not None}


def note_outcome(folder: Path, status: str, reason: str) -> None:
    """Writes how a trial ended: finished, stopped or failed, and why."""
    write_json(folder / _OUTCOME, {"status": status, "reason": reason})


def has_outcome(folder: Path) -> bool:
    """True where it has been written how the trial ended."""
    return (folder / _OUTCOME).exists()


def trial_record(folder: Path) -> Record:
    """All that the report tells of a trial. Keys are always the same; None stands for what is not known (yet).

    Seconds and images a second include the held-out checks, and leave out the start and the measuring at the end.
    """
    trial, events = load_trial(folder), read_events(folder)
    train = [event for event in events if event["event"] == "train"]
    checks = [event for event in events if event["event"] == "valid"]
    record: Record = {
        "trial": trial.name,
        "phase": trial.phase,
        "number": trial.number,
        "seed": trial.seed,
        "fields": trial.fields,
        **_outcome(folder),
        "parameters": _parameters(folder),
        "images": max((event["images"] for event in events), default=0),
        "stage": next((event["stage"] for event in reversed(events) if "stage" in event), None),
        "seconds": sum(event["seconds"] for event in train) if train else None,
        "peak_memory_mib": max((event["peak_memory_mib"] for event in train), default=None),
        "retries": max(0, _lines(folder / ATTEMPTS) - 1),
        "checks": [(event["images"], event["elbo_at_closed_form"]) for event in checks],
        "final_elbo": checks[-1]["elbo_at_closed_form"] if checks else None,
    }
    seconds = record["seconds"]
    record["images_per_second"] = record["images"] / seconds if seconds else None
    for stage in (1, 2):
        record |= _stage(stage, train, events)
    for key, weights, source in (
        ("fd_stage1", "stage1", ("q_hat", "prior")),
        ("fd_final", "final", ("q_hat", "prior")),
        ("fd_reconstruction", "final", ("reconstruction",)),
    ):
        record[key] = _distance(folder, weights, source)
    for key, name in (("iwae_stage1", "likelihood-stage1.json"), ("iwae_final", "likelihood.json")):
        record[key] = _likelihood(folder / "eval" / name)
    return record


def _outcome(folder: Path) -> Record:
    if reason := failure(folder):
        return {"status": "failed", "reason": reason}
    path = folder / _OUTCOME
    return json.loads(path.read_text()) if path.exists() else {"status": "unfinished", "reason": ""}


def _stage(stage: int, train: list[Record], events: list[Record]) -> Record:
    """Images, seconds and reason of a stage, and what was measured when it ended."""
    own = [event for event in train if event["stage"] == stage]
    end = next((e for e in events if e["event"] == "stage_end" and e["stage"] == stage), {})
    names = {"reason": "reason", "end_images": "images", "images": "stage_images", "sigma2": "sigma2", "kl": "kl"}
    names |= {"active_dimensions": "active_dimensions", "elbo": "elbo_at_closed_form"}
    return {f"stage{stage}_{name}": end.get(key) for name, key in names.items()} | {
        f"stage{stage}_seconds": sum(event["seconds"] for event in own) if own else None
    }


def _parameters(folder: Path) -> int | None:
    """Numbers that are learnt, counted in the newest checkpoint; buffers of a few numbers are counted with them."""
    checkpoints = complete_checkpoints(folder)
    if not checkpoints:
        return None
    total = 0
    with safe_open(checkpoints[-1] / "model.safetensors", framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            count = 1
            for side in file.get_slice(name).get_shape():
                count *= side
            total += count
    return total


def _distance(folder: Path, weights: str, sources: tuple[str, ...]) -> float | None:
    for path in sorted((folder / "eval").glob("fid-*.json")):
        result = read_result(path)
        if result["protocol"]["weights"] == weights and result["protocol"]["source"] in sources:
            return float(result["values"]["frechet_distance"]["value"])
    return None


def _likelihood(path: Path) -> float | None:
    if not path.exists():
        return None
    values = read_result(path)["values"]
    name = "iwae_q_hat" if "iwae_q_hat" in values else "iwae_prior"
    return float(values[name]["value"])


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0
