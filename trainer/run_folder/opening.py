"""Opening the run folder of a training: a new one, or one to resume whose configuration and shards are the same."""

from dataclasses import dataclass

from data_shards.io.atomic import write_text
from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from trainer.config.config import Config, differences, load_config, to_yaml
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import Checkpoint, RunState, newest_undamaged


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """What a training starts from."""

    manifest: Manifest
    saved: Checkpoint | None
    """The checkpoint to resume from; None at the start of a run."""
    damaged: tuple[str, ...]
    """A line for each newer checkpoint that is damaged and was skipped."""

    @property
    def state(self) -> RunState | None:
        """Where the run stands; None at its start."""
        return self.saved.state if self.saved is not None else None


def open_run_folder(config: Config, ranks: Ranks) -> OpenedRun:
    """Checks the shards and the run folder, and writes config.yaml into a new one; every process calls it.

    Raises InputError where a split is missing, the run was started with another configuration or shard set, or all
    checkpoints are damaged. An error on one process ends all of them, or the others would wait for it.
    """
    manifest, started = ranks.agree(lambda: (_checked_manifest(config), _was_started(config)))
    saved, damaged = ranks.agree(lambda: _resume(config, manifest) if started else _begin(config, ranks))
    return OpenedRun(manifest=manifest, saved=saved, damaged=damaged)


def _checked_manifest(config: Config) -> Manifest:
    manifest = Manifest.load(config.data.shards)
    for field in ("train_split", "valid_split"):
        split = getattr(config.data, field)
        if split not in manifest.splits or manifest.num_samples(split) == 0:
            known = ", ".join(manifest.splits)
            raise InputError(f"{config.data.shards} has no split {split!r}; it has {known}", parameter=f"data.{field}")
    return manifest


def _was_started(config: Config) -> bool:
    """Whether the run folder exists. Raises InputError where its configuration is another one."""
    path = config.folder / "config.yaml"
    if not path.exists():
        return False
    changed = differences(load_config(config.folder), config)
    if changed:
        raise InputError(
            f"{path}: the run was started with another configuration ({'; '.join(changed)}); "
            "restore these fields or choose another name"
        )
    return True


def _begin(config: Config, ranks: Ranks) -> tuple[None, tuple[str, ...]]:
    if ranks.is_main:
        config.folder.mkdir(parents=True, exist_ok=True)
        write_text(config.folder / "config.yaml", to_yaml(config))
    return None, ()


def _resume(config: Config, manifest: Manifest) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The newest undamaged checkpoint, None if the run ended before its first one, and the damaged ones' messages."""
    saved, damaged = newest_undamaged(config.folder)
    if saved is None and damaged:
        raise InputError(f"{damaged[0]}; all checkpoints are damaged")
    if saved is not None and saved.state.manifest != manifest.hash:
        raise InputError(
            f"{config.data.shards} is not the shard set that {config.folder} was trained on (its hash was "
            f"{saved.state.manifest[:12]}, here {manifest.hash[:12]}); choose another name",
            parameter="data.shards",
        )
    return saved, damaged
