"""Fitting a flow to latent codes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from data_shards.io.configuration import Int, NonNegativeInt, PositiveFloat, PositiveInt, configuration
from data_shards.io.errors import InputError
from trainer.flow.latent_flow import LatentFlow
from trainer.run_folder.latents import Latents


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
    held_out_error: float | None
    """Its standard error over the codes; None for a single one."""


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
    the weights. Raises InputError where there are fewer than two latents, no codes, codes that are not finite, or a
    latent that is the same in all of them, whose density has no bound.
    """
    count, dim = codes.mean.shape
    if dim < 2 or not count or not len(held_out.index):
        raise InputError(f"flow: {count} codes of {dim} latents; it needs codes, held-out codes and 2 latents or more")
    for split, of_split in (("codes", codes), ("held-out codes", held_out)):
        if not bool((of_split.mean.isfinite() & of_split.std.isfinite()).all()):
            raise InputError(f"flow: some {split} are NaN or infinite; encode them again, with weights that are finite")
    variance = codes.mean.var(0, correction=0) + codes.std.square().mean(0)
    if wrong := (~(variance.isfinite() & (variance > 0))).nonzero().flatten().tolist():
        raise InputError(
            f"flow: the variance of latent {wrong[0]} over the codes is {variance[wrong[0]]:g}, and a flow needs a "
            "finite one above 0; fit a mixture: python -m trainer.mixture"
        )
    flow = LatentFlow(dim, layers=settings.layers, width=settings.width, seed=settings.seed)
    flow.set_scale(codes.mean.mean(0), variance)
    flow.to(device)
    generator = torch.Generator().manual_seed(settings.seed)
    validation = held_out.mean + held_out.std * torch.randn(held_out.mean.shape, generator=generator)
    validation, mean, std = validation.to(device), codes.mean.to(device), codes.std.to(device)
    optimiser = torch.optim.Adam(flow.parameters(), lr=settings.learning_rate)
    updates = settings.epochs * -(-count // settings.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    best: tuple[float, int, dict[str, Tensor], float | None] | None = None
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
        if math.isfinite(nats) and (best is None or nats > best[0]):
            state = {name: value.detach().clone() for name, value in flow.state_dict().items()}
            error = float(scores.std() / len(scores) ** 0.5) if len(scores) > 1 else None
            best = nats, epoch, state, error
    if best is None:
        message = "the flow's density of held-out codes was never finite; use a smaller one"
        raise InputError(message, parameter="learning_rate")
    nats, epoch, state, error = best
    flow.load_state_dict(state)
    return FittedFlow(flow=flow.cpu().eval(), best_epoch=epoch, held_out=nats, held_out_error=error)
