"""Where the flow of a run lies: RUN/flows/WEIGHTS/flow.safetensors, and summary.json, written last."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from data_shards.io.atomic import write_bytes, write_json
from data_shards.io.errors import InputError
from trainer.flow.fitting import FittedFlow, FlowSettings
from trainer.flow.latent_flow import LatentFlow

_TENSORS, _SUMMARY = "flow.safetensors", "summary.json"


def flow_folder(run: str | Path, weights: str = "final") -> Path:
    """RUN/flows/final or RUN/flows/stage1."""
    return Path(run) / "flows" / weights


def save_flow(folder: Path, fitted: FittedFlow, settings: FlowSettings, facts: dict[str, Any]) -> None:
    """Writes a fitted flow. facts: what else its summary is to say."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SUMMARY).unlink(missing_ok=True)
    write_bytes(folder / _TENSORS, save({name: value.contiguous() for name, value in fitted.flow.state_dict().items()}))
    held_out = {"nats": fitted.held_out, "standard_error": fitted.held_out_error, "of": "one sample of q(z|x)"}
    summary = {"settings": asdict(settings), "dim": fitted.flow.dim, "best_epoch": fitted.best_epoch}
    write_json(folder / _SUMMARY, summary | {"held_out": held_out} | facts)


def flow_summary(folder: Path) -> dict[str, Any] | None:
    """What was said of a fitted flow, or None where there is none."""
    path = folder / _SUMMARY
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def load_flow(run: str | Path, weights: str = "final") -> LatentFlow:
    """The flow of a run. Raises InputError where it was not fitted, or is damaged."""
    folder = flow_folder(run, weights)
    summary = flow_summary(folder)
    if summary is None:
        stage = "" if weights == "final" else f" --weights {weights}"
        raise InputError(f"{folder}: no flow is here; fit it with `python -m trainer.flow --run {run}{stage}`")
    settings = FlowSettings(**summary["settings"])
    flow = LatentFlow(summary["dim"], layers=settings.layers, width=settings.width, seed=settings.seed)
    try:
        flow.load_state_dict(load((folder / _TENSORS).read_bytes()))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{folder}: the flow is damaged ({error}); delete the folder and fit it again") from error
    return flow.eval()
