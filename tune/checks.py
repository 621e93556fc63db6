"""What can be known of a sweep before anything is started: its shards, every value of its space, what it measures."""

import dataclasses
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from data_shards.io.configuration import shown
from data_shards.io.disk import existing_parent, free_bytes
from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from trainer.config.automatic import resolved
from trainer.config.config import Config
from trainer.config.methods import METHODS
from trainer.device import resolved_device
from trainer.dry_run import estimate
from trainer.networks.model import SigmaVAE
from trainer.run_folder.trackers.tracker import require_trackers
from trainer.trial_batch import require_trainable
from trainer.updates.learner import require_engine
from tune.search.stopping import AtRungs, budget, rungs
from tune.search.trials import number_of_search_trials
from tune.space import Combinations, Dimension, Fields, canonical, draw
from tune.sweep_config import SweepConfig

# A space with more corners is checked at some that hold every value this often, each checked in a third of a second.
_MOST_CORNERS, _TIMES_EACH_VALUE = 48, 2
# Its quarters are one trial each.
_LEAST_POPULATION = 4


@dataclass(frozen=True, kw_only=True)
class CheckedSweep:
    """A sweep that can be started."""

    notices: tuple[str, ...]
    """What the user should know, a line each."""
    bytes_needed: int
    """Bytes of all checkpoints that are kept at a time, at the largest networks of the space that were checked."""


def check_sweep(sweep: SweepConfig, *, cluster: bool = False) -> CheckedSweep:
    """Raises InputError in one line where the sweep cannot end well, whatever is drawn.

    cluster: whether it is to run on other machines, whose GPUs and CPUs are not known yet.
    """
    config = sweep.trainer_config("base", 0, {})
    try:
        manifest = Manifest.load(config.data.location)
    except InputError as error:
        raise InputError(error.named(None), parameter=error.parameter or "data.shards") from error
    for name in ("train_split", "valid_split"):
        if (split := getattr(config.data, name)) not in manifest.splits:
            raise InputError(manifest.lacks(split, config.data.shards), parameter=f"data.{name}")
    if not os.access(parent := existing_parent(sweep.folder), os.W_OK | os.X_OK) or not parent.is_dir():
        what = "cannot be written" if parent.is_dir() else "is a file"
        raise InputError(f"{parent} {what}; choose another folder", parameter="runs")
    if (sweep.folder / "checkpoints").exists() and not (sweep.folder / "sweep.json").exists():
        raise InputError(f"{sweep.folder} is the folder of a training; choose another name", parameter="name")
    require_trackers(config.log.to)
    _check_measure(sweep, manifest)
    if not cluster:
        _check_this_machine(sweep)
    notices = []
    trials = number_of_search_trials(sweep)
    if sweep.stopping.scheduler == "pbt" and trials < _LEAST_POPULATION:
        what = f"a population of {trials} is too small for pbt; use at least {_LEAST_POPULATION}"
        raise InputError(what, parameter="configurations")
    asked = sweep.configurations * len(sweep.seeds)
    if sweep.search != "grid" and trials < asked:
        notices.append(
            f"the space has {trials // len(sweep.seeds)} configurations, so that no more than these are trained "
            f"(configurations: {sweep.configurations})"
        )
    notices += _without_effect(sweep, images := manifest.num_samples(config.data.train_split))
    impossible, largest = _check_values(sweep, manifest.image_shape, None if cluster else torch.device("cpu"))
    if impossible:
        notices.append(
            f"{len(impossible)} of the combinations that were checked cannot be trained, and their trials will be "
            f"recorded as failed; the first is {impossible[0]}"
        )
    each = estimate(largest, manifest.image_shape, images, sweep.workers).checkpoint_bytes
    return CheckedSweep(notices=tuple(notices), bytes_needed=each * _kept_at_a_time(sweep, trials))


def _without_effect(sweep: SweepConfig, images: int) -> list[str]:
    """What was asked for and does nothing. images: of an epoch. Raises InputError for a field that is searched so."""
    config = sweep.trainer_config("base", 0, {})
    searched = [dimension.field for dimension in sweep.space]
    if "objective.name" not in searched and not METHODS[config.objective.name].learns_variance:
        for name in searched:
            if name.startswith(("variance.", "stage2.")):
                what = f"{config.objective.name} has one stage and a fixed variance, which this does not change"
                raise InputError(what, parameter=f"space.{name}")
    own = budget(sweep, images, {})
    at = AtRungs(budget=own, rungs=rungs(sweep.stopping), min_images=sweep.stopping.min_images)
    compared, seen = list[tuple[float, float]](), 0
    for stage, cap in enumerate(own.caps, start=1):
        at.event("stage_start", seen, {"stage": stage})
        every = (config.stage1, config.stage2)[stage - 1].check_images
        for checked in [*range(every, cap, every), cap]:
            compared += at.event("valid", seen + checked, {"stage": stage, "elbo_at_closed_form": 0.0})
            if compared:
                return []
        seen += cap
    if sweep.stopping.scheduler == "none":
        return []
    return [
        f"stopping {sweep.stopping.scheduler} compares no trial of the base's {sum(own.caps):,} images before its end: "
        f"the first check comes too late (stage1.check_images {config.stage1.check_images:,}), or stopping.min_images "
        f"({sweep.stopping.min_images:,}) is too large"
    ]


def require_disk(sweep: SweepConfig, checked: CheckedSweep) -> None:
    """Raises InputError where the disk of the sweep's folder has less room than its checkpoints need."""
    free = free_bytes(sweep.folder)
    written = sum(path.stat().st_size for path in sweep.trials_folder.glob("*/checkpoints/*/*") if path.is_file())
    if checked.bytes_needed - written > free:
        raise InputError(
            f"its checkpoints need {checked.bytes_needed / 1e9:.3g} GB, but {existing_parent(sweep.folder)} has "
            f"{free / 1e9:.3g} GB free; use another disk, or a smaller keep_weights or concurrent",
            parameter="runs",
        )


def _kept_at_a_time(sweep: SweepConfig, trials: int) -> int:
    """Trials whose checkpoints are on the disk at a time, at most."""
    confirming = 2 * len(sweep.confirm_seeds)
    if sweep.keep_weights == 0 or sweep.stopping.takes_turns:
        return trials + confirming
    return min(trials, (sweep.keep_weights * len(sweep.seeds)) + (sweep.concurrent or os.cpu_count() or 1)) + confirming


def _check_this_machine(sweep: SweepConfig) -> None:
    """Ray is started on this machine alone, and has its CPUs and GPUs."""
    needed, cpus = sweep.workers * sweep.cpus_per_worker, os.cpu_count() or 1
    if needed > cpus:
        raise InputError(
            f"{sweep.workers} of {sweep.cpus_per_worker} CPUs each are needed, but this machine has {cpus}; lower "
            "workers or cpus_per_worker, or give --address of a cluster",
            parameter="workers",
        )
    if sweep.fields["device"] == "cuda":
        resolved_device("cuda", processes=max(1, round(sweep.workers * sweep.gpus_per_worker)))


def _check_measure(sweep: SweepConfig, manifest: Manifest) -> None:
    measure, config = sweep.measure, sweep.trainer_config("base", 0, {})
    if measure.images == measure.likelihood_images == 0:
        return
    if measure.split not in manifest.splits:
        raise InputError(manifest.lacks(measure.split, config.data.shards), parameter="measure.split")
    if measure.split == config.data.train_split:
        raise InputError(f"{measure.split!r} is trained on; use a held-out split", parameter="measure.split")
    held_out = manifest.num_samples(measure.split)
    for name in ("images", "likelihood_images"):
        if (asked := getattr(measure, name)) > held_out:
            what = f"{asked:,} images, but split {measure.split} has {held_out:,}; use at most {held_out}"
            raise InputError(what, parameter=f"measure.{name}")
    codes = manifest.num_samples(config.data.train_split)
    if measure.mixture > codes:
        what = f"{measure.mixture:,} components, but {codes:,} images are trained on; use fewer"
        raise InputError(what, parameter="measure.mixture")


def corners(space: tuple[Dimension, ...]) -> list[Fields]:
    """Configurations of the choices and the ends of intervals: all of them, or of many some that hold every value."""
    ends = tuple(_ends(dimension, space) for dimension in space)
    every = Combinations(space=ends)
    return [every[index] for index in range(every.size)] if every.size <= _MOST_CORNERS else list(_some_corners(ends))


def _ends(dimension: Dimension, space: Sequence[Dimension]) -> Dimension:
    """The dimension as a choice: of its own values, or of the ends of its interval and what conditions ask for."""
    values = list(dimension.values)
    if dimension.kind == "randint":
        asked = [value for other in space for name, value in other.when if name == dimension.field]
        values += [value for value in asked if canonical(value) not in map(canonical, values)]
    return Dimension(field=dimension.field, kind="choice", values=tuple(values), when=dimension.when)


def _some_corners(space: tuple[Dimension, ...]) -> Iterator[Fields]:
    generator, seen = random.Random(0), set()
    by_name = {dimension.field: dimension for dimension in space}
    held = {(dimension.field, canonical(value)): 0 for dimension in space for value in dimension.values}
    for dimension in space:
        for value in dimension.values:
            forced = _with_conditions(dimension, value, by_name)
            for _ in range(2 * _TIMES_EACH_VALUE):
                if held[dimension.field, canonical(value)] >= _TIMES_EACH_VALUE:
                    break
                fields = draw(space, lambda one: forced.get(one.field, generator.choice(one.values)))  # noqa: B023
                if (key := canonical(fields)) not in seen:
                    seen.add(key)
                    for name, drawn in fields.items():
                        held[name, canonical(drawn)] += 1
                    yield fields


def _with_conditions(dimension: Dimension, value: Any, by_name: Mapping[str, Dimension]) -> Fields:
    """A field with this value, and the values of others without which it is not drawn."""
    forced = {dimension.field: value}
    asking = [dimension]
    while asking:  # what the field's condition asks for, and the conditions of that
        for other, needed in asking.pop().when:
            forced.setdefault(other, needed)
            asking.append(by_name[other])
    return forced


def _check_values(
    sweep: SweepConfig, image_shape: tuple[int, int, int], memory: torch.device | None
) -> tuple[list[str], Config]:
    """What cannot be trained of the corners, and the configuration of the largest networks.

    memory: the device whose memory is to hold them. Raises InputError for a value with which no corner can be trained,
    and where the default cannot, though it is to be confirmed.
    """
    tried = corners(sweep.space) + [{}] * bool(sweep.confirm_seeds)
    errors = {canonical(fields): "" for fields in tried}
    largest, most = sweep.trainer_config("base", 0, {}), -1
    known: dict[str, int | InputError] = {}
    for fields in tried:
        try:
            config = sweep.trainer_config("corner", 0, fields)
            require_engine(config)
            networks = resolved(config, image_shape)
            key = canonical(dataclasses.asdict(networks.model) | dataclasses.asdict(networks.objective))
            key += str(networks.two_stages) + str(min(2, networks.data.global_batch))
            if key not in known:
                known[key] = _weights(networks, image_shape, memory)
            found = known[key]
            if isinstance(found, InputError):
                raise found
            if found > most:
                largest, most = networks, found
        except InputError as error:
            if not fields:
                raise
            errors[canonical(fields)] = str(error)
    _refuse_impossible_values(sweep.space, tried, errors)
    return [error for error in errors.values() if error], largest


def _weights(config: Config, image_shape: tuple[int, int, int], memory: torch.device | None) -> int | InputError:
    """How many weights the networks have, or why they cannot be trained."""
    try:
        require_trainable(config, image_shape, memory)
    except InputError as error:
        return error
    with torch.device("meta"):
        model = SigmaVAE(image_shape, config.model)
    return sum(weight.numel() for weight in model.parameters())


def _refuse_impossible_values(space: Sequence[Dimension], tried: Sequence[Fields], errors: dict[str, str]) -> None:
    for dimension in space:
        for value in dimension.values:
            key = canonical(value)
            having = [one for one in tried if dimension.field in one and canonical(one[dimension.field]) == key]
            found = [errors[canonical(one)] for one in having]
            if having and all(found):
                raise InputError(f"{shown(value)} can never be trained: {found[0]}", f"space.{dimension.field}")
