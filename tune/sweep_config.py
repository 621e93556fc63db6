"""The configuration of a sweep: a YAML file read into frozen dataclasses and checked before anything starts."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from trainer.config.config import Config, load, to_dict
from trainer.config.sections import require

Fields = dict[str, Any]
"""Fields of the trainer's configuration by dotted name, such as model.latent_dim."""
Kind = Literal["choice", "uniform", "loguniform", "randint"]
ObjectiveName = Literal["elbo", "fd", "cost"]
SET_BY_THE_SWEEP = ("name", "runs", "seed")


@dataclass(frozen=True, kw_only=True)
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
                raise InputError(f"{where}: choice has no values; give at least one")
            return
        whole = self.kind == "randint"
        numbers = [v for v in self.values if isinstance(v, int if whole else int | float) and not isinstance(v, bool)]
        if len(self.values) != 2 or len(numbers) != 2 or not self.values[0] < self.values[1]:
            raise InputError(f"{where}: {self.kind} needs two {'whole ' * whole}numbers [low, high], low below high")
        if self.kind == "loguniform" and self.values[0] <= 0:
            raise InputError(f"{where}: loguniform needs numbers above 0")

    @property
    def largest(self) -> Any:
        """The largest value that can be drawn."""
        return max(self.values)


@dataclass(frozen=True, kw_only=True)
class AshaConfig:
    """Asynchronous successive halving (Li et al. 2020) on images seen."""

    enabled: bool = True
    """False trains every trial to its end."""
    reduction_factor: float = 2.0
    """About 1 in this many trials goes on past a rung, and rungs lie this factor apart; above 1."""
    grace_images: int = 10_000
    """Images past the latest possible switch to stage 2 before which no trial is stopped; at least 1."""

    def __post_init__(self) -> None:
        require(self.reduction_factor > 1, f"asha.reduction_factor: {self.reduction_factor} is not above 1")
        require(self.grace_images >= 1, f"asha.grace_images: {self.grace_images} is below 1")


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """What is measured once a trial has been trained to its end."""

    images: int = 2000
    """Images of a Frechet distance, the same seeds in every trial; 0 measures none."""
    split: str = "valid"
    """Split of the real images; held out, and not the test split of a result."""
    mixture: int = 32
    """Components of the mixture that samples come from; 0 samples from the prior."""
    likelihood_images: int = 0
    """Images of that split whose importance-weighted likelihood is estimated; 0 estimates none."""
    likelihood_samples: int = 20
    """Importance samples of each of them; at least 1."""

    def __post_init__(self) -> None:
        require(self.images == 0 or self.images >= 2, f"measure.images: {self.images} is below 2; 0 measures none")
        require(self.mixture >= 0, f"measure.mixture: {self.mixture} is below 0")
        require(self.likelihood_images >= 0, f"measure.likelihood_images: {self.likelihood_images} is below 0")
        require(self.likelihood_samples >= 1, f"measure.likelihood_samples: {self.likelihood_samples} is below 1")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A whole sweep."""

    name: str
    """Name of the sweep's folder under `runs`."""
    runs: str = "runs"
    """Folder that holds the sweep's folder; on several machines, one that all of them share."""
    base: str
    """YAML file of the trainer's configuration that trials start from: the default that the best is held against."""
    fields: Fields = field(default_factory=dict)
    """Fields by dotted name that trials have instead of the base's; `read_sweep` adds all of the base's."""
    space: tuple[Dimension, ...]
    """What is searched."""
    search: Literal["grid", "random", "optuna"] = "random"
    """grid: all combinations; random: `configurations` independent ones; optuna: TPE, learning from finished ones."""
    configurations: int = 16
    """Configurations of random and optuna; at least 1."""
    seed: int = 0
    """Seed of the search; at least 0."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainer that each configuration is repeated with."""
    confirm_seeds: tuple[int, ...] = ()
    """Seeds that the best configuration and the default are trained with to their ends, after the search."""
    objectives: tuple[ObjectiveName, ...] = ("elbo",)
    """What optuna optimises; the first ranks. elbo: held out, at the closed-form sigma; fd; cost: seconds."""
    workers: int = 1
    """Processes of one trial; at least 1."""
    cpus_per_worker: int = 1
    """CPUs of one process; at least 1."""
    concurrent: int = 0
    """Trials at once; 0: what the CPUs (GPUs on cuda) hold at the start; give it where an autoscaler adds some."""
    retries: int = 3
    """Times that a trial is resumed after a killed worker, and again after a killed driver or node; at least 0."""
    asha: AshaConfig = field(default_factory=AshaConfig)
    """When a trial is stopped early."""
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    """What is measured at its end."""

    def __post_init__(self) -> None:
        for name, least in (("configurations", 1), ("seed", 0), ("workers", 1), ("cpus_per_worker", 1)):
            require(getattr(self, name) >= least, f"{name}: {getattr(self, name)} is below {least}")
        require(self.concurrent >= 0, f"concurrent: {self.concurrent} is below 0")
        require(self.retries >= 0, f"retries: {self.retries} is below 0")
        require(self.search in ("grid", "random", "optuna"), f"search: {self.search!r}; use grid, random or optuna")
        require(len(set(self.seeds)) == len(self.seeds) > 0, "seeds: give at least one, none twice")
        require(len(set(self.confirm_seeds)) == len(self.confirm_seeds), "confirm_seeds: a seed stands there twice")
        unknown = [name for name in self.objectives if name not in ("elbo", "fd", "cost")]
        require(bool(self.objectives) and not unknown, f"objectives: {list(self.objectives)}; use elbo, fd, cost")
        require(self.objectives[0] != "cost", "objectives: cost alone has no quality; name elbo or fd first")
        require("fd" not in self.objectives or self.measure.images > 0, "measure.images: objective fd needs some")
        for taken in SET_BY_THE_SWEEP:
            searched = any(dimension.field == taken for dimension in self.space) or taken in self.fields
            require(not searched, f"space.{taken}: the sweep sets it itself")

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
        """Holds what Ray keeps for itself, to go on after an interruption."""
        return self.folder / "ray"

    def trainer_config(self, name: str, seed: int, drawn: Fields) -> Config:
        """The trainer's configuration of one trial. Raises InputError where the drawn fields are impossible."""
        return load(None, {**self.fields, **drawn, "seed": seed, "name": name, "runs": str(self.trials_folder)})

    def _largest(self, name: str, base: float) -> float:
        return max([base, *(d.largest for d in self.space if d.field == name)])

    def latest_images(self) -> tuple[int, int]:
        """Images at the latest possible switch to stage 2, and at the latest possible end, over the whole space."""
        config = self.trainer_config("base", 0, {})
        images = Manifest.load(config.data.shards).num_samples(config.data.train_split)
        first = round(self._largest("stage1.max_epochs", config.stage1.max_epochs) * images)
        second = round(self._largest("stage2.max_epochs", config.stage2.max_epochs) * images)
        # An update may reach past a stage's cap by less than a batch.
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
        raise InputError("space: is empty; name at least one field, such as model.latent_dim: {choice: [8, 16]}")
    space: list[Dimension] = []
    for name, entry in content.items():
        kinds = [key for key in entry if key != "when"] if isinstance(entry, Mapping) else []
        if len(kinds) != 1 or kinds[0] not in get_args(Kind) or not isinstance(entry[kinds[0]], list):
            raise InputError(f"space.{name}: {entry!r} is unknown; use one of {', '.join(get_args(Kind))} with a list")
        when = entry.get("when", {})
        if not isinstance(when, Mapping):
            raise InputError(f"space.{name}.when: {when!r} is no mapping; use {{field: value}}")
        for other in when:
            if other not in [dimension.field for dimension in space]:
                raise InputError(f"space.{name}.when: {other} is not searched above it; put it first")
        values = tuple(entry[kinds[0]])
        space.append(Dimension(field=str(name), kind=kinds[0], values=values, when=tuple(when.items())))
    return tuple(space)


def read_sweep(path: str | Path) -> SweepConfig:
    """Reads a sweep's YAML file. Raises InputError in one line."""
    if not Path(path).is_file():
        raise InputError(f"--config: {path} is not a file; the project's own are in tune/configs")
    try:
        content = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no fields; see tune/configs")
    values = dict(content)
    values["space"] = read_space(values.get("space"))
    for name, section in (("asha", AshaConfig), ("measure", MeasureConfig)):
        if name in values:
            values[name] = _section(section, values[name], f"{name}.")
    for name in ("seeds", "confirm_seeds", "objectives"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    return _with_base(_section(SweepConfig, values, ""))


def _with_base(sweep: SweepConfig) -> SweepConfig:
    """The sweep with every field of its base among its fields, and absolute folders.

    A trial runs where the base's file may not be, and in a working directory of its own.
    """
    base = flat(to_dict(load(sweep.base)))
    fields = {name: value for name, value in base.items() if name not in SET_BY_THE_SWEEP} | sweep.fields
    shards = str(fields["data.shards"])
    fields["data.shards"] = shards if "://" in shards else str(Path(shards).resolve())
    known = fields.keys()
    for name in [dimension.field for dimension in sweep.space]:
        require(
            name in known, f"space.{name}: the trainer's configuration has no such field; see python -m trainer --help"
        )
    return dataclasses.replace(sweep, fields=fields, runs=str(Path(sweep.runs).resolve()))


def flat(content: Mapping[str, Any], prefix: str = "") -> Fields:
    """Nested sections as fields by dotted name."""
    fields: Fields = {}
    for name, value in content.items():
        fields |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return fields


def _section(kind: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise InputError(f"{prefix.rstrip('.')}: {values!r} is no mapping")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise InputError(f"{prefix}{name}: unknown; the fields are {', '.join(fields)}")
    for name, one in fields.items():
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise InputError(f"{prefix}{name}: missing; it has no default")
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"{prefix or 'sweep'}: a value has the wrong type ({error})") from error
