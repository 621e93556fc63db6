"""The seam between what is learnt and how processes carry it out. DDP stands here; DeepSpeed joins through it."""

import contextlib
import warnings
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.config.config import Config
from trainer.engines.host_sum import HostSum, open_host_sum
from trainer.noise import rank_slice
from trainer.objectives.objective import Objective, Share
from trainer.process_group import Ranks
from trainer.updates.optimiser import adam_state, build_adam, load_adam_state, set_step_size


class StepResult(NamedTuple):
    """What one update tells, on the device and equal on every process."""

    sums: Tensor
    """(6,) float64 over the global batch: loss, log-likelihood, KL, square error; then `signals` over processes."""
    finite: Tensor
    """() bool: False where a loss or gradient was not finite, and the update was left out."""


class Engine(Protocol):
    """Carries out updates on an objective."""

    objective: Objective

    def step(self, share: Share, *, step_size: float, kl_weight: float, signals: tuple[float, float]) -> StepResult:
        """One update on the global batch of which `share` is this process's part.

        signals: numbers that all processes learn the sum of, in the same exchange as the losses.
        """

    def enter_stage2(self, floor: float) -> None:
        """Adds the variance head, and treats the optimiser as optimiser.at_switch says."""

    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers by name, whole, on the CPU of every process."""

    def optimiser_state(self) -> dict[str, Tensor]:
        """The whole optimiser's state by parameter name, on every process."""

    def load_optimiser_state(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what `optimiser_state` gave."""


def whole_batch_rows(objective: Objective, shares: list[Share], ranks: Ranks) -> Tensor | None:
    """(n, 2 D) rows of all processes, without gradient, for penalties that couple them; None where none does."""
    if not objective.needs_whole_batch:
        return None
    whole = torch.zeros(shares[0].rows, 2 * objective.model.latent_dim, device=ranks.device)
    with torch.no_grad():
        for share in shares:
            whole[share.start : share.start + len(share.images)] = objective.rows(share)
    # Zeros elsewhere: the sum over processes puts the rows together, exactly.
    return ranks.sum_(whole)


def micro_batches(share: Share, parts: int) -> list[Share]:
    """A share cut into `parts` of nearly equal size."""
    count = len(share.images)
    slices = [rank_slice(count, part, parts) for part in range(parts)]
    return [share._replace(images=share.images[rows], start=share.start + rows.start) for rows in slices]


def autocast(config: Config, device: torch.device) -> contextlib.AbstractContextManager:
    """The precision that the networks run in."""
    if config.engine.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


class DdpEngine:
    """A replica on each process. DistributedDataParallel sums gradients, or `HostSum` where it can."""

    def __init__(self, objective: Objective, config: Config, ranks: Ranks) -> None:
        self.objective, self.config, self.ranks = objective, config, ranks
        self._start()

    def _start(self) -> None:
        self.adam = build_adam(self.objective, self.config)
        self.parameters = [p for p in self.objective.parameters() if p.requires_grad]
        self.shared: HostSum | None = None
        if self.ranks.world_size > 1 and self.ranks.device.type == "cpu":
            self.shared = open_host_sum(self.ranks, sum(p.numel() for p in self.parameters))
        self.ddp = self._replicated() if self.ranks.world_size > 1 and self.shared is None else None
        self.replica: nn.Module = self.ddp or self.objective
        if self.config.engine.compile:
            self.replica = torch.compile(self.replica)  # type: ignore[assignment]

    def _replicated(self) -> DistributedDataParallel:
        on_gpu = self.ranks.device.type == "cuda"
        with warnings.catch_warnings():
            # torch 2.14 announces a successor of broadcast_buffers that older versions do not know.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            return DistributedDataParallel(
                self.objective,
                device_ids=[self.ranks.device.index] if on_gpu else None,
                broadcast_buffers=False,
                # Finding unused parameters keeps DDP from reordering its buckets after the first update, and with them
                # the order of gloo's sums: a resumed run must add in the order of the one that was not cut off.
                find_unused_parameters=not on_gpu,
                gradient_as_bucket_view=True,
            )

    def step(self, share: Share, *, step_size: float, kl_weight: float, signals: tuple[float, float]) -> StepResult:
        """One update; see `Engine`. Each process's loss is its sum over images, divided by the global count."""
        self.adam.zero_grad(set_to_none=True)
        parts = micro_batches(share, self.config.engine.grad_accumulation_steps)
        whole = whole_batch_rows(self.objective, parts, self.ranks)
        sums = torch.zeros(6, dtype=torch.float64, device=self.ranks.device)
        # DDP divides the sum of gradients by the number of processes.
        divided_by = 1 if self.ddp is None else self.ranks.world_size
        for number, part in enumerate(parts, start=1):
            with self.ddp.no_sync() if self.ddp and number < len(parts) else contextlib.nullcontext():
                with autocast(self.config, self.ranks.device):
                    terms = self.replica(part, kl_weight, whole)
                (terms.loss * (divided_by / share.rows)).backward()
            sums[:4] += terms.sums(len(parts) * self.ranks.world_size)
        sums[4:] = sums.new_tensor(signals)
        if self.shared is None:
            self.ranks.sum_(sums)
        else:
            self.shared.sum_([p.grad for p in self.parameters if p.grad is not None], sums)
        return StepResult(sums, self._update(step_size, sums[0]))

    def _update(self, step_size: float, loss: Tensor) -> Tensor:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = torch.isfinite(norm) & torch.isfinite(loss)
        if self.config.optimiser.max_grad_norm > 0:
            factor = (self.config.optimiser.max_grad_norm / (norm + 1e-6)).clamp_max(1.0)
            torch._foreach_mul_(gradients, factor)
        set_step_size(self.adam, step_size)
        # The fused kernel leaves everything untouched where found_inf is 1, without asking the host.
        self.adam.found_inf = (~finite).float().reshape(())  # type: ignore[attr-defined]
        self.adam.step()
        return finite

    def enter_stage2(self, floor: float) -> None:
        """Adds the variance head; the old parameters' moments are kept or dropped as optimiser.at_switch says."""
        kept = self.optimiser_state() if self.config.optimiser.at_switch == "keep" else {}
        self.objective.model.add_variance_head(floor)
        self._start()
        self.load_optimiser_state(kept)

    def weights(self) -> dict[str, Tensor]:
        """The replica's state; all are equal."""
        return {name: value.detach().cpu() for name, value in self.objective.model.state_dict().items()}

    def optimiser_state(self) -> dict[str, Tensor]:
        """Adam's moments by parameter name."""
        return adam_state(self.adam, self.objective)

    def load_optimiser_state(self, tensors: dict[str, Tensor]) -> None:
        """Puts Adam's moments back."""
        load_adam_state(self.adam, self.objective, tensors)
