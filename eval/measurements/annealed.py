"""A tighter bound on log p(x) by annealed importance sampling (Neal 2001; for decoders, Wu et al. 2017).

Importance samples of q(z|x) hardly reach where the posterior p(z|x) is: of 20, fewer than 2 count. Here each is moved
from q(z|x) to the posterior through the densities q^(1 - b) p(x, z)^b, b from 0 to 1, by Hamiltonian Monte Carlo in the
units of q's deviations. The mean of the weights is p(x) without bias, so the log of the mean is below log p(x) on
average, as other importance-weighted bounds are.

Step sizes are adapted, for each image and each b, in a run of other noise before, so that the run that counts does not
depend on its own past.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.io.errors import at_least
from trainer.networks import Posterior
from trainer.noise import seeded_generator

LogJoint = Callable[[Tensor], Tensor]
"""Latents (B, D) of B images to log p(x, z), (B,), differentiable."""
_WANTED_ACCEPTANCE, _RATE, _FIRST_STEP = 0.8, 0.3, 0.5
# Trajectories of one length may come back to where they began; their steps vary by these factors.
_SHORTEST, _LONGEST = 0.5, 1.3


@dataclass(frozen=True, kw_only=True)
class Annealing:
    """How much is spent on an image."""

    steps: int = 100
    """Densities between q(z|x) and the posterior, at least 1."""
    leapfrog: int = 5
    """Steps of a trajectory; a decoding and its gradient each."""
    chains: int = 1
    """Independent weights of an image that are averaged; twice as many run."""

    def __post_init__(self) -> None:
        at_least(1, annealing=self.steps, leapfrog=self.leapfrog, chains=self.chains)


@dataclass(frozen=True, kw_only=True)
class Annealed:
    """The bound on B images."""

    bound: Tensor
    """log of the mean weight, (B,) float64 nats."""
    acceptance: Tensor
    """Mean chance of trajectories to be accepted, (B,) float64; far below 0.8 the bound is loose."""


def annealed_bound(
    posterior: Posterior, log_joint: LogJoint, indices: Sequence[int], annealing: Annealing, *, seed: int
) -> Annealed:
    """posterior: q(z|x), mean and std (B, D). The noise of an image is a function of (seed, its index) alone."""
    weights, accepted = [], []
    for chain in range(annealing.chains):
        sizes = torch.full_like(posterior.mean[:, 0], _FIRST_STEP).repeat(annealing.steps, 1)  # (steps, B)
        for run in ("pilot", "chain"):
            noise = _noise(posterior, indices, annealing, seed, f"annealing {run} {chain}")
            log_weight, acceptance, sizes = _run(posterior, log_joint, noise, sizes, annealing, adapt=run == "pilot")
        weights.append(log_weight)
        accepted.append(acceptance)
    return Annealed(
        bound=torch.logsumexp(torch.stack(weights), 0) - math.log(len(weights)),
        acceptance=torch.stack(accepted).mean(0),
    )


@dataclass(frozen=True, kw_only=True)
class _Noise:
    start: Tensor
    """(B, D), standard normal."""
    momentum: Tensor
    """(steps, B, D), standard normal."""
    uniform: Tensor
    """(steps, B), in 0 to 1."""
    length: Tensor
    """(steps, B), factors on step sizes."""


def _noise(posterior: Posterior, indices: Sequence[int], annealing: Annealing, seed: int, purpose: str) -> _Noise:
    steps, dim, like = annealing.steps, posterior.mean.shape[1], posterior.mean
    start, momentum, uniform, length = [], [], [], []
    for index in indices:
        generator = seeded_generator(seed, purpose, int(index))
        start.append(torch.randn(dim, generator=generator))
        momentum.append(torch.randn(steps, dim, generator=generator))
        uniform.append(torch.rand(steps, generator=generator))
        length.append(torch.rand(steps, generator=generator))
    return _Noise(
        start=torch.stack(start).to(like),
        momentum=torch.stack(momentum, 1).to(like),
        uniform=torch.stack(uniform, 1).to(like).clamp_min(1e-30),
        length=_SHORTEST + (_LONGEST - _SHORTEST) * torch.stack(length, 1).to(like),
    )


def _run(
    posterior: Posterior, log_joint: LogJoint, noise: _Noise, sizes: Tensor, annealing: Annealing, *, adapt: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log weights (B,), the accepted part (B,), and the step sizes (steps, B), adapted or as they were."""
    # In units of q's deviations: z = mean + std u, log q(z|x) = -|u|^2 / 2 + constant.
    constant = -(posterior.std.double().log() + 0.5 * math.log(2 * math.pi)).sum(1)
    temperatures = torch.linspace(0, 1, annealing.steps + 1, dtype=torch.float64).tolist()
    used = sizes.clone()
    step = used[0]
    u = noise.start
    joint, gradient = _evaluated(posterior, log_joint, u)
    log_weight, accepted = torch.zeros_like(joint), torch.zeros_like(joint)
    for number, (before, now) in enumerate(itertools.pairwise(temperatures)):
        log_weight = log_weight + (now - before) * (joint - (constant - 0.5 * u.double().square().sum(1)))
        if number == annealing.steps - 1:
            break  # at the posterior itself: moving on would change no weight
        step = step if adapt else used[number]
        used[number] = step
        moved, at_moved, chance = _trajectory(
            posterior,
            log_joint,
            (u, joint, gradient),
            noise.momentum[number],
            step * noise.length[number],
            now,
            annealing,
        )
        kept = noise.uniform[number].double() < chance
        u = torch.where(kept[:, None], moved, u)
        joint = torch.where(kept, at_moved[0], joint)
        gradient = torch.where(kept[:, None], at_moved[1], gradient)
        accepted += chance
        if adapt:
            step = step * torch.exp(_RATE * (chance - _WANTED_ACCEPTANCE)).to(step)
    return log_weight, accepted / max(1, annealing.steps - 1), used


def _trajectory(
    posterior: Posterior,
    log_joint: LogJoint,
    start: tuple[Tensor, Tensor, Tensor],
    momentum: Tensor,
    step: Tensor,
    temperature: float,
    annealing: Annealing,
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """The end of a leapfrog trajectory, its log p(x, z) with gradient, and the chance that it is accepted, (B,)."""

    def target(u: Tensor, joint: Tensor) -> Tensor:
        return temperature * joint - (1 - temperature) * 0.5 * u.double().square().sum(1)

    def force(u: Tensor, gradient: Tensor) -> Tensor:
        return temperature * gradient - (1 - temperature) * u

    u, joint, gradient = start
    size = step[:, None]
    before = target(u, joint) - 0.5 * momentum.double().square().sum(1)
    p = momentum + 0.5 * size * force(u, gradient)
    for leap in range(annealing.leapfrog):
        u = u + size * p
        joint, gradient = _evaluated(posterior, log_joint, u)
        p = p + (1.0 if leap < annealing.leapfrog - 1 else 0.5) * size * force(u, gradient)
    after = target(u, joint) - 0.5 * p.double().square().sum(1)
    # A trajectory that left the numbers has no density there.
    inside = after.isfinite() & gradient.isfinite().all(1)
    return u, (joint, gradient), torch.where(inside, (after - before).clamp_max(0).exp(), 0.0)


def _evaluated(posterior: Posterior, log_joint: LogJoint, u: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x, z) at z = mean + std u, (B,) float64, and its gradient by u, (B, D)."""
    with torch.enable_grad():
        there = u.detach().requires_grad_(True)
        joint = log_joint(posterior.mean + posterior.std * there).double()
        (gradient,) = torch.autograd.grad(joint.sum(), there)
    return joint.detach(), gradient
