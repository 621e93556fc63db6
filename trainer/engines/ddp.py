"""The engine with a replica on each process, whose gradients one sum over all processes adds up."""

from typing import Any

import torch
from torch import Tensor, nn

from trainer.config.config import Config
from trainer.engines.compilation import compiles
from trainer.engines.cpu import HostSum, open_host_sum
from trainer.engines.engine import (
    LearningRates,
    StepResult,
    adam_state,
    autocast,
    build_adam,
    load_adam_state,
    micro_batches,
    moments_at_switch,
    set_learning_rates,
    whole_batch_rows,
)
from trainer.engines.flat_sum import FlatSum
from trainer.objectives.objective import LocalBatch, Objective
from trainer.process_group import Ranks


class DdpEngine:
    """A replica on each process. On CPUs of one machine `HostSum` sums gradients, else `FlatSum`."""

    def __init__(self, objective: Objective, config: Config, ranks: Ranks) -> None:
        self.objective, self.config, self.ranks = objective, config, ranks
        self._weights: dict[int, Tensor] = {}
        self._start()

    def _start(self) -> None:
        self.adam = build_adam(self.objective, self.config)
        self.parameters = [p for p in self.objective.parameters() if p.requires_grad]
        self.host_sum: HostSum | None = None
        self.flat_sum: FlatSum | None = None
        if self.ranks.world_size > 1 and self.ranks.device.type == "cpu":
            self.host_sum = open_host_sum(self.ranks, sum(p.numel() for p in self.parameters))
        if self.ranks.world_size > 1 and self.host_sum is None:
            self.flat_sum = FlatSum(self.ranks, self.parameters)
        self.replica: nn.Module = self.objective
        if compiles(self.config, self.ranks.device):
            # One size of the batch, one compilation; the others run as they are. Without the option a measurement of
            # time decides in what form products are compiled, on each start anew.
            options: dict[str, Any] | None = {"deterministic": True} if self.config.engine.deterministic else None
            self.replica = torch.compile(self.objective, dynamic=False, options=options)  # type: ignore[assignment]

    def step(self, batch: LocalBatch, *, learning_rates: LearningRates, signals: Tensor) -> StepResult:
        """One update; see `Engine`. Each process's loss is its sum over images, divided by the global count."""
        self.adam.zero_grad(set_to_none=True)
        parts = micro_batches(batch, self.config.engine.grad_accumulation_steps)
        whole = whole_batch_rows(self.objective, parts)
        # The last batch of an epoch is short, and not worth a compilation of its own.
        module = self.replica if batch.rows == self.config.data.global_batch else self.objective
        weight, sums = self._weight(batch.rows), torch.zeros(0)
        for number, part in enumerate(parts):
            with autocast(self.config, self.ranks.device):
                terms = module(part, whole)
            terms.loss.backward(weight)
            own = terms.sums(len(parts) * self.ranks.world_size, signals if number == 0 else torch.zeros_like(signals))
            sums = own if number == 0 else sums.add_(own)
        return StepResult(sums, *self._update(learning_rates, sums[0], self._summed(sums)))

    def _weight(self, rows: int) -> Tensor:
        """1 / rows, () on the device: the gradient of the loss of an update by a sum over images."""
        if rows not in self._weights:  # kept, because a recorded update reads it where it lies
            self._weights[rows] = torch.full((), 1 / rows, device=self.ranks.device)
        return self._weights[rows]

    def _summed(self, sums: Tensor) -> list[Tensor]:
        """Adds gradients and `sums` over all processes; returns the gradients."""
        if self.flat_sum is not None:
            return self.flat_sum.sum_(sums)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.host_sum is not None:
            self.host_sum.sum_(gradients, sums)
        return gradients

    def _update(self, learning_rates: LearningRates, loss: Tensor, gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Clips the gradients and does Adam's step, unless loss or gradient is not finite.

        Returns whether they are, and the norm before clipping.
        """
        if len(gradients) == 1:
            norm = torch.linalg.vector_norm(gradients[0])
        else:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.config.optimiser.max_grad_norm > 0:
            factor = (self.config.optimiser.max_grad_norm / (norm + 1e-6)).clamp_max(1.0)
            torch._foreach_mul_(gradients, factor)
        set_learning_rates(self.adam, learning_rates)
        both = norm + loss
        finite = (both - both).logical_not()  # a number minus itself is 0, or NaN where it is not finite
        # The fused kernel changes nothing where found_inf is 1, and the host need not wait to know it.
        self.adam.found_inf = torch.logical_not(finite, out=torch.empty_like(norm))  # type: ignore[attr-defined]
        if self.ranks.device.type == "cuda":  # the fused kernel is the same; torch asks for the word
            recording = torch.cuda.is_current_stream_capturing()
            for group in self.adam.param_groups:
                group["capturable"] = recording
        self.adam.step()
        return finite, norm

    def enter_stage2(self, floor: float) -> None:
        """Adds the variance head; see `Engine`."""
        kept = moments_at_switch(self.optimiser_state(), self.config.optimiser)
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
