"""DeepSpeed behind the engine seam: ZeRO shards optimiser state (1), gradients (2) and parameters (3).

Checkpoints hold whole weights and whole Adam moments by name, gathered here. So a run can be resumed with another
engine, ZeRO stage or world size, which DeepSpeed's own checkpoints do not allow.
"""

import math
import os
from typing import Any

import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when deepspeed is imported

import deepspeed
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_optimizer_state,
    safe_set_local_optimizer_state,
)

from data_shards.io.errors import InputError
from trainer.config.config import Config
from trainer.engines.deepspeed_json import read_json
from trainer.engines.engine import (
    LearningRates,
    StepResult,
    adam_state,
    load_adam_state,
    lower_precision,
    moments_at_switch,
    named_parameters,
    parameter_groups,
    set_learning_rates,
)
from trainer.networks.model import SigmaVAE
from trainer.objectives.objective import LocalBatch, Objective
from trainer.process_group import Ranks
from trainer.run_folder.restore import build_model

_MOMENTS = ("exp_avg", "exp_avg_sq")


def require_json(config: Config) -> None:
    """Raises InputError where the JSON that engine.deepspeed_config names is wrong."""
    read_json(config.engine.deepspeed_config)


def settings_of(config: Config, ranks: Ranks) -> dict[str, Any]:
    """The part of DeepSpeed's settings that follows from the trainer's configuration."""
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": max(1, config.data.global_batch // ranks.world_size),
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optimiser.max_grad_norm,
        # The client's Adam is torch's own, which ZeRO shards like its own ones.
        "zero_allow_untested_optimizer": True,
    }
    if (precision := lower_precision(config, ranks.device)) is not None:
        # DeepSpeed turns an autocast around its forward pass off, and has this one in its place.
        settings["torch_autocast"] = {"enabled": True, "dtype": str(precision).removeprefix("torch.")}
    return settings


def _start_group_of_one(device: torch.device) -> None:
    """A process group of this process alone: without one DeepSpeed asks MPI, for which it needs mpi4py."""
    os.environ.setdefault("LOCAL_RANK", "0")  # as a launcher sets it
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)


class DeepSpeedEngine:
    """ZeRO at the stage that engine.deepspeed_config names."""

    def __init__(self, objective: Objective, config: Config, ranks: Ranks) -> None:
        self.objective, self.config, self.ranks = objective, config, ranks
        self.settings = read_json(config.engine.deepspeed_config)
        self.zero_stage = int(self.settings.get("zero_optimization", {}).get("stage", 0))
        self._start()

    def _start(self) -> None:
        optimiser = self.config.optimiser
        adam = torch.optim.Adam(parameter_groups(self.objective), lr=optimiser.learning_rate, betas=optimiser.betas)
        if not torch.distributed.is_initialized():
            _start_group_of_one(self.ranks.device)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=self.objective,
            optimizer=adam,
            model_parameters=list(named_parameters(self.objective).values()),
            dist_init_required=False,
            config=self.settings | settings_of(self.config, self.ranks),
        )
        self.adam = self.optimizer if self.zero_stage == 0 else self.optimizer.optimizer
        if self.zero_stage > 0:
            self._begin_moments()

    def _begin_moments(self) -> None:
        """Creates Adam's state before the first update, so that it can be read and replaced at any time."""
        if self.zero_stage == 3:
            groups, flats = self.optimizer.fp16_groups, self.optimizer.fp32_partitioned_groups_flat
        else:
            groups, flats = self.optimizer.bit16_groups, self.optimizer.single_partition_of_fp32_groups
        # The flat partition of this process that holds each parameter's moments.
        self.flat_of = {id(parameter): flat for group, flat in zip(groups, flats, strict=True) for parameter in group}
        for flat in flats:
            self.adam.state[flat] = {"step": torch.tensor(0.0)} | {name: torch.zeros_like(flat) for name in _MOMENTS}
        if self.zero_stage < 3:
            self.optimizer._lazy_init_hp_params_optimizer_state()

    def step(self, batch: LocalBatch, *, learning_rates: LearningRates, signals: Tensor) -> StepResult:
        """One update; see `Engine`. Where the loss is not finite, the backward pass is skipped."""
        terms = self.engine(batch, None)
        sums = self.ranks.sum_(terms.sums(self.ranks.world_size, signals))
        finite, norm = torch.isfinite(sums[0]), None
        if bool(finite):
            self.engine.backward(terms.loss * (self.ranks.world_size / batch.rows))
            set_learning_rates(self.optimizer, learning_rates)
            self.engine.step()
            norm = self.engine.get_global_grad_norm()
            if norm is not None and not bool(torch.isfinite(torch.as_tensor(norm))):
                raise InputError(
                    "a gradient was not finite under DeepSpeed, which has already applied it; the last checkpoint is "
                    "intact; lower the learning rate or set optimiser.max_grad_norm",
                    parameter="optimiser.learning_rate",
                )
        known = sums.new_tensor(math.nan) if norm is None else torch.as_tensor(norm, device=sums.device)
        return StepResult(sums, finite, known)

    def enter_stage2(self, floor: float) -> None:
        """Builds a new DeepSpeed engine on the whole model with the variance head; see `Engine`."""
        kept = moments_at_switch(self.optimiser_state(), self.config.optimiser)
        model = self._whole_model(self.weights())
        model.add_variance_head(floor)
        self._restart(model, kept)

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        """Builds a new DeepSpeed engine, since the old one holds flat copies of the weights; see `Engine`."""
        self._restart(self._whole_model(tensors), self.optimiser_state())

    def _whole_model(self, tensors: dict[str, Tensor]) -> SigmaVAE:
        """A model like the current one with the weights `tensors`, on the CPU and not sharded."""
        old = self.objective.model
        learns_variance = isinstance(old.log_variance, torch.nn.Parameter)
        model = build_model(self.config, old.image_shape, per_pixel=old.per_pixel, learn_variance=learns_variance)
        model.load_state_dict(tensors)
        return model

    def _restart(self, model: SigmaVAE, optimiser_state: dict[str, Tensor]) -> None:
        self.engine.destroy()
        self.objective = Objective(model.to(self.ranks.device).train(), self.config.objective, self.config.variance)
        self._start()
        self.load_optimiser_state(optimiser_state)

    def weights(self) -> dict[str, Tensor]:
        """Whole parameters, gathered from their shards, and buffers."""
        model = self.objective.model
        found = {name: value.detach().cpu().clone() for name, value in model.named_buffers()}
        learnt = named_parameters(self.objective)
        for name, parameter in model.named_parameters():
            whole = safe_get_full_fp32_param(parameter) if self.zero_stage > 0 and name in learnt else parameter
            found[name] = whole.detach().cpu().clone()
        return found

    def optimiser_state(self) -> dict[str, Tensor]:
        """Adam's moments by parameter name, gathered from their shards."""
        if self.zero_stage == 0:
            return adam_state(self.adam, self.objective)
        found = {}
        for name, parameter in named_parameters(self.objective).items():
            for moment in _MOMENTS:
                found[f"{moment}/{name}"] = safe_get_full_optimizer_state(parameter, moment).detach().cpu().clone()
            found[f"step/{name}"] = self._step_count(parameter).clone()
        return found

    def _step_count(self, parameter: Tensor) -> Tensor:
        return self.adam.state[self.flat_of[id(parameter)]]["step"]

    def load_optimiser_state(self, tensors: dict[str, Tensor]) -> None:
        """Restores Adam's moments in the shards. Parameters without saved moments start without moments."""
        if self.zero_stage == 0:
            load_adam_state(self.adam, self.objective, tensors)
            return
        for name, parameter in named_parameters(self.objective).items():
            if f"step/{name}" in tensors:
                for moment in _MOMENTS:
                    self._set_moment(parameter, moment, tensors[f"{moment}/{name}"].to(self.ranks.device))
                self._step_count(parameter).copy_(tensors[f"step/{name}"])

    def _set_moment(self, parameter: Tensor, moment: str, whole: Tensor) -> None:
        if self.zero_stage < 3:
            safe_set_full_optimizer_state(parameter, whole, moment)
            return
        # DeepSpeed's own partition fails on the last rank if the world size does not divide a parameter's size.
        padded = torch.nn.functional.pad(whole.flatten(), (0, -whole.numel() % self.ranks.world_size))
        shard = padded.chunk(self.ranks.world_size)[self.ranks.rank]
        safe_set_local_optimizer_state(parameter, shard, moment)
