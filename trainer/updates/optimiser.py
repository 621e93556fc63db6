"""Adam over the parameters of an objective, its step size, and its state under names that outlive a process."""

import math
from typing import Any

import torch
from torch import Tensor

from trainer.config.config import Config
from trainer.objectives.objective import Objective

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def named_parameters(objective: Objective) -> dict[str, torch.nn.Parameter]:
    """The parameters that are learnt by gradients, in a fixed order."""
    return {name: p for name, p in objective.model.named_parameters() if p.requires_grad}


def parameter_groups(objective: Objective, config: Config) -> list[dict[str, Any]]:
    """Groups for Adam: the networks, log sigma^2 with a step size of its own, the variance head of stage 2.

    The head has a group to itself because it has taken fewer steps; `share` scales the schedule.
    """
    found: dict[str, list[torch.nn.Parameter]] = {"networks": [], "log_variance": [], "to_variance": []}
    for name, parameter in named_parameters(objective).items():
        found[name.split(".")[0] if name.split(".")[0] in found else "networks"].append(parameter)
    shares = {"log_variance": config.variance.learning_rate / config.optimiser.learning_rate}
    return [{"params": group, "share": shares.get(name, 1.0)} for name, group in found.items() if group]


def build_adam(objective: Objective, config: Config) -> torch.optim.Adam:
    """Adam in one fused kernel, which was the fastest form on CPU and GPU."""
    return torch.optim.Adam(
        parameter_groups(objective, config),
        lr=config.optimiser.learning_rate,
        betas=config.optimiser.betas,
        fused=True,
    )


def step_size(config: Config, *, stage: int, stage_images: int, stage_cap: int, images: int) -> float:
    """Adam's step size after `images` images of the run and `stage_images` of the stage."""
    optimiser = config.optimiser
    size = optimiser.learning_rate * (optimiser.stage2_fraction if stage == 2 else 1.0)
    if optimiser.schedule == "cosine":
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, stage_images / stage_cap)))
        size *= optimiser.final_fraction + (1 - optimiser.final_fraction) * cosine
    if images < optimiser.warmup_images:
        size *= images / optimiser.warmup_images
    return size


def set_step_size(adam: torch.optim.Optimizer, size: float) -> None:
    """Sets the step size of every group."""
    for group in adam.param_groups:
        group["lr"] = size * group["share"]


def adam_state(adam: torch.optim.Optimizer, objective: Objective) -> dict[str, Tensor]:
    """The moments and step counts as {"exp_avg/NAME": tensor, ...}."""
    found = {}
    for name, parameter in named_parameters(objective).items():
        for moment, value in adam.state.get(parameter, {}).items():
            found[f"{moment}/{name}"] = value.detach().clone()
    return found


def load_adam_state(adam: torch.optim.Optimizer, objective: Objective, tensors: dict[str, Tensor]) -> None:
    """Puts back what `adam_state` gave. Parameters without saved moments start with none."""
    for name, parameter in named_parameters(objective).items():
        saved = {moment: tensors[f"{moment}/{name}"] for moment in _MOMENTS if f"{moment}/{name}" in tensors}
        if saved:
            adam.state[parameter] = {moment: _like(value, parameter) for moment, value in saved.items()}


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy on the parameter's device in its layout: the fused kernel walks through memory, not through indices."""
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)  # the step count
    return torch.empty_like(parameter).copy_(value)
