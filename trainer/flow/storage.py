"""Where the flow of a run lies: RUN/flows/WEIGHTS/flow.safetensors, and summary.json, written last."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.flow.fitting import FittedFlow, FlowSettings
from trainer.flow.latent_flow import LatentFlow
from trainer.run_folder.tensor_folder import TensorFolder

FLOW = TensorFolder(noun="flow", tensors="flow.safetensors", record="summary.json")


def flow_folder(run: str | Path, weights: str = "final") -> Path:
    """RUN/flows/final or RUN/flows/stage1."""
    return Path(run) / "flows" / weights


def save_flow(folder: Path, fitted: FittedFlow, settings: FlowSettings, facts: dict[str, Any]) -> None:
    """Writes a fitted flow. facts: further entries of its summary."""
    held_out = {"nats": fitted.held_out, "standard_error": fitted.held_out_error, "of": "one sample of q(z|x)"}
    summary = {"settings": asdict(settings), "dim": fitted.flow.dim, "best_epoch": fitted.best_epoch}
    FLOW.write(folder, fitted.flow.state_dict(), summary | {"held_out": held_out} | facts)


def load_flow(run: str | Path, weights: str = "final") -> LatentFlow:
    """The flow of a run. Raises InputError where it was not fitted, or is damaged."""
    folder, stage = flow_folder(run, weights), "" if weights == "final" else f" --weights {weights}"
    tensors, summary = FLOW.read(folder, f"fit it with `python -m trainer.flow --run {run}{stage}`")
    try:
        settings = FlowSettings(**summary["settings"])
        flow = LatentFlow(summary["dim"], layers=settings.layers, width=settings.width, seed=settings.seed)
        flow.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise FLOW.damaged(folder, str(error)) from error
    return flow.eval()
