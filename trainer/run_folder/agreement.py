"""What the processes of a training must have alike before it starts: configuration, shards, run folder.

Machines may have the shards and the run folder under other paths; what lies there must be the same.
"""

import secrets
import time
from pathlib import Path

from data_shards.io.errors import ONLY_READABLE, InputError
from data_shards.manifest import Manifest
from trainer.config.config import Config, flattened
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import Checkpoint

# Fields that may suit each machine.
_OF_A_MACHINE = (
    "runs",
    "data.shards",
    "data.workers",
    "data.on_device",
    "data.cache_dir",
    "data.cache_bytes",
    "data.patience_seconds",
)
# A shared file system may show a new file on other machines after some seconds.
_SECONDS_UNTIL_SHOWN = 5.0


def refuse_different_runs(config: Config, manifest: Manifest, ranks: Ranks) -> None:
    """Raises InputError where the processes have other configurations or shard sets; every process calls it."""
    facts = {name: str(value) for name, value in flattened(config).items() if name not in _OF_A_MACHINE}
    facts["shard set"] = manifest.hash[:12]
    ranks.refuse_differences(facts, "start all processes with the same options, on copies of one shard set")


def refuse_different_checkpoints(saved: Checkpoint | None, ranks: Ranks) -> None:
    """Raises InputError where the processes would go on from different checkpoints; every process calls it."""
    facts = {"checkpoint": f"{saved.state.images} images" if saved else "none"}
    ranks.refuse_differences(facts, "wait until all machines see the same files in the run folder, then start again")


def require_shared_folder(folder: Path, ranks: Ranks) -> None:
    """Raises InputError where a process does not see what the first one writes into `folder`; all call it.

    Where the first one may only read the folder nothing is asked, for no process will write there.
    """
    if ranks.rendezvous is None:
        return
    sign = folder / f".start-{secrets.token_hex(8)}"
    made = ranks.agree(lambda: ranks.is_main and _is_made(sign))
    try:
        name = ranks.rendezvous.exchange({"sign": sign.name if made else ""})[0]["sign"]
        ranks.agree(lambda: _await_sign(folder / name) if name else None)
    finally:
        if made:
            sign.unlink(missing_ok=True)


def _is_made(sign: Path) -> bool:
    try:
        sign.touch()
    except OSError as error:
        if error.errno not in ONLY_READABLE:
            raise
        return False
    return True


def _await_sign(sign: Path) -> None:
    deadline = time.monotonic() + _SECONDS_UNTIL_SHOWN
    while not sign.exists():
        if time.monotonic() > deadline:
            raise InputError(
                f"{sign.parent} is not the folder that rank 0 writes to; use one on a disk that all machines share"
            )
        time.sleep(0.1)
