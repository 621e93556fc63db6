"""The trainings that a plan contains, and the configuration of each."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from eval.paper.plan import LEARNED, REFERENCE, Plan, Variance, Variant
from trainer.config.config import FREE_TO_CHANGE, Config, load_config, to_dict, with_old_names
from trainer.config.methods import METHODS


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a plan."""

    name: str
    """Name of its run folder."""
    fields: Mapping[str, Any]
    """Every field that differs from the plan's configuration file."""

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.fields["seed"])

    @property
    def two_stages(self) -> bool:
        """Whether it has a second stage."""
        return bool(self.fields["stage2.max_epochs"] > 0)

    @property
    def weights(self) -> tuple[str, ...]:
        """The sets of weights that are measured."""
        return ("stage1", "final") if self.two_stages else ("final",)


def training(plan: Plan, name: str, seed: int, fields: Mapping[str, Any]) -> Training:
    """A training with the plan's budget: one of a single stage gets the epochs of both."""
    named = dict(plan.fields) | dict(fields) | {"seed": seed}
    one_stage = named.get("objective.name", "sigma_vae") != "sigma_vae" or named.get("stage2.max_epochs") == 0
    first, second = plan.budget.stage1_epochs, plan.budget.stage2_epochs
    epochs = (first + second, 0.0) if one_stage else (first, second)
    named |= dict(zip(("stage1.max_epochs", "stage2.max_epochs"), epochs, strict=True))
    return Training(name=f"{name}-seed{seed}", fields=named)


def method_training(plan: Plan, method: str, seed: int) -> Training:
    """Tables 2 and 3."""
    return training(plan, method.lower(), seed, plan.methods[method])


def method_trainings(plan: Plan, method: str) -> tuple[Training, ...]:
    """A method's trainings, one for each seed."""
    return tuple(method_training(plan, method, seed) for seed in plan.seeds)


def plane_trainings(plan: Plan, variance: Variance) -> tuple[Training, ...]:
    """Table 1's trainings with one variance, one for each seed."""
    fields = dict(plan.plane.fields) | variance_fields(variance)
    return tuple(training(plan, f"plane-{variance}", seed, fields) for seed in plan.plane.seeds)


def sweep_trainings(plan: Plan, variance: Variance) -> tuple[Training, ...]:
    """Figure 1's trainings with one variance, one for each seed; a method's or variant's where equal."""
    return tuple(sweep_training(plan, variance, seed) for seed in plan.sweep.seeds)


def sweep_training(plan: Plan, variance: Variance, seed: int) -> Training:
    """One of `sweep_trainings`."""
    wanted = training(plan, f"sigma2-{variance}", seed, variance_fields(variance))
    same = [method_training(plan, method, seed) for method in plan.methods]
    same += [variant_training(plan, variant, seed) for variant in plan.variants if variant.fields]
    return next((other for other in same if other.fields == wanted.fields), wanted)


def variance_fields(variance: Variance) -> dict[str, Any]:
    """The method behind a variance: learned in one stage, or fixed, under the method's name where it has one."""
    if variance == LEARNED:
        return {"objective.name": "sigma_vae", "stage2.max_epochs": 0}
    named = {METHODS[name].variance: name for name in ("vae", "beta_vae")}
    if variance in named:
        return {"objective.name": named[float(variance)]}
    return {"objective.name": "fixed", "objective.sigma2": variance}


def variant_trainings(plan: Plan, variant: Variant) -> tuple[Training, ...]:
    """A variant's trainings, one for each of the variants' seeds."""
    return tuple(variant_training(plan, variant, seed) for seed in plan.variant_seeds)


def variant_training(plan: Plan, variant: Variant, seed: int) -> Training:
    """Beyond the paper; a variant without fields of its own is another density on the reference's codes."""
    if not variant.fields:
        return method_training(plan, REFERENCE, seed)
    return training(plan, variant.name, seed, dict(plan.methods[REFERENCE]) | dict(variant.fields))


def resolved(plan: Plan, made: Training) -> Config:
    """The trainer's configuration of a training. Raises InputError where the fields make none."""
    return _loaded(plan.config, json.dumps({**made.fields, "name": made.name, "data.shards": plan.shards}))


@cache
def _loaded(path: str, fields: str) -> Config:
    return load_config(path, json.loads(fields))


def configuration_hash(config: Config) -> str:
    """16 hexadecimal digits of everything that decides what is learnt."""
    # Kept measurements know their training by this hash of the fields' first names.
    content = with_old_names(to_dict(config))
    for name in ("name", *FREE_TO_CHANGE):
        section, _, field = name.rpartition(".")
        (content[section] if section else content).pop(field)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
