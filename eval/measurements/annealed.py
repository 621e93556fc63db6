"""A tighter bound on log p(x) by annealed importance sampling (Neal 2001; for decoders, Wu et al. 2017).

Importance samples of q(z|x) hardly reach where the posterior p(z|x) is: of 20, fewer than 2 count. Here each is moved
from q(z|x) to the posterior through the densities q^(1 - b) p(x, z)^b, b from 0 to 1, by Hamiltonian Monte Carlo in the
units of q's deviations. The mean of the weights is p(x) without bias, so the log of the mean is below log p(x) on
average, as other importance-weighted bounds are.

Step sizes are adapted, for each image and each b, in a run of other noise before, so that the run that counts does not
depend on its own past. Memory does not grow with the number of densities, but for the step sizes of each.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.io.errors import at_least
from eval.residuals.noise import CorrelatedNoise
from trainer.networks.model import Likelihood, Posterior
from trainer.noise import seeded_generator
from trainer.objectives.families import log_likelihood

LogJoint = Callable[[Tensor], Tensor]
"""Latents (B, D) of B images to log p(x, z), (B,), differentiable."""
# Raised where the same settings give another number.
_VERSION = 1
_WANTED_ACCEPTANCE, _RATE, _FIRST_STEP = 0.8, 0.3, 0.5
# Trajectories of one length may come back to where they began; their steps vary by these factors.
_SHORTEST, _LONGEST = 0.5, 1.3
# Densities whose noise is held at a time.
_DRAWN_TOGETHER = 64


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

    @property
    def decodings(self) -> int:
        """Of an image, each with its gradient."""
        return 2 * self.chains * (1 + (self.steps - 1) * self.leapfrog)

    def record(self) -> dict[str, int]:
        """What a bound depends on, for its protocol."""
        return {"version": _VERSION, "steps": self.steps, "leapfrog": self.leapfrog, "chains": self.chains}


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
            noise = _Noise(posterior, [seeded_generator(seed, f"annealing {run} {chain}", int(i)) for i in indices])
            log_weight, acceptance, sizes = _run(posterior, log_joint, noise, sizes, annealing, adapt=run == "pilot")
        weights.append(log_weight)
        accepted.append(acceptance)
    return Annealed(
        bound=torch.logsumexp(torch.stack(weights), 0) - math.log(len(weights)),
        acceptance=torch.stack(accepted).mean(0),
    )


def joint_density(
    decode: Callable[[Tensor], Likelihood],
    x: Tensor,
    prior: Callable[[Tensor], Tensor],
    correlated: CorrelatedNoise | None = None,
) -> LogJoint:
    """log p(x, z) = log p(x|z) + log prior(z) of images (B, C, H, W) in [0, 1].

    prior: latents (B, D) to log-densities (B,); correlated: the noise of pixels, None where they are independent.
    """
    images = x.double()

    def joint(z: Tensor) -> Tensor:
        decoded = decode(z)
        decoded = decoded._replace(mean=decoded.mean.double(), variance=decoded.variance.double())
        given_z = correlated.log_likelihood(images, z, decoded) if correlated else log_likelihood(images, decoded)
        return given_z + prior(z)

    return joint


ANNEALED_UNITS = {"annealed": "nats per image", "acceptance": "of 1"}
"""Of the bound for a density over the latents, and of the accepted part of trajectories."""


def annealed_values(
    posterior: Posterior, joints: Sequence[LogJoint], indices: Sequence[int], annealing: Annealing, *, seed: int
) -> Tensor:
    """The numbers of ANNEALED_UNITS under each of several densities, (B, 2 * joints), float64."""
    found = [annealed_bound(posterior, joint, indices, annealing, seed=seed) for joint in joints]
    return torch.stack([value for one in found for value in (one.bound, one.acceptance)], dim=1)


@dataclass(frozen=True, kw_only=True)
class _Move:
    """The noise of one trajectory."""

    momentum: Tensor
    """(B, D), standard normal."""
    uniform: Tensor
    """(B,), in 0 to 1."""
    length: Tensor
    """(B,), factors on step sizes."""


class _Noise:
    """The noise of one run, drawn as it goes on: of each image from a generator of its own."""

    def __init__(self, posterior: Posterior, generators: Sequence[torch.Generator]) -> None:
        self._like, self._generators = posterior.mean, generators

    def start(self) -> Tensor:
        """(B, D), standard normal."""
        return torch.stack([self._normal(g, 1)[0] for g in self._generators]).to(self._like)

    def moves(self, count: int) -> Iterator[_Move]:
        """`count` of them."""
        for begin in range(0, count, _DRAWN_TOGETHER):
            steps = min(_DRAWN_TOGETHER, count - begin)
            drawn = [(self._normal(g, steps), torch.rand(2, steps, generator=g)) for g in self._generators]
            momentum = torch.stack([normal for normal, _ in drawn], 1).to(self._like)  # (steps, B, D)
            uniform, length = torch.stack([pair for _, pair in drawn], 2).to(self._like)  # (steps, B) each
            for step in range(steps):
                yield _Move(
                    momentum=momentum[step],
                    uniform=uniform[step].clamp_min(1e-30),
                    length=_SHORTEST + (_LONGEST - _SHORTEST) * length[step],
                )

    def _normal(self, generator: torch.Generator, steps: int) -> Tensor:
        return torch.randn(steps, self._like.shape[1], generator=generator)


def _run(
    posterior: Posterior, log_joint: LogJoint, noise: _Noise, sizes: Tensor, annealing: Annealing, *, adapt: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log weights (B,), the accepted part (B,), and the step sizes (steps, B), adapted or as they were."""
    # In units of q's deviations: z = mean + std u, log q(z|x) = -|u|^2 / 2 + constant.
    constant = -(posterior.std.double().log() + 0.5 * math.log(2 * math.pi)).sum(1)
    temperatures = torch.linspace(0, 1, annealing.steps + 1, dtype=torch.float64).tolist()
    used = sizes.clone()
    step = used[0]
    u, moves = noise.start(), noise.moves(annealing.steps - 1)
    joint, gradient = _evaluated(posterior, log_joint, u)
    log_weight, accepted = torch.zeros_like(joint), torch.zeros_like(joint)
    for number, (before, now) in enumerate(itertools.pairwise(temperatures)):
        log_weight = log_weight + (now - before) * (joint - (constant - 0.5 * u.double().square().sum(1)))
        if number == annealing.steps - 1:
            break  # at the posterior itself: moving on would change no weight
        step = step if adapt else used[number]
        used[number] = step
        move = next(moves)
        moved, at_moved, chance = _trajectory(
            posterior, log_joint, (u, joint, gradient), move.momentum, step * move.length, now, annealing
        )
        kept = move.uniform.double() < chance
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
