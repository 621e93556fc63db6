"""Adam over the parameters of an objective, and its state by parameter name, which any engine can load."""

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
    """Groups for Adam: the networks, log sigma^2 with its own learning rate, the variance head of stage 2.

    The head has its own group because it has taken fewer steps. `factor` multiplies the scheduled learning rate.
    """
    found: dict[str, list[torch.nn.Parameter]] = {"networks": [], "log_variance": [], "to_variance": []}
    for name, parameter in named_parameters(objective).items():
        found[name.split(".")[0] if name.split(".")[0] in found else "networks"].append(parameter)
    factors = {"log_variance": config.variance.learning_rate / config.optimiser.learning_rate}
    return [{"params": group, "factor": factors.get(name, 1.0)} for name, group in found.items() if group]


def build_adam(objective: Objective, config: Config) -> torch.optim.Adam:
    """Adam in one fused kernel, which was the fastest form on CPU and GPU."""
    return torch.optim.Adam(
        parameter_groups(objective, config),
        lr=config.optimiser.learning_rate,
        betas=config.optimiser.betas,
        fused=True,
    )


def set_learning_rate(adam: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of every group."""
    for group in adam.param_groups:
        group["lr"] = learning_rate * group["factor"]


def adam_state(adam: torch.optim.Optimizer, objective: Objective) -> dict[str, Tensor]:
    """The moments and step counts as {"exp_avg/NAME": tensor, ...}."""
    found = {}
    for name, parameter in named_parameters(objective).items():
        for moment, value in adam.state.get(parameter, {}).items():
            found[f"{moment}/{name}"] = value.detach().clone()
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
