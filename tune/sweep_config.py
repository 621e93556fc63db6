"""The configuration of a sweep: a YAML file read strictly into frozen dataclasses before anything starts."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from data_shards.io.configuration import (
    LocalPathText,
    Name,
    NonNegativeInt,
    PathText,
    PositiveFloat,
    PositiveInt,
    Text,
    build,
    configuration,
    shown,
)
from data_shards.io.errors import InputError
from data_shards.io.likeness import nearest
from data_shards.io.nested import flat
from data_shards.io.strict_yaml import in_file, read_yaml
from data_shards.manifest import Manifest
from eval.distance.measures import FURTHER
from trainer.config.config import Config, load_config, to_dict
from tune.space import Dimension, Fields, read_space

SchedulerName = Literal["auto", "halving", "asha", "hyperband", "optuna_hyperband", "median", "pbt", "none"]
ObjectiveName = Literal["elbo", "fd", "cost"]
SET_BY_THE_SWEEP = ("name", "runs", "seed")
_NO_EFFECT = "says where and how a trial is carried out, not what it learns"
_NOT_COMPARABLE = "trials with other images cannot be compared"
NOT_SEARCHED = {
    **dict.fromkeys(("device.", "data.shards.", "data.cache_dir.", "checkpoint.", "log."), _NO_EFFECT),
    **dict.fromkeys(("data.train_split.", "data.valid_split.", "data.valid_images."), _NOT_COMPARABLE),
}
"""Why a field, or those of a section, cannot be in the space, by how its name begins."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepObjective:
    """One measured number of a trial."""

    field: str
    """The field of `tune.trial.record.TrialRecord` that holds it."""
    sign: int
    """1 where more is better, -1 where less is."""
    title: str
    """Its name and unit in the report."""


OBJECTIVES: dict[ObjectiveName, SweepObjective] = {
    "elbo": SweepObjective(field="final_elbo", sign=1, title="held-out ELBO at the closed-form sigma, nats per image"),
    "fd": SweepObjective(field="fd_final", sign=-1, title="held-out FD of samples"),
    "cost": SweepObjective(field="seconds", sign=-1, title="seconds of training"),
}


@configuration
class StoppingConfig:
    """When a trial is stopped early: what compares trials at rungs, which are parts of each trial's own budget."""

    scheduler: SchedulerName = "auto"
    """auto: halving, and asha with optuna. halving: asynchronous successive halving (Li et al. 2020), in which trials
    wait at a rung until they are among the best there; asha: Ray's, which stops them at once; hyperband: three brackets
    of that, two of which begin later;
    optuna_hyperband: Optuna's own; median: a trial below the median of the others' means so far; pbt: none is stopped,
    poor ones take over the weights of good ones with another learning rate; none: every trial is trained to its end."""
    first_percent: Annotated[float, Field(gt=0, lt=100)] = 1.0
    """The first rung, in percent of a trial's budget; above 0 and below 100. A trial without a check by then is first
    compared at a later rung."""
    min_images: NonNegativeInt = 2000
    """Images that a trial has seen before it is compared at all: at first what batch norm has gathered lags behind, and
    the held-out ELBO says little."""
    reduction_factor: Annotated[float, Field(gt=1, le=100)] = 2.0
    """halving, asha, hyperband: about 1 in this many trials continues past a rung, and rungs lie this factor apart;
    above 1. optuna_hyperband: the same, a whole number."""

    @property
    def takes_turns(self) -> bool:
        """Whether trials wait at rungs while others train."""
        return self.scheduler in ("halving", "pbt")

    def __post_init__(self) -> None:
        if self.scheduler == "optuna_hyperband" and not (self.reduction_factor >= 2 and self.reduction_factor % 1 == 0):
            what = f"{self.reduction_factor:g} is no whole number from 2 on, which optuna_hyperband needs; use 3"
            raise InputError(what, parameter="reduction_factor")


@configuration
class MeasureConfig:
    """What is measured once a trial has been trained to its end."""

    images: NonNegativeInt = 2000
    """Images of a Frechet distance, the same seeds in every trial; at least 2, or 0 for no distance."""
    split: Text = "valid"
    """Split of the real images; held out, and not the test split of a result."""
    mixture: NonNegativeInt = 32
    """Components of the mixture that samples come from; 0 samples from the prior."""
    likelihood_images: NonNegativeInt = 0
    """Images of that split whose importance-weighted likelihood is estimated; 0 for no likelihood."""
    likelihood_samples: PositiveInt = 20
    """Importance samples of each of them; at least 1."""
    also: tuple[Text, ...] = ()
    """Further measures of the samples by the final weights, see `python -m eval fid --help`."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.also if name not in FURTHER]:
            raise InputError(f"{unknown[0]!r} is unknown; use some of {', '.join(FURTHER)}", parameter="also")
        if len(set(self.also)) < len(self.also):
            raise InputError(f"{shown(self.also)} has one twice; give each once", parameter="also")
        if self.also and not self.images:
            raise InputError("further measures need images, of which there are 0; use 2000", parameter="images")
        if self.images == 1:
            raise InputError("1 is too few for a distance; use 0 for none, or at least 2", parameter="images")


@configuration
class SweepConfig:
    """A whole sweep."""

    name: Name
    """Name of the sweep's folder under `runs`."""
    runs: LocalPathText = "runs"
    """Folder that holds the sweep's folder; on several machines, one that all of them share."""
    base: PathText
    """YAML file of the trainer's configuration that trials start from: the default that the best is compared with."""
    fields: Fields = dataclasses.field(default_factory=dict)
    """Fields by dotted name that trials have instead of the base's; `read_sweep` adds all of the base's."""
    space: tuple[Dimension, ...]
    """What is searched; in the file {field: {kind: values, when: {field: value}}}."""
    search: Literal["grid", "random", "optuna"] = "random"
    """grid: all combinations; random: `configurations` independent ones; optuna: TPE, learning from finished ones."""
    configurations: PositiveInt = 16
    """Configurations of random and optuna; at least 1."""
    seed: NonNegativeInt = 0
    """Seed of the search; at least 0."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    """Seeds of the trainer that each configuration is repeated with; at least 0, none twice."""
    confirm_seeds: tuple[NonNegativeInt, ...] = ()
    """Seeds that the best configuration and the default are trained with to their ends, after the search."""
    objectives: Annotated[tuple[ObjectiveName, ...], Field(min_length=1)] = ("elbo",)
    """What optuna optimises; the first ranks. elbo: held out, at the closed-form sigma; fd; cost: seconds."""
    workers: PositiveInt = 1
    """Processes of one trial; at least 1."""
    cpus_per_worker: PositiveInt = 1
    """CPUs of one process; at least 1."""
    gpus_per_trial: PositiveFloat | Literal["auto"] = "auto"
    """GPUs of one trial on cuda. auto: one for each process; below 1: that part of one, which trials of one process
    share."""
    concurrent: NonNegativeInt = 0
    """Trials at once; 0: as many as fit on the machines at the start. With an autoscaler, set it."""
    retries: NonNegativeInt = 3
    """Times that a trial is resumed at once after a killed process, a lost machine or another fault of one."""
    keep_weights: NonNegativeInt = 3
    """Best configurations whose checkpoints are kept; those of other ended trials are deleted. 0 keeps all."""
    stopping: StoppingConfig = dataclasses.field(default_factory=StoppingConfig)
    """When a trial is stopped early."""
    measure: MeasureConfig = dataclasses.field(default_factory=MeasureConfig)
    """What is measured at its end."""

    def __post_init__(self) -> None:
        for name in ("seeds", "confirm_seeds"):
            seeds = getattr(self, name)
            if len(set(seeds)) < len(seeds):
                raise InputError(f"{shown(seeds)} has a seed twice; give each once", parameter=name)
        if len(set(self.objectives)) < len(self.objectives):
            raise InputError(f"{shown(self.objectives)} has one twice; give each once", parameter="objectives")
        shares = self.workers == 1 and self.gpus_per_trial != "auto" and self.gpus_per_trial < 1
        if self.gpus_per_trial not in ("auto", self.workers) and not shares:
            what = f"{self.gpus_per_trial} is not one for each of {self.workers} workers; use {self.workers}"
            what += " or, to share a GPU, a number below 1" if self.workers == 1 else ""
            raise InputError(what, parameter="gpus_per_trial")
        if used := sorted(set(self.seeds) & set(self.confirm_seeds)):
            what = f"{used[0]} is a seed of the search too, which has chosen by it; use others"
            raise InputError(what, parameter="confirm_seeds")
        if "://" in self.runs:
            what = f"{self.runs!r} is no folder, in which trials write and wait for each other; use one on a disk"
            raise InputError(what, parameter="runs")
        for dimension in self.space:
            if why := next((why for name, why in NOT_SEARCHED.items() if f"{dimension.field}.".startswith(name)), ""):
                raise InputError(f"{why}; give it under fields", parameter=f"space.{dimension.field}")
        if self.stopping.scheduler == "pbt":
            self._require_population()
        if self.stopping.scheduler == "halving" and self.search == "optuna":
            what = "optuna learns from trials that have ended, and with halving most wait to the end; use asha"
            raise InputError(what, parameter="stopping.scheduler")
        if self.objectives[0] == "cost":
            raise InputError("cost alone measures no quality; put elbo or fd first", parameter="objectives")
        if "fd" in self.objectives and self.measure.images == 0:
            raise InputError("0 measures no distance, which objective fd needs; use 2000", parameter="measure.images")
        for name in SET_BY_THE_SWEEP:
            if name in self.fields or any(dimension.field == name for dimension in self.space):
                section = "fields" if name in self.fields else "space"
                raise InputError("the sweep sets it itself; leave it out", parameter=f"{section}.{name}")

    def _require_population(self) -> None:
        """Raises InputError where population based training cannot be carried out."""
        if self.search == "optuna":
            what = "optuna learns from trials with the fields that it drew, and pbt changes them; use random"
            raise InputError(what, parameter="search")
        if len(self.seeds) > 1:
            what = f"{shown(self.seeds)} are several, and a population is trained with one seed; use [0]"
            raise InputError(what, parameter="seeds")
        rates = [dimension for dimension in self.space if dimension.field == "optimiser.learning_rate"]
        if not rates or rates[0].when:
            what = "pbt changes optimiser.learning_rate, which must be in the space, without `when`"
            raise InputError(what, parameter="space.optimiser.learning_rate")

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return Path(self.runs) / self.name

    @property
    def trials_folder(self) -> Path:
        """Holds the run folder of every trial."""
        return self.folder / "trials"

    @property
    def ray_folder(self) -> Path:
        """Holds what Ray stores to continue after an interruption."""
        return self.folder / "ray"

    def trainer_config(self, name: str, seed: int, drawn: Fields) -> Config:
        """The trainer's configuration of one trial. Raises InputError where the drawn fields are impossible."""
        return load_config(None, {**self.fields, **drawn, "seed": seed, "name": name, "runs": str(self.trials_folder)})

    def _largest(self, name: str, base: float) -> float:
        """The largest value of a field over the space. base: its value where it is not drawn."""
        drawn = [dimension for dimension in self.space if dimension.field == name]
        return max([*([base] if not drawn or drawn[0].when else []), *(dimension.largest for dimension in drawn)])

    def longest_stages(self, train_images: int) -> tuple[int, int]:
        """Images of either stage at its latest possible end over the whole space; 0 where no trial has a second one.

        train_images: of an epoch.
        """
        config = self.trainer_config("base", 0, {})
        first, second = (
            dataclasses.replace(stage, max_epochs=self._largest(f"{name}.max_epochs", stage.max_epochs))
            for name, stage in (("stage1", config.stage1), ("stage2", config.stage2))
        )
        return first.cap(train_images), second.cap(train_images)

    def longest_images(self) -> int:
        """Images of the longest possible trial."""
        config = self.trainer_config("base", 0, {})
        return sum(self.longest_stages(Manifest.load(config.data.location).num_samples(config.data.train_split)))

    @property
    def gpus_per_worker(self) -> float:
        """GPUs of one process of a trial on cuda."""
        return 1.0 if self.gpus_per_trial == "auto" else self.gpus_per_trial / self.workers


def read_sweep(path: str | Path) -> SweepConfig:
    """Reads a sweep's YAML file. Raises InputError in one line.

    The result has every field of its base among its fields, and absolute folders: a trial runs where the base's file
    may not be, and in a working directory of its own.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} is not a file; the project's own are in tune/configs", parameter="config")
    content = read_yaml(path)
    try:
        if "asha" in content:
            what = "is called stopping now; write stopping: {scheduler: asha}, or {scheduler: none} to stop no trial"
            raise InputError(what, parameter="asha")
        sweep = build(SweepConfig, content | {"space": read_space(content.get("space"))})
        if not Path(sweep.base).is_file():
            raise InputError(f"{sweep.base} is not a file; the project's own are in trainer/configs", parameter="base")
    except InputError as error:
        raise in_file(error, path) from error
    base = load_config(sweep.base)  # its errors name the base's file
    try:
        return _with_base(sweep, base)
    except InputError as error:
        raise in_file(error, path) from error


def _with_base(sweep: SweepConfig, config: Config) -> SweepConfig:
    base = flat(to_dict(config))
    fields = {name: value for name, value in base.items() if name not in SET_BY_THE_SWEEP} | sweep.fields
    for name in ("data.shards", "data.cache_dir", "engine.deepspeed_config"):  # trials run in folders of their own
        if (place := fields[name]) and isinstance(place, str) and "://" not in place:
            fields[name] = str(Path(os.path.expanduser(place)).resolve())
    for section, names in (("space", [dimension.field for dimension in sweep.space]), ("fields", sweep.fields)):
        for name in names:
            if name not in base:
                remedy = f"use {near}" if (near := nearest(name, base)) else "see python -m trainer --help"
                what = f"the trainer's configuration has no such field; {remedy}"
                raise InputError(what, parameter=f"{section}.{name}")
    stopping = sweep.stopping
    if stopping.scheduler == "auto":
        stopping = dataclasses.replace(stopping, scheduler="asha" if sweep.search == "optuna" else "halving")
    sweep = dataclasses.replace(sweep, fields=fields, runs=str(Path(sweep.runs).resolve()), stopping=stopping)
    sweep.trainer_config("base", 0, {})  # raises where a value is impossible
    return sweep
