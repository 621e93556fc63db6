"""Another configuration for a run folder: taken where nothing was trained, and in part where something was."""

from data_shards.io.errors import InputError
from trainer.config.config import Config
from trainer.config.what_may_change import changed_fields, extended, is_changeable
from trainer.run_folder.checkpoint import RunState, checkpoints_not_taken, complete_checkpoints
from trainer.run_folder.configurations import trained_configuration
from trainer.run_folder.effect import Moment


def accepted_changes(config: Config, *, allow_change: bool) -> tuple[str, ...] | None:
    """The fields, as `field: old -> new`, in which `config` differs from the configuration of its run folder.

    None where nothing was trained there, so that any configuration may begin. A longer last stage is always accepted,
    and with allow_change other values of fields that do not alter what was learnt so far. Raises InputError for
    changes that are not accepted, and where the configuration of a trained run is missing, damaged or not its own, or
    all of its checkpoints are links or have the name of another place.
    """
    path = config.folder / "config.yaml"
    if not complete_checkpoints(config.folder):
        if others := checkpoints_not_taken(config.folder):
            found, reason = others[-1]
            remedy = "put the folder itself in its place" if found.is_symlink() else "give it back its name"
            raise InputError(
                f"{found}: {reason}, and the run has no other checkpoint; {remedy}, or choose another name"
            )
        return None
    if not path.is_file():
        raise InputError(f"{path}: is missing, but the run has checkpoints; put it back, or choose another name")
    stored = trained_configuration(config.folder)
    fields, longer = changed_fields(stored, config), changed_fields(stored, extended(stored, config))
    changes = tuple(f"{name}: {old} -> {new}" for name, (old, new) in fields.items())
    if any(not is_changeable(name) for name in fields):
        raise InputError(
            f"{path}: the run was trained with another configuration ({'; '.join(changes)}); "
            "restore these fields or choose another name"
        )
    if not allow_change and any(name not in longer for name in fields):
        raise InputError(
            f"{path}: the run was trained with another configuration ({'; '.join(changes)}); "
            "add --allow-change to go on with it, restore these fields or choose another name"
        )
    return changes


def refuse_without_effect(config: Config, state: RunState, train_images: int) -> None:
    """Raises InputError for an accepted change that changes nothing any more where the run goes on from `state`.

    train_images: of an epoch.
    """
    stored = trained_configuration(config.folder)
    fields = changed_fields(stored, config)
    moment = Moment(old=stored, new=config, state=state, train_images=train_images)
    idle = [f"{name}: {old} -> {new}" for name, (old, new) in fields.items() if not moment.acts(name)]
    if idle:
        raise InputError(f"{config.folder / 'config.yaml'}: {'; '.join(idle)} would change nothing: {moment.why()}")
