"""The trainings that a plan asks for, each with everything that will be measured of it."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from eval.paper.asks import BEST, Ask, unique, weights_of
from eval.paper.plan import LEARNED, REFERENCE, MixtureForm, Plan, Variant
from trainer.config.config import FREE_TO_CHANGE, Config, load_config, to_dict, with_old_names
from trainer.config.methods import METHODS

TARGETS = ("table1", "table2", "table3", "table4", "figure1", "figure2", "figure3", "figure4", "beyond")
"""What can be reproduced; `beyond` is the table of variants that the paper does not have."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of the plan."""

    name: str
    """Name of its run folder."""
    fields: Mapping[str, Any]
    """Every field that differs from the plan's configuration file."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training and what is measured of it."""

    training: Training
    """What is trained."""
    asks: tuple[Ask, ...]
    """What is measured, in this order."""
    pictures: tuple[str, ...] = ()
    """What is drawn, by name."""


def training(plan: Plan, name: str, seed: int, fields: Mapping[str, Any]) -> Training:
    """A training with the plan's budget: one stage gets the epochs of both."""
    named = dict(plan.fields) | dict(fields) | {"seed": seed}
    one_stage = named.get("objective.name", "sigma_vae") != "sigma_vae" or named.get("stage2.max_epochs") == 0
    first, second = plan.budget.stage1_epochs, plan.budget.stage2_epochs
    epochs = {"stage1.max_epochs": first + second, "stage2.max_epochs": 0.0} if one_stage else {}
    epochs = epochs or {"stage1.max_epochs": first, "stage2.max_epochs": second}
    return Training(name=f"{name}-seed{seed}", fields=named | epochs)


def method_training(plan: Plan, method: str, seed: int) -> Training:
    """Tables 2 and 3."""
    return training(plan, method.lower(), seed, plan.methods[method])


def variance_fields(variance: float | str) -> dict[str, Any]:
    """The method behind a variance of figure 1: learned in one stage, or fixed under its name where it has one."""
    if variance == LEARNED:
        return {"objective.name": "sigma_vae", "stage2.max_epochs": 0}
    named = {method.variance: name for name, method in METHODS.items() if not method.takes_sigma2}
    if variance in named:
        return {"objective.name": named[float(variance)]}
    return {"objective.name": "fixed", "objective.sigma2": variance}


def sweep_training(plan: Plan, variance: float | str, seed: int) -> Training:
    """Figure 1; a training that a method or variant has already is that one."""
    wanted = training(plan, f"sigma2-{variance}", seed, variance_fields(variance))
    same = [method_training(plan, method, seed) for method in plan.methods]
    same += [variant_training(plan, variant, seed) for variant in plan.variants if variant.fields]
    return next((other for other in same if other.fields == wanted.fields), wanted)


def plane_training(plan: Plan, variance: float | str, seed: int) -> Training:
    """Table 1."""
    return training(plan, f"plane-{variance}", seed, dict(plan.plane.fields) | variance_fields(variance))


def variant_training(plan: Plan, variant: Variant, seed: int) -> Training:
    """Beyond the paper; a variant without fields of its own is another density on the reference's codes."""
    if not variant.fields:
        return method_training(plan, REFERENCE, seed)
    return training(plan, variant.name, seed, dict(plan.methods[REFERENCE]) | dict(variant.fields))


def two_stages(made: Training) -> bool:
    """Whether a training has a second stage."""
    return bool(made.fields["stage2.max_epochs"] > 0)


def density_of(plan: Plan, variant: Variant) -> tuple[str, str]:
    """(source of samples, label of the mixture) that a variant is measured with."""
    if variant.density == "flow":
        return "flow", ""
    if variant.density == "best_mixture":
        return "q_hat", BEST
    if variant.density == "transported":
        return "transported", plan.measure.mixture.label
    return "q_hat", MixtureForm(components=plan.measure.mixture.components, encodings=variant.encodings).label


def jobs(plan: Plan, targets: Iterable[str]) -> list[Job]:
    """The jobs behind some of TARGETS, most wanted first; a training that several ask for is one job."""
    chosen = set(targets)
    wanted: list[tuple[Training, list[Ask], list[str]]] = []
    for place, seed in enumerate(plan.seeds):
        if chosen & {"table2", "table3", "figure2", "table4", "figure3", "figure4", "beyond"}:
            wanted += _methods(plan, chosen, seed, first=place == 0)
        if "figure1" in chosen and seed in plan.sweep.seeds:
            wanted += [_swept(plan, variance, seed) for variance in plan.sweep.variances]
        if "table1" in chosen and seed in plan.plane.seeds:
            wanted += [_plane(plan, variance, seed) for variance in plan.plane.variances]
        if "beyond" in chosen and seed in plan.variant_seeds:
            wanted += [_variant(plan, variant, seed) for variant in plan.variants]
    return _merged(wanted)


def _methods(plan: Plan, chosen: set[str], seed: int, *, first: bool) -> list[tuple[Training, list[Ask], list[str]]]:
    label = plan.measure.mixture.label
    found = []
    for method in plan.methods:
        made = method_training(plan, method, seed)
        asks: list[Ask] = []
        pictures: list[str] = []
        reference = method == REFERENCE
        if not reference and not chosen & {"table2", "table3", "figure2"}:
            continue
        for weights in weights_of(two_stages(made)):
            if chosen & {"table2", "figure2"} or (reference and "beyond" in chosen):
                asks.append(Ask(kind="fid", source="q_hat", mixture=label, weights=weights))
            if chosen & {"table2", "figure2"}:
                asks.append(Ask(kind="fid", source="prior", weights=weights))
                if first:
                    asks.append(Ask(kind="fid", source="reconstruction", weights=weights))
            if ("table3" in chosen and method != "WAE") or (reference and "beyond" in chosen):
                asks.append(Ask(kind="likelihood", mixture=label, weights=weights))
        if reference and first and "table2" in chosen:
            asks += [Ask(kind="fid", source="train"), Ask(kind="fid", source="half")]
        if reference and "table4" in chosen and seed in plan.components.seeds:
            asks += _components(plan)
        if reference and first:
            if chosen & {"figure3", "figure4"}:
                asks += [Ask(kind="uncertainty", weights="final"), Ask(kind="memorisation", mixture=label)]
            pictures = [name for name in ("figure2", "figure3", "figure4") if name in chosen]
        found.append((made, asks, pictures))
    return found


def _components(plan: Plan) -> list[Ask]:
    asks = []
    for number in (plan.measure.mixture.components, *plan.components.numbers):
        label = MixtureForm(components=number, encodings=plan.measure.mixture.encodings).label
        asks += [
            Ask(kind="mixture", mixture=label),
            Ask(kind="fid", source="q_hat", mixture=label),
            Ask(kind="memorisation", mixture=label),
        ]
    return asks


def _swept(plan: Plan, variance: float | str, seed: int) -> tuple[Training, list[Ask], list[str]]:
    label = plan.measure.mixture.label
    asks = [
        Ask(kind="likelihood", mixture=label),
        Ask(kind="fid", source="q_hat", mixture=label),
        Ask(kind="fid", source="prior"),
    ]
    return sweep_training(plan, variance, seed), asks, []


def _plane(plan: Plan, variance: float | str, seed: int) -> tuple[Training, list[Ask], list[str]]:
    asks = [Ask(kind="likelihood", mixture=plan.measure.mixture.label)]
    return plane_training(plan, variance, seed), asks, ["density"]


def _variant(plan: Plan, variant: Variant, seed: int) -> tuple[Training, list[Ask], list[str]]:
    made = variant_training(plan, variant, seed)
    source, label = density_of(plan, variant)
    asks = []
    for weights in weights_of(two_stages(made)):
        asks.append(Ask(kind="fid", source=source, mixture=label, weights=weights))
        if source == "q_hat":
            asks.append(Ask(kind="likelihood", mixture=label, weights=weights))
        if source == "transported":
            asks.append(Ask(kind="memorisation", source=source, mixture=label, weights=weights))
    return made, asks, ["transported"] if source == "transported" and seed == plan.variant_seeds[0] else []


def _merged(wanted: Sequence[tuple[Training, list[Ask], list[str]]]) -> list[Job]:
    trainings = {made.name: made for made, _, _ in wanted}
    return [
        Job(
            training=made,
            asks=unique(ask for other, asks, _ in wanted if other.name == name for ask in asks),
            pictures=tuple(dict.fromkeys(p for other, _, pictures in wanted if other.name == name for p in pictures)),
        )
        for name, made in trainings.items()
    ]


def resolved(plan: Plan, made: Training) -> Config:
    """The trainer's configuration of a training. Raises InputError, naming the training, where it is none."""
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
