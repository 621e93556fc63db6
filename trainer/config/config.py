"""The configuration of a run: a YAML file, changed field by field, checked whole before the start."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from data_shards.io.configuration import LocalPathText, Name, NonNegativeInt, build, configuration
from data_shards.io.errors import InputError
from data_shards.io.nested import flat, has, merge, nested
from data_shards.io.strict_yaml import dump_yaml, in_file, read_yaml
from trainer.config.earlier_versions import as_written_today
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
    runs: LocalPathText = "runs"
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
        merge(content, copy.deepcopy(read))
    return _built(files, content, overrides)


def build_as_written(content: Mapping[str, Any]) -> Config:
    """The configuration in the content of a run's config.yaml, which may be of any version."""
    return _built([], as_written_today(content), {})


def _built(
    files: Sequence[tuple[str | Path, Mapping[Any, Any]]], content: dict[str, Any], overrides: Mapping[str, Any]
) -> Config:
    for name, value in overrides.items():
        merge(content, nested(name, value))
    try:
        return build(Config, content)
    except InputError as error:
        if not files or error.parameter in overrides:
            raise
        holding = [path for path, read in files if has(read, error.parameter or "")]
        raise in_file(error, holding[-1] if holding else files[-1][0]) from None


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain lists, numbers and strings, for YAML and JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, tuple | list) else value

    return plain(dataclasses.asdict(config))


def flattened(config: Config) -> dict[str, Any]:
    """The values of all fields by dotted name."""
    return flat(to_dict(config))


def to_yaml(config: Config) -> str:
    """The text of config.yaml."""
    return dump_yaml(to_dict(config))
