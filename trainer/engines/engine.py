"""The seam between what is learnt and how processes compute it: an engine does updates on an objective.

Below it is what engines share: Adam with its state by parameter name, which any engine can load, and parts of a batch.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from data_shards.io.partition import partition
from trainer.config.config import Config
from trainer.config.sections import OptimiserConfig
from trainer.objectives.objective import LocalBatch, Objective, rows_of_all_ranks

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Adam's learning rates for an update, all above 0; on a GPU they may lie there, () float32 each."""

    networks: float | Tensor
    """Of all that stage 1 has but log sigma^2."""
    log_variance: float | Tensor
    """Of log sigma^2, where it is learnt by gradients."""
    variance_head: float | Tensor
    """Of the head that stage 2 adds."""


class StepResult(NamedTuple):
    """The result of one update, on the device and equal on every process."""

    sums: Tensor
    """(6,) float64 over the global batch: loss, log-likelihood, KL, square error; then `signals` over processes."""
    finite: Tensor
    """() bool: False where a loss or gradient was not finite, and the update was skipped."""
    gradient_norm: Tensor
    """() Euclidean norm of the gradient of all weights before clipping; NaN where the engine does not know it."""


class Engine(Protocol):
    """Does updates on an objective."""

    objective: Objective

    def step(self, batch: LocalBatch, *, learning_rates: LearningRates, signals: Tensor) -> StepResult:
        """One update on the global batch of which `batch` is this process's part.

        signals: (2,) float32 on the device, summed over processes together with the losses.
        """

    def enter_stage2(self, floor: float) -> None:
        """Adds the variance head with this floor; the moments are as `moments_at_switch` says."""

    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers by name, whole, on every process; the next update may change them."""

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        """Replaces all parameters and buffers, as `weights` returns them; the optimiser's state stays."""

    def optimiser_state(self) -> dict[str, Tensor]:
        """The whole optimiser's state by parameter name, on every process; the next update may change it."""

    def load_optimiser_state(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `optimiser_state` returned."""


def whole_batch_rows(objective: Objective, parts: list[LocalBatch]) -> Tensor | None:
    """(n, W) rows of all processes, without gradient, for a penalty on a batch that is cut into micro-batches.

    parts: the local batch of this process. None without a penalty, and for one part, whose own pass gives the rows:
    the encoder runs once then, and batch norm's running moments move once. For several the encoder runs a second time,
    with gradients: to keep the activations of all parts would take the memory that parts save.
    """
    if objective.penalty is None or len(parts) == 1:
        return None
    with torch.no_grad():
        rows = torch.cat([objective.penalty_rows(part) for part in parts])
    return rows_of_all_ranks(rows, parts[0])


def micro_batches(batch: LocalBatch, count: int) -> list[LocalBatch]:
    """A local batch cut into `count` of nearly equal size."""
    cuts = [partition(len(batch.images), part, count) for part in range(count)]
    return [
        batch._replace(
            images=batch.images[cut.start : cut.stop],
            noise=batch.noise[cut.start : cut.stop],
            start=batch.start + cut.start,
        )
        for cut in cuts
    ]


def autocast(config: Config, device: torch.device) -> contextlib.AbstractContextManager:
    """The precision that the networks run in."""
    precision = lower_precision(config, device)
    return contextlib.nullcontext() if precision is None else torch.autocast(device.type, dtype=precision)


def lower_precision(config: Config, device: torch.device) -> torch.dtype | None:
    """The number format that the networks run in beside float32, by engine.precision; None where there is none."""
    precision = config.engine.precision
    if precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        precision = "bf16"
    return torch.bfloat16 if precision == "bf16" else None


def named_parameters(objective: Objective) -> dict[str, torch.nn.Parameter]:
    """The parameters that are learnt by gradients, in a fixed order."""
    return {name: p for name, p in objective.model.named_parameters() if p.requires_grad}


def parameter_groups(objective: Objective) -> list[dict[str, Any]]:
    """Groups for Adam: the networks, log sigma^2 with its own learning rate, the variance head of stage 2.

    The head has its own group because it has taken fewer steps. `rate` is the field of `LearningRates` for a group.
    """
    found: dict[str, list[torch.nn.Parameter]] = {"networks": [], "log_variance": [], "to_variance": []}
    for name, parameter in named_parameters(objective).items():
        found[name.split(".")[0] if name.split(".")[0] in found else "networks"].append(parameter)
    rates = {"to_variance": "variance_head"}
    return [{"params": group, "rate": rates.get(name, name)} for name, group in found.items() if group]


def build_adam(objective: Objective, config: Config) -> torch.optim.Adam:
    """Adam in one fused kernel, which was the fastest form on CPU and GPU."""
    return torch.optim.Adam(
        parameter_groups(objective),
        lr=config.optimiser.learning_rate,
        betas=config.optimiser.betas,
        fused=True,
    )


def set_learning_rates(adam: torch.optim.Optimizer, rates: LearningRates) -> None:
    """Sets the learning rate of every group, rounded to float32, which is how a GPU takes one that lies there."""
    for group in adam.param_groups:
        rate = getattr(rates, group["rate"])
        group["lr"] = rate if isinstance(rate, Tensor) else float(np.float32(rate))


def moments_at_switch(moments: dict[str, Tensor], optimiser: OptimiserConfig) -> dict[str, Tensor]:
    """The optimiser's state with which stage 2 begins, by optimiser.at_switch. moments: that at the end of stage 1.

    `shorten` leaves Adam's estimates of the gradient's mean and mean square as they are, but lets them count as means
    over no more updates than the first moment looks back over, 1 / (1 - beta_1). Otherwise the mean square, which looks
    back over 1 / (1 - beta_2) updates, would take about as many to follow the gradients of the new loss.
    """
    if optimiser.at_switch != "shorten":
        return moments if optimiser.at_switch == "keep" else {}
    found = dict(moments)
    longest = max(1, round(1 / (1 - optimiser.betas[0])))
    for name, steps in moments.items():
        kind, _, parameter = name.partition("/")
        if kind != "step" or steps <= longest:
            continue
        found[name] = torch.full_like(steps, longest)
        for moment, beta in zip(("exp_avg", "exp_avg_sq"), optimiser.betas, strict=True):
            key = f"{moment}/{parameter}"
            # Adam divides a moment by 1 - beta^steps; that quotient stays.
            found[key] = moments[key] * ((1 - beta**longest) / (1 - beta ** steps.item()))
    return found


def adam_state(adam: torch.optim.Optimizer, objective: Objective) -> dict[str, Tensor]:
    """The moments and step counts as {"exp_avg/NAME": tensor, ...}."""
    found = {}
    for name, parameter in named_parameters(objective).items():
        for moment, value in adam.state.get(parameter, {}).items():
            found[f"{moment}/{name}"] = value.detach()
    return found


def load_adam_state(adam: torch.optim.Optimizer, objective: Objective, tensors: dict[str, Tensor]) -> None:
    """Restores what `adam_state` returned. Parameters without saved moments start without moments."""
    for name, parameter in named_parameters(objective).items():
        saved = {moment: tensors[f"{moment}/{name}"] for moment in _MOMENTS if f"{moment}/{name}" in tensors}
        if saved:
            adam.state[parameter] = {moment: _like(value, parameter) for moment, value in saved.items()}


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy on the parameter's device in its memory layout, which the fused kernel relies on."""
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)  # the step count
    return torch.empty_like(parameter).copy_(value)
