"""The engine with a replica on each process, whose gradients DistributedDataParallel or shared memory sums."""

import contextlib
import warnings

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.config.config import Config
from trainer.engines.cpu import HostSum, open_host_sum
from trainer.engines.engine import (
    StepResult,
    adam_state,
    autocast,
    build_adam,
    load_adam_state,
    micro_batches,
    set_learning_rate,
    whole_batch_rows,
)
from trainer.objectives.objective import LocalBatch, Objective
from trainer.process_group import Ranks


class DdpEngine:
    """A replica on each process. On CPUs of one machine `HostSum` sums gradients, else DistributedDataParallel."""

    def __init__(self, objective: Objective, config: Config, ranks: Ranks) -> None:
        self.objective, self.config, self.ranks = objective, config, ranks
        self._start()

    def _start(self) -> None:
        self.adam = build_adam(self.objective, self.config)
        self.parameters = [p for p in self.objective.parameters() if p.requires_grad]
        self.host_sum: HostSum | None = None
        if self.ranks.world_size > 1 and self.ranks.device.type == "cpu":
            self.host_sum = open_host_sum(self.ranks, sum(p.numel() for p in self.parameters))
        self.ddp = self._replicated() if self.ranks.world_size > 1 and self.host_sum is None else None
        self.replica: nn.Module = self.ddp or self.objective
        compiled = self.config.engine.compile
        if compiled is True or (compiled == "auto" and self.ranks.device.type == "cuda"):
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
                # With unused parameters to find, DDP does not reorder its buckets after the first update. Reordering
                # changes the order of gloo's sums, and so the bits of a resumed run.
                find_unused_parameters=not on_gpu,
                gradient_as_bucket_view=True,
            )

    def step(
        self, batch: LocalBatch, *, learning_rate: float, kl_weight: float, signals: tuple[float, float]
    ) -> StepResult:
        """One update; see `Engine`. Each process's loss is its sum over images, divided by the global count."""
        self.adam.zero_grad(set_to_none=True)
        parts = micro_batches(batch, self.config.engine.grad_accumulation_steps)
        whole = whole_batch_rows(self.objective, parts)
        sums = torch.zeros(6, dtype=torch.float64, device=self.ranks.device)
        # DDP divides the sum of gradients by the number of processes.
        divided_by = 1 if self.ddp is None else self.ranks.world_size
        for number, part in enumerate(parts, start=1):
            with self.ddp.no_sync() if self.ddp and number < len(parts) else contextlib.nullcontext():
                with autocast(self.config, self.ranks.device):
                    terms = self.replica(part, kl_weight, whole)
                (terms.loss * (divided_by / batch.rows)).backward()
            sums[:4] += terms.sums(len(parts) * self.ranks.world_size)
        sums[4:] = sums.new_tensor(signals)
        if self.host_sum is None:
            self.ranks.sum_(sums)
        else:
            self.host_sum.sum_([p.grad for p in self.parameters if p.grad is not None], sums)
        finite, norm = self._update(learning_rate, sums[0])
        return StepResult(sums, finite, norm)

    def _update(self, learning_rate: float, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Clips the gradients and does Adam's step, unless loss or gradient is not finite.

        Returns whether they are, and the norm before clipping.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = torch.isfinite(norm) & torch.isfinite(loss)
        if self.config.optimiser.max_grad_norm > 0:
            factor = (self.config.optimiser.max_grad_norm / (norm + 1e-6)).clamp_max(1.0)
            torch._foreach_mul_(gradients, factor)
        set_learning_rate(self.adam, learning_rate)
        # The fused kernel changes nothing where found_inf is 1, and the host need not wait to know it.
        self.adam.found_inf = (~finite).float().reshape(())  # type: ignore[attr-defined]
        self.adam.step()
        return finite, norm

    def enter_stage2(self, floor: float) -> None:
        """Adds the variance head; see `Engine`."""
        kept = self.optimiser_state() if self.config.optimiser.at_switch == "keep" else {}
        self.objective.model.add_variance_head(floor)
        self._start()
        self.load_optimiser_state(kept)

    def weights(self) -> dict[str, Tensor]:
        """The replica's state; all replicas are equal."""
        return {name: value.detach() for name, value in self.objective.model.state_dict().items()}

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        """Replaces the replica's state in place, so that the optimiser goes on with the same parameters."""
        self.objective.model.load_state_dict(tensors)

    def optimiser_state(self) -> dict[str, Tensor]:
        """Adam's moments by parameter name."""
        return adam_state(self.adam, self.objective)

    def load_optimiser_state(self, tensors: dict[str, Tensor]) -> None:
        """Restores Adam's moments."""
        load_adam_state(self.adam, self.objective, tensors)
