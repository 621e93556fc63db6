"""A normalising flow on latent codes: an invertible network with an exact density (Dinh et al. 2017), fit and folder.

A second-stage density to compare the mixture with. `python -m trainer.flow --run RUN [--weights stage1]` fits one
in one process; RUN/flows/WEIGHTS holds flow.safetensors, and summary.json, written last.
"""

import shlex

from data_shards.io.interruption import one_line_when_interrupted

if __name__ == "__main__":
    one_line_when_interrupted()  # the other imports take seconds

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from data_shards.io.configuration import Int, NonNegativeInt, PositiveFloat, PositiveInt, configuration
from data_shards.io.errors import InputError, OneLineParser, command
from data_shards.io.progress import Progress
from data_shards.io.seed_option import seed
from trainer.device import DEVICES, resolved_device
from trainer.full_precision import full_precision
from trainer.process_group import single
from trainer.run_folder import latents
from trainer.run_folder.holding import held_by_main
from trainer.run_folder.latents import WEIGHTS, Latents
from trainer.run_folder.tensor_folder import TensorFolder

FLOW = TensorFolder(noun="flow", tensors="flow.safetensors", record="summary.json")
# The logarithm of the largest factor of one layer on a latent; without a bound training may overflow.
_LOG_SCALE = 2.0


class Coupling(nn.Module):
    """Half of the latents scale and shift the other half: y = x * exp(s(kept)) + t(kept) where `mask` is 0."""

    mask: Tensor

    def __init__(self, mask: Tensor, width: int) -> None:
        """mask: (D,), 1 for the latents that are kept, 0 for those that are moved."""
        super().__init__()
        dim = len(mask)
        self.register_buffer("mask", mask)
        last = nn.Linear(width, 2 * dim)
        # The flow starts as the identity.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)

    def _scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.network(kept * self.mask).chunk(2, dim=1)
        moved = 1 - self.mask
        return _LOG_SCALE * torch.tanh(scale / _LOG_SCALE) * moved, shift * moved

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x, (n, D), to (y, log |dy/dx|), (n, D) and (n,)."""
        log_scale, shift = self._scale_and_shift(x)
        return x * log_scale.exp() + shift, log_scale.sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """The x that `forward` maps to y, (n, D)."""
        log_scale, shift = self._scale_and_shift(y)
        return (y - shift) * (-log_scale).exp()


class LatentFlow(nn.Module):
    """A density over latents of D dimensions: codes are centred and scaled, then coupled `layers` times.

    dim: D, at least 2; layers: couplings, each with another random half of the latents kept, its complement in the
    next; width: of their two hidden layers.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, dim: int, *, layers: int = 8, width: int = 128, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))
        masks: list[Tensor] = []
        for layer in range(layers):
            chosen = (torch.randperm(dim, generator=generator) < dim // 2).float()
            masks.append(1 - masks[-1] if layer % 2 else chosen)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.couplings = nn.ModuleList(Coupling(mask, width) for mask in masks)

    @property
    def dim(self) -> int:
        """D."""
        return len(self.centre)

    def set_scale(self, mean: Tensor, variance: Tensor) -> None:
        """Centres and scales by the mean and variance of the codes, (D,) each, before training."""
        self.centre.copy_(mean)
        self.spread.copy_(variance.sqrt())

    @full_precision()
    def score_samples(self, z: Tensor) -> Tensor:
        """Log-densities of latents (n, D) in nats, (n,)."""
        x = (z - self.centre) / self.spread
        log_det = -self.spread.log().sum()
        for coupling in self.couplings:
            x, gained = coupling(x)
            log_det = log_det + gained
        return log_det - 0.5 * (x.square().sum(1) + self.dim * math.log(2 * math.pi))

    @full_precision()
    @torch.no_grad()
    def transform(self, noise: Tensor) -> Tensor:
        """Latents (n, D) from standard normal noise (n, D)."""
        x = noise
        for coupling in reversed(self.couplings):
            x = coupling.inverse(x)  # type: ignore[operator]  # ModuleList forgets the class
        return x * self.spread + self.centre

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, (n, D) float32. generator: on the CPU."""
        return self.transform(torch.randn(n, self.dim, generator=generator).to(self.centre.device))


@configuration
class FlowSettings:
    """Settings of one fit."""

    layers: Annotated[Int, Field(ge=2)] = 8
    """Couplings; with two, every latent is moved."""
    width: PositiveInt = 128
    """Width of their hidden layers."""
    epochs: PositiveInt = 30
    """Passes over the codes; the learning rate falls to 0 over them."""
    batch: PositiveInt = 512
    """Codes of one update."""
    learning_rate: PositiveFloat = 2e-3
    """Learning rate of Adam at the start."""
    seed: NonNegativeInt = 0
    """Seed of the weights, the order of codes and their samples."""


@dataclass(frozen=True, kw_only=True)
class FittedFlow:
    """A flow with the weights of its best epoch."""

    flow: LatentFlow
    best_epoch: int
    """From 1."""
    held_out: float
    """Mean log-density of held-out codes there, one sample of each posterior; nats."""
    held_out_error: float
    """Its standard error over the codes."""


def fit_flow(
    codes: Latents,
    held_out: Latents,
    settings: FlowSettings,
    after: Callable[[int, float], None] = lambda epoch, nats: None,
    device: str | torch.device = "cpu",
) -> FittedFlow:
    """Maximises the mean log-density of z ~ q(z|x), a new sample of every posterior each epoch (equation 11).

    device: where it is fitted; codes and the noise of an epoch are copied there, and the fitted flow is on the CPU.
    after: called after each epoch with its number and the held-out mean in nats; the epoch with the highest mean gives
    the weights. Raises InputError where there are fewer than two latents, or no codes.
    """
    count, dim = codes.mean.shape
    if dim < 2 or not count or not len(held_out.index):
        raise InputError(f"flow: {count} codes of {dim} latents; it needs codes, held-out codes and 2 latents or more")
    flow = LatentFlow(dim, layers=settings.layers, width=settings.width, seed=settings.seed)
    flow.set_scale(codes.mean.mean(0), codes.mean.var(0, correction=0) + codes.std.square().mean(0))
    flow.to(device)
    generator = torch.Generator().manual_seed(settings.seed)
    validation = held_out.mean + held_out.std * torch.randn(held_out.mean.shape, generator=generator)
    validation, mean, std = validation.to(device), codes.mean.to(device), codes.std.to(device)
    optimiser = torch.optim.Adam(flow.parameters(), lr=settings.learning_rate)
    updates = settings.epochs * -(-count // settings.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    best: tuple[float, int, dict[str, Tensor], float] | None = None
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(count, generator=generator).split(settings.batch)
        drawn = torch.cat([torch.randn(len(rows), dim, generator=generator) for rows in order]).to(device)
        for rows, noise in zip(
            torch.cat(order).to(device).split(settings.batch), drawn.split(settings.batch), strict=True
        ):
            loss = -flow.score_samples(mean[rows] + std[rows] * noise).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            scores = flow.score_samples(validation).double()
        nats = float(scores.mean())
        after(epoch, nats)
        if best is None or nats > best[0]:
            state = {name: value.detach().clone() for name, value in flow.state_dict().items()}
            best = nats, epoch, state, float(scores.std() / len(scores) ** 0.5)
    if best is None:
        message = "the flow's density of held-out codes was never finite; use a smaller one"
        raise InputError(message, parameter="learning_rate")
    nats, epoch, state, error = best
    flow.load_state_dict(state)
    return FittedFlow(flow=flow.cpu().eval(), best_epoch=epoch, held_out=nats, held_out_error=error)


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
    except (KeyError, TypeError, RuntimeError) as error:
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
    """Fits a flow to the codes of split train of a run, with split valid held out, unless it was fitted already.

    settings: None for the defaults. device: one of DEVICES. steal_lock: takes the fit over from a process that works
    on it. Raises InputError where codes are missing, or another process fits this flow.
    """
    settings, device = settings or FlowSettings(), resolved_device(device)
    codes, held_out = (latents.read(run, split, weights=weights) for split in ("train", "valid"))
    folder = flow_folder(run, weights)
    facts = {"codes": latents.digest(codes)}
    found = FLOW.read_record(folder)
    if found is not None and found["codes"] == facts["codes"] and FlowSettings(**found["settings"]) == settings:
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
        save_flow(folder, fitted, settings, facts)
    return RunFlow(folder=folder, summary=FLOW.read_record(folder) or {}, is_new=True)


def parser() -> OneLineParser:
    """The command line."""
    parser = OneLineParser(
        prog="python -m trainer.flow",
        description="Fits a normalising flow to the latent codes of a run (see python -m eval encode) and writes "
        "RUN/flows/WEIGHTS. The same command again returns at once.",
    )
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--weights", choices=WEIGHTS, default="final", help="codes of these weights")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the codes (default 30)")
    parser.add_argument("--seed", type=seed, default=0, help="seed (default 0)")
    parser.add_argument(
        "--steal-lock", action="store_true", help="take a fit over from a process that works on it, which stops"
    )
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default auto: cuda where there is a GPU")
    return parser


def main() -> None:
    """Reads the command line, fits, prints."""
    args = parser().parse_args()
    fitted = fit_run_flow(
        args.run,
        FlowSettings(epochs=args.epochs, seed=args.seed),
        weights=args.weights,
        device=args.device,
        show_progress=True,
        steal_lock=args.steal_lock,
    )
    if fitted.is_new:
        held_out = fitted.summary["held_out"]
        nats, error = held_out["nats"], held_out["standard_error"]
        print(f"{fitted.folder}: log-likelihood {nats:.3f} +- {error:.3f} held out")
    else:
        print(f"{fitted.folder}: already fitted with these settings")


if __name__ == "__main__":
    sys.exit(command(main))
