"""The configuration of a run: a YAML file, changed field by field on the command line, checked before the start."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import yaml

from data_shards.io.errors import InputError
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
    require,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    name: str = "fashion-mnist"
    """Name of the run folder under `runs`; letters, digits, dot, dash and underscore."""
    runs: str = "runs"
    """Folder that holds the run folders."""
    seed: int = 0
    """Seed of the initial weights, the order of images and all noise; at least 0."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the networks run."""
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
        require(
            re.fullmatch(r"[A-Za-z0-9._-]+", self.name) is not None and set(self.name) != {"."},
            f"name: {self.name!r} cannot name a folder; use letters, digits, dot, dash and underscore",
        )
        require(self.seed >= 0, f"seed: {self.seed} is below 0")
        require(self.stage1.max_epochs > 0, f"stage1.max_epochs: {self.stage1.max_epochs} is not above 0")
        require(
            self.engine.precision == "float32" or self.device == "cuda",
            "engine.precision: bf16 is many times slower than float32 on a CPU; use float32 there",
        )
        require(
            self.engine.name == "ddp" or self.optimiser.ema_images == 0,
            "optimiser.ema_images: engine deepspeed shards the weights and keeps no average of them; use engine ddp",
        )
        require(
            self.model.norm != "batch" or self.engine.grad_accumulation_steps == 1,
            "engine.grad_accumulation_steps: batch norm takes its statistics over the whole batch; use 1, or norm "
            "group or none",
        )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.runs) / self.name

    @property
    def two_stages(self) -> bool:
        """True where a stage with per-pixel variances follows the first."""
        return self.objective.name == "sigma_vae" and self.stage2.max_epochs > 0


# The names that fields had in the first run folders.
OLD_NAMES = {
    "optimiser.max_grad_norm": "gradient_clip",
    "engine.grad_accumulation_steps": "micro_batches",
    "checkpoint.keep_last": "keep",
    "variance.min_variance": "smallest",
}

# These say where and how a run is carried out, not what is learnt: a run may be resumed with other values.
FREE_TO_CHANGE = ("runs", "device", "data.shards", "data.workers", "data.substitutes", "engine", "checkpoint", "log")


def parser() -> jsonargparse.ArgumentParser:
    """The command line of the trainer: --config FILE, then --any.field value."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    made = jsonargparse.ArgumentParser(
        prog="python -m trainer",
        description="Trains a two-stage sigma-VAE. The same command again goes on from the last checkpoint. "
        "Start it on several processes with torchrun, deepspeed or srun.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    made.add_argument("--config", action="config", help="YAML file with any of the fields below")
    made.add_class_arguments(Config, fail_untyped=True)
    return made


def load(path: str | Path | None, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Config:
    """Reads a configuration.

    path: a YAML file, or None for the defaults. overrides: {"data.global_batch": 64, ...}, or command-line words such
    as ["--data.global_batch", "64"]. Raises InputError, in one line, for what is not a valid configuration.
    """
    if path is not None and not Path(path).is_file():
        raise InputError(f"--config: {path} is not a file; the project's own are in trainer/configs")
    if isinstance(overrides, Mapping):
        words = [f"--{name}={_as_word(value)}" for name, value in overrides.items()]
    else:
        words = list(overrides)
    return parse(([f"--config={path}"] if path is not None else []) + words)


def _as_word(value: Any) -> str:
    """A value as one would type it. A text is typed as it is: quotes would become part of it."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip().removesuffix("\n...")


def parse(words: Sequence[str]) -> Config:
    """Reads the command line `words`, --config included. Raises InputError in one line."""
    made = parser()
    try:
        return _instantiate(made, made.parse_args(list(words)))
    except (jsonargparse.ArgumentError, yaml.YAMLError, TypeError, ValueError, OSError) as error:
        raise InputError(_one_line(error)) from error


def _instantiate(made: jsonargparse.ArgumentParser, parsed: jsonargparse.Namespace) -> Config:
    values = made.instantiate(parsed).as_dict()
    values.pop("config", None)
    sections = {
        f.name: f.default_factory for f in dataclasses.fields(Config) if f.default_factory is not dataclasses.MISSING
    }
    for name, section in sections.items():
        if isinstance(values[name], Mapping):
            values[name] = section(**values[name])
    return Config(**values)


def _one_line(error: BaseException) -> str:
    """The gist of jsonargparse's explanation, which spreads over many lines."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split())


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain lists, numbers and strings, for YAML and JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, tuple | list) else value

    return plain(dataclasses.asdict(config))


def with_old_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """The result of `to_dict` under OLD_NAMES, so that a hash of it is the same as before the fields were renamed."""
    return _renamed(content, OLD_NAMES)


def with_new_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a config.yaml, which may have OLD_NAMES, under the names of today."""
    return _renamed(
        content, {f"{new.partition('.')[0]}.{old}": new.partition(".")[2] for new, old in OLD_NAMES.items()}
    )


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
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def differences(old: Config, new: Config) -> list[str]:
    """The fields, as `field: old -> new`, that decide what is learnt and are not equal."""
    return _differences(to_dict(old), to_dict(new), "")


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str) -> list[str]:
    found: list[str] = []
    for key in old:
        name = prefix + key
        if name in FREE_TO_CHANGE or old[key] == new[key]:
            continue
        if isinstance(old[key], dict):
            found += _differences(old[key], new[key], f"{name}.")
        else:
            found.append(f"{name}: {old[key]} -> {new[key]}")
    return found
