"""The configuration of a run: a YAML file, changed field by field, checked whole before the start."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from data_shards.io.configuration import (
    Name,
    NonNegativeInt,
    PathText,
    build,
    configuration,
)
from data_shards.io.errors import InputError
from data_shards.io.strict_yaml import dump_yaml, in_file, read_yaml
from trainer.config.methods import METHODS
from trainer.config.sections import (
    CheckpointConfig,
    DataConfig,
    EngineConfig,
    LogConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    StageConfig,
    VarianceConfig,
)


@configuration
class Config:
    """A whole run."""

    name: Name = "fashion-mnist"
    """Name of the run folder under `runs`."""
    runs: PathText = "runs"
    """Folder that holds the run folders."""
    seed: NonNegativeInt = 0
    """Seed of the initial weights, the order of images and all noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto is cuda where there is a GPU for each process of the machine."""
    data: DataConfig = field(default_factory=DataConfig)
    """The shards and how they are read."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The networks."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What is minimised."""
    variance: VarianceConfig = field(default_factory=VarianceConfig)
    """The variance of the likelihood."""
    stage1: StageConfig = field(default_factory=StageConfig)
    """One variance for the whole data set."""
    stage2: StageConfig = field(default_factory=StageConfig)
    """One variance a pixel; only sigma_vae has it."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """Adam and what surrounds it."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """How an update is carried out."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """What is kept."""
    log: LogConfig = field(default_factory=LogConfig)
    """What is written while training."""

    def __post_init__(self) -> None:
        if self.stage1.max_epochs == 0:
            raise InputError("stage 1 cannot be left out; use a number above 0", parameter="stage1.max_epochs")
        if self.variance.family != "gaussian" and not self.two_stages:
            raise InputError(
                f"{self.variance.family} is the density of stage 2, which this run has not; use gaussian",
                parameter="variance.family",
            )
        self.require_device(self.device)
        if self.engine.name == "deepspeed" and self.optimiser.ema_images > 0:
            raise InputError(
                "engine deepspeed shards the weights and keeps no average of them; use 0 or engine ddp",
                parameter="optimiser.ema_images",
            )
        if self.data.global_batch == 1 and (self.model.norm == "batch" or METHODS[self.objective.name].penalty):
            needs = "norm batch takes its" if self.model.norm == "batch" else f"{self.objective.name} takes its"
            raise InputError(f"{needs} statistics over the images of a batch; use 2 or more", "data.global_batch")
        if self.engine.grad_accumulation_steps > self.data.global_batch:
            raise InputError(
                f"a batch of {self.data.global_batch} images cannot be cut into {self.engine.grad_accumulation_steps} "
                f"parts; use {self.data.global_batch} or fewer",
                parameter="engine.grad_accumulation_steps",
            )
        if self.model.norm == "batch" and self.engine.grad_accumulation_steps > 1:
            raise InputError(
                "batch norm takes its statistics over the whole batch; use 1, or norm group or none",
                parameter="engine.grad_accumulation_steps",
            )

    def require_device(self, device: str) -> None:
        """Raises InputError where the run cannot be carried out on "cpu" or "cuda", which `device: auto` has become."""
        if self.engine.precision == "bf16" and device == "cpu":
            raise InputError(
                "bf16 is many times slower than float32 on a CPU; use auto or float32", parameter="engine.precision"
            )
        if self.engine.cuda_graphs is True and device == "cpu":
            raise InputError("the run is on a CPU, which has no CUDA graphs; use auto", parameter="engine.cuda_graphs")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.runs) / self.name

    @property
    def two_stages(self) -> bool:
        """True where a stage with per-pixel variances follows the first."""
        return METHODS[self.objective.name].learns_variance and self.stage2.max_epochs > 0


# These say where and how a run is carried out, not what is learnt: a run may be resumed with other values.
FREE_TO_CHANGE = (
    "name",
    "runs",
    "device",
    *(
        f"data.{name}"
        for name in ("shards", "workers", "on_device", "substitutes", "patience_seconds", "cache_bytes", "cache_dir")
    ),
    "engine",
    "checkpoint",
    "log",
)

# What was learnt so far stays what it was under other values of these: how fast and how long a run goes on. With
# --allow-change a trained run is continued with them.
CHANGEABLE = (
    "stage1",
    "stage2",
    "data.valid_images",
    "objective.kl_warmup_images",
    "variance.learning_rate",
    "variance.smoothing_images",
    "variance.min_variance",
    "optimiser.learning_rate",
    "optimiser.schedule",
    "optimiser.final_fraction",
    "optimiser.stage2_fraction",
    "optimiser.warmup_images",
    "optimiser.switch_warmup_images",
    "optimiser.at_switch",
    "optimiser.max_grad_norm",
)

# Fields that came later, with the values at which a run is what it was before them. A run folder without the field has
# this value, and kept measurements know a run with this value by the same hash.
ADDED_FIELDS: dict[str, Any] = {
    "stage1.min_images": 0,
    "stage2.min_images": 0,
    "data.flip": False,
    "stage1.restore_best": False,
    "stage2.restore_best": False,
    "optimiser.switch_warmup_images": 0,
    "variance.family": "gaussian",
}

# The names that fields had in the first run folders.
OLD_NAMES = {
    "optimiser.max_grad_norm": "gradient_clip",
    "engine.grad_accumulation_steps": "micro_batches",
    "checkpoint.keep_last": "keep",
    "variance.min_variance": "smallest",
}


def load_config(source: str | Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads a configuration.

    source: a run folder, a YAML file, or None for the defaults. overrides: other values for some fields by dotted name:
    {"data.global_batch": 64}. Raises InputError, in one line with field, value and file, for what is not valid.
    """
    if source is None:
        return from_files([], overrides or {})
    path = Path(source)
    if (path / "config.yaml").is_file():
        return from_files([path / "config.yaml"], overrides or {})
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return from_files([path], overrides or {})
    raise InputError(f"{source} holds no config.yaml; give a run folder that `python -m trainer` made", parameter="run")


def from_files(paths: Iterable[str | Path], overrides: Mapping[str, Any]) -> Config:
    """The configuration in YAML files, the later ones over the earlier ones, and `overrides` over all of them."""
    content: dict[str, Any] = {}
    files: list[tuple[str | Path, dict[Any, Any]]] = []
    for path in paths:
        if not Path(path).exists() or Path(path).is_dir():
            remedy = "use its config.yaml" if (Path(path) / "config.yaml").exists() else "use a YAML file"
            what = f"is a folder; {remedy}" if Path(path).is_dir() else "is not there; use a YAML file"
            raise InputError(f"{str(path) or repr('')} {what}, the project's own are in trainer/configs", "config")
        read = read_yaml(path)
        # A run folder's own file may be of a time when fields had other names.
        read = as_written_today(read) if Path(path).name == "config.yaml" else read
        files.append((path, read))
        _merge(content, copy.deepcopy(read))
    return _built(files, content, overrides)


def build_as_written(content: Mapping[str, Any]) -> Config:
    """The configuration in the content of a run's config.yaml, which may be of any version."""
    return _built([], as_written_today(content), {})


def _built(
    files: Sequence[tuple[str | Path, Mapping[Any, Any]]], content: dict[str, Any], overrides: Mapping[str, Any]
) -> Config:
    for name, value in overrides.items():
        *sections, last = name.split(".")
        nested: dict[str, Any] = {last: value}
        for section in reversed(sections):
            nested = {section: nested}
        _merge(content, nested)
    try:
        return build(Config, content)
    except InputError as error:
        if not files or error.parameter in overrides:
            raise
        holding = [path for path, read in files if _has(read, error.parameter or "")]
        raise in_file(error, holding[-1] if holding else files[-1][0]) from None


def _has(content: Mapping[Any, Any], name: str) -> bool:
    """Whether a file's content sets the field, or the section, of that dotted name."""
    here: Any = content
    for key in name.split("."):
        if not isinstance(here, Mapping) or key not in here:
            return False
        here = here[key]
    return True


def _merge(content: dict[Any, Any], newer: Mapping[Any, Any]) -> None:
    """Writes the fields of `newer` over those of `content`; a section only over the fields that it has."""
    for name, value in newer.items():
        if isinstance(value, Mapping) and isinstance(content.setdefault(name, {}), dict):
            _merge(content[name], value)
        else:
            content[name] = value


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain lists, numbers and strings, for YAML and JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, tuple | list) else value

    return plain(dataclasses.asdict(config))


def flattened(config: Config) -> dict[str, Any]:
    """The values of all fields by dotted name."""

    def leaves(content: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in content.items():
            found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        return found

    return leaves(to_dict(config), "")


def as_first_written(content: Mapping[str, Any]) -> dict[str, Any]:
    """The result of `to_dict` as the first version had it, with OLD_NAMES and without ADDED_FIELDS at their old values.

    So a hash of it is the same as before fields were renamed and added.
    """
    found = _renamed(content, OLD_NAMES)
    for name, value in ADDED_FIELDS.items():
        section, _, field = name.rpartition(".")
        inner = found[section] if section else found
        if inner.get(field, value) == value:
            inner.pop(field, None)
    return _smoothing(found, "smoothing_images", "smoothing")


def as_written_today(content: Mapping[Any, Any]) -> dict[Any, Any]:
    """The content of a run's config.yaml, which may be of any version, with today's names and ADDED_FIELDS."""
    content = _with_log_targets(content)
    renamed = _renamed(
        content, {f"{new.partition('.')[0]}.{old}": new.partition(".")[2] for new, old in OLD_NAMES.items()}
    )
    found: dict[Any, Any] = {}
    for name, value in ADDED_FIELDS.items():
        section, _, field = name.rpartition(".")
        _merge(found, {section: {field: value}} if section else {field: value})
    _merge(found, renamed)
    return _smoothing(found, "smoothing", "smoothing_images")


def _smoothing(content: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Replaces the weight of a batch in the mean of sigma^2 by the images that it looks back over, or the reverse."""
    section, batch = dict(content.get("variance") or {}), content.get("data", {}).get("global_batch")
    value = section.pop(old, None)
    if not isinstance(value, int | float) or not isinstance(batch, int) or value <= 0:
        return content
    return {**content, "variance": {**section, new: batch / value}}


def _with_log_targets(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """`content` with log.to for the log.tensorboard of earlier versions."""
    log = content.get("log")
    if not isinstance(log, Mapping) or "tensorboard" not in log:
        return content
    kept = {name: value for name, value in log.items() if name != "tensorboard"}
    return {**content, "log": {"to": ["tensorboard"] if log["tensorboard"] else [], **kept}}


def _renamed(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """`content` with the field "section.field" of each section called `names["section.field"]` instead."""
    return {
        section: {names.get(f"{section}.{name}", name): value for name, value in fields.items()}
        if isinstance(fields, Mapping)
        else fields
        for section, fields in content.items()
    }


def to_yaml(config: Config) -> str:
    """The text of config.yaml."""
    return dump_yaml(to_dict(config))


def extended(old: Config, new: Config) -> Config:
    """`old` with the longer last stage that `new` may have: a run, finished or not, may go on with it."""
    last = "stage2" if new.two_stages else "stage1"
    asked, had = getattr(new, last).max_epochs, getattr(old, last).max_epochs
    return dataclasses.replace(old, **{last: dataclasses.replace(getattr(old, last), max_epochs=max(asked, had))})


def changed_fields(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The old and the new value of each field, by dotted name, that decides what is learnt and is not equal."""
    return _changed_fields(to_dict(old), to_dict(new), "")


def _changed_fields(old: dict[str, Any], new: dict[str, Any], prefix: str) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for key in old:
        name = prefix + key
        if name in FREE_TO_CHANGE or old[key] == new[key]:
            continue
        if isinstance(old[key], dict):
            found |= _changed_fields(old[key], new[key], f"{name}.")
        else:
            found[name] = (old[key], new[key])
    return found


def is_changeable(name: str) -> bool:
    """Whether CHANGEABLE has the field, or the section that it is in."""
    return name in CHANGEABLE or name.partition(".")[0] in CHANGEABLE
