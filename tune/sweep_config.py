"""The configuration of a sweep: a YAML file read strictly into frozen dataclasses before anything starts."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from data_shards.io.configuration import (
    Name,
    NonNegativeInt,
    PathText,
    PositiveInt,
    Text,
    build,
    configuration,
    nearest,
    shown,
)
from data_shards.io.errors import InputError
from data_shards.io.strict_yaml import in_file, read_yaml
from data_shards.manifest import Manifest
from eval.distance.measures import FURTHER
from trainer.config.config import Config, load_config, to_dict

Fields = dict[str, Any]
"""Fields of the trainer's configuration by dotted name, such as model.latent_dim."""
Kind = Literal["choice", "uniform", "loguniform", "randint"]
ObjectiveName = Literal["elbo", "fd", "cost"]
SET_BY_THE_SWEEP = ("name", "runs", "seed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """One measured number of a trial."""

    field: str
    """The field of `tune.trial.record.TrialRecord` that holds it."""
    sign: int
    """1 where more is better, -1 where less is."""
    title: str
    """Its name and unit in the report."""


OBJECTIVES: dict[ObjectiveName, Objective] = {
    "elbo": Objective(field="final_elbo", sign=1, title="held-out ELBO at the closed-form sigma, nats per image"),
    "fd": Objective(field="fd_final", sign=-1, title="held-out FD of samples"),
    "cost": Objective(field="seconds", sign=-1, title="seconds of training"),
}


@configuration
class Dimension:
    """One field that is searched."""

    field: str
    """Dotted name of a field of the trainer's configuration, such as model.latent_dim."""
    kind: Kind
    """choice: one of the values; uniform, loguniform: a number between two; randint: a whole one, ends included."""
    values: tuple[Any, ...]
    """The choices, or the lower and the upper end."""
    when: tuple[tuple[str, Any], ...] = ()
    """(field, value) pairs that must all hold for this field to be drawn; else it keeps the base's value."""

    def __post_init__(self) -> None:
        where = f"space.{self.field}"
        if self.kind == "choice":
            if not self.values:
                raise InputError("choice has no values; give at least one", parameter=where)
            return
        whole = self.kind == "randint"
        numbers = [v for v in self.values if isinstance(v, int if whole else int | float) and not isinstance(v, bool)]
        if len(self.values) != 2 or len(numbers) != 2 or not self.values[0] < self.values[1]:
            what = f"{self.kind} needs two {'whole ' * whole}numbers [low, high], low below high"
            raise InputError(what, parameter=where)
        if self.kind == "loguniform" and self.values[0] <= 0:
            raise InputError("loguniform needs numbers above 0", parameter=where)

    @property
    def largest(self) -> Any:
        """The largest value that can be drawn."""
        return max(self.values)


@configuration
class AshaConfig:
    """Asynchronous successive halving (Li et al. 2020) on images seen."""

    enabled: bool = True
    """False trains every trial to its end."""
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    """About 1 in this many trials continues past a rung, and rungs lie this factor apart; above 1."""
    grace_images: PositiveInt = 10_000
    """Images past the latest possible switch to stage 2 before which no trial is stopped; at least 1."""


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
        if self.also and not self.images:
            raise InputError("further measures need images, of which there are 0; use 2000", parameter="images")
        if self.images == 1:
            raise InputError("1 is too few for a distance; use 0 for none, or at least 2", parameter="images")


@configuration
class SweepConfig:
    """A whole sweep."""

    name: Name
    """Name of the sweep's folder under `runs`."""
    runs: PathText = "runs"
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
    concurrent: NonNegativeInt = 0
    """Trials at once; 0: as many as fit on the CPUs (GPUs on cuda) at the start. With an autoscaler, set it."""
    retries: NonNegativeInt = 3
    """Times that a trial is resumed after a killed worker, and again after a killed driver or node; at least 0."""
    asha: AshaConfig = dataclasses.field(default_factory=AshaConfig)
    """When a trial is stopped early."""
    measure: MeasureConfig = dataclasses.field(default_factory=MeasureConfig)
    """What is measured at its end."""

    def __post_init__(self) -> None:
        for name in ("seeds", "confirm_seeds"):
            seeds = getattr(self, name)
            if len(set(seeds)) < len(seeds):
                raise InputError(f"{shown(seeds)} has a seed twice; give each once", parameter=name)
        if self.objectives[0] == "cost":
            raise InputError("cost alone measures no quality; put elbo or fd first", parameter="objectives")
        if "fd" in self.objectives and self.measure.images == 0:
            raise InputError("0 measures no distance, which objective fd needs; use 2000", parameter="measure.images")
        for name in SET_BY_THE_SWEEP:
            if name in self.fields or any(dimension.field == name for dimension in self.space):
                section = "fields" if name in self.fields else "space"
                raise InputError("the sweep sets it itself; leave it out", parameter=f"{section}.{name}")

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
        return max([base, *(d.largest for d in self.space if d.field == name)])

    def latest_images(self) -> tuple[int, int]:
        """Images at the latest possible switch to stage 2, and at the latest possible end, over the whole space."""
        config = self.trainer_config("base", 0, {})
        images = Manifest.load(config.data.location).num_samples(config.data.train_split)
        first, second = (
            dataclasses.replace(stage, max_epochs=self._largest(f"{name}.max_epochs", stage.max_epochs)).cap(images)
            for name, stage in (("stage1", config.stage1), ("stage2", config.stage2))
        )
        # An update may exceed a stage's cap by less than a batch.
        batch = round(self._largest("data.global_batch", config.data.global_batch))
        return first + batch, first + second + 2 * batch

    def rungs(self) -> tuple[int, ...]:
        """Images at which ASHA compares a trial with the others; the first lies past any trial's latest switch.

        Empty where nothing is stopped early, or no rung lies before the end of the longest trial.
        """
        if not self.asha.enabled:
            return ()
        switch, end = self.latest_images()
        images, found = float(switch + self.asha.grace_images), []
        while images <= end:
            found.append(round(images))
            images *= self.asha.reduction_factor
        return tuple(found)


def read_space(content: Any) -> tuple[Dimension, ...]:
    """The space of a YAML mapping {field: {kind: values, when: {field: value}}}. Raises InputError in one line."""
    if not isinstance(content, Mapping) or not content:
        what = "is empty; name at least one field, such as model.latent_dim: {choice: [8, 16]}"
        raise InputError(what, parameter="space")
    space: list[Dimension] = []
    for name, entry in content.items():
        where = f"space.{name}"
        kinds = [key for key in entry if key != "when"] if isinstance(entry, Mapping) else []
        if len(kinds) != 1 or kinds[0] not in get_args(Kind) or not isinstance(entry[kinds[0]], list):
            what = f"{shown(entry)} is unknown; use one of {', '.join(get_args(Kind))} with a list"
            raise InputError(what, parameter=where)
        when = entry.get("when", {})
        if not isinstance(when, Mapping):
            raise InputError(f"{shown(when)} is no mapping; use {{field: value}}", parameter=f"{where}.when")
        for other in when:
            if other not in [dimension.field for dimension in space]:
                raise InputError(f"{other} is not searched above it; put it first", parameter=f"{where}.when")
        values = tuple(entry[kinds[0]])
        space.append(Dimension(field=str(name), kind=kinds[0], values=values, when=tuple(when.items())))
    return tuple(space)


def read_sweep(path: str | Path) -> SweepConfig:
    """Reads a sweep's YAML file. Raises InputError in one line.

    The result has every field of its base among its fields, and absolute folders: a trial runs where the base's file
    may not be, and in a working directory of its own.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} is not a file; the project's own are in tune/configs", parameter="config")
    content = read_yaml(path)
    try:
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
    for name in ("data.shards", "data.cache_dir"):  # trials run in folders of their own
        if (place := str(fields[name])) and "://" not in place:
            fields[name] = str(Path(place).resolve())
    for section, names in (("space", [dimension.field for dimension in sweep.space]), ("fields", sweep.fields)):
        for name in names:
            if name not in base:
                remedy = f"use {near}" if (near := nearest(name, base)) else "see python -m trainer --help"
                what = f"the trainer's configuration has no such field; {remedy}"
                raise InputError(what, parameter=f"{section}.{name}")
    sweep = dataclasses.replace(sweep, fields=fields, runs=str(Path(sweep.runs).resolve()))
    sweep.trainer_config("base", 0, {})  # raises where a value is impossible
    return sweep


def flat(content: Mapping[str, Any], prefix: str = "") -> Fields:
    """Nested sections as fields by dotted name."""
    fields: Fields = {}
    for name, value in content.items():
        fields |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return fields
