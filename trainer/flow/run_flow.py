"""The flow of a run: fitted once to its latent codes, and kept in its folder.

RUN/flows/WEIGHTS holds flow.safetensors, and summary.json, written last.
"""

import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from trainer.device import resolved_device
from trainer.flow.fit import FittedFlow, FlowSettings, fit_flow
from trainer.flow.latent_flow import LatentFlow
from trainer.process_group import single
from trainer.run_folder import latents
from trainer.run_folder.configurations import own_splits
from trainer.run_folder.holding import held_by_main
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
    tensors, summary = FLOW.read(folder, f"fit it with `python -m trainer.flow --run {shlex.quote(str(run))}{stage}`")
    try:
        settings = FlowSettings(**summary["settings"])
        flow = LatentFlow(summary["dim"], layers=settings.layers, width=settings.width, seed=settings.seed)
        flow.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, InputError) as error:
        raise FLOW.damaged(folder, str(error)) from error
    return flow.eval()


@dataclass(frozen=True, kw_only=True)
class RunFlow:
    """A fitted flow of a run."""

    folder: Path
    """RUN/flows/WEIGHTS."""
    summary: dict[str, Any]
    """The content of its summary.json."""
    is_new: bool
    """False where it was there already."""


def fit_run_flow(
    run: str | Path,
    settings: FlowSettings | None = None,
    *,
    weights: str = "final",
    device: str = "auto",
    show_progress: bool = False,
    steal_lock: bool = False,
) -> RunFlow:
    """Fits a flow to the codes of a run's training split, unless it was fitted already; its held-out split is held out.

    settings: None for the defaults. device: one of DEVICES. steal_lock: takes the fit over from a process that works
    on it. Raises InputError where codes are missing, or another process fits this flow.
    """
    settings, device = settings or FlowSettings(), resolved_device(device)
    origins = latents.origins(run, weights=weights)
    codes, held_out = (latents.read(run, split, weights=weights) for split in own_splits(run))
    folder = flow_folder(run, weights)
    facts = {"codes": latents.digest(codes), "held_out_codes": latents.digest(held_out)}
    if (found := _fitted_before(run, weights, settings, facts)) is not None:
        return RunFlow(folder=folder, summary=found, is_new=False)
    with (
        held_by_main(folder, single(), steal=steal_lock) as held,
        Progress("flow", settings.epochs, "epochs", show=show_progress) as bar,
    ):
        bar.update(0)
        after = lambda epoch, nats: bar.update(epoch, nats=f"{nats:.3f}")  # noqa: E731
        fitted = fit_flow(codes, held_out, settings, after, device)
        if held is not None:
            held.check()
        save_flow(folder, fitted, settings, facts | {"codes_from": origins})
    return RunFlow(folder=folder, summary=FLOW.read_record(folder) or {}, is_new=True)


def _fitted_before(
    run: str | Path, weights: str, settings: FlowSettings, facts: dict[str, Any]
) -> dict[str, Any] | None:
    """The summary of the flow of a run where it is whole and of these settings and codes; None where it is not.

    A damaged one is named. One of an earlier version does not say which codes were held out.
    """
    folder = flow_folder(run, weights)
    try:
        found = FLOW.read_record(folder)
        if found is None or FlowSettings(**found["settings"]) != settings:
            return None
        if any(({"held_out_codes": facts["held_out_codes"]} | found)[name] != value for name, value in facts.items()):
            return None
        load_flow(run, weights)
    except (InputError, KeyError, TypeError) as error:
        print(f"warning: {folder}: the flow there cannot be used ({error}); it is fitted again", file=sys.stderr)
        return None
    return found
