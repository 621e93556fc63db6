"""A command that several processes run together."""

import os
import sys
from collections.abc import Callable

from data_shards.io.errors import InputError, command
from trainer.peers.launcher import place_in_job, require_address


def group_command(main: Callable[[], None]) -> int:
    """`data_shards.io.errors.command` for a command that several processes run together.

    Where one of them fails before it has joined the group, the others hear it.
    """
    # torch.distributed.launch and DeepSpeed's launcher add this option; its value is in the environment too.
    sys.argv[1:] = [word for word in sys.argv[1:] if not word.startswith(("--local_rank=", "--local-rank="))]
    # torch reads this on import. It would warn where another process has ended and, on CPUs, where DDP is made to find
    # unused parameters (trainer/engines/ddp.py), that there are none.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    def run() -> None:
        try:
            main()
        except Exception as error:
            if _is_of_several():
                # torch takes seconds to import: one process's mistakes come before.
                from trainer.process_group import report_early

                report_early(error)
            raise

    return command(run)


def _is_of_several() -> bool:
    """Whether there are other processes that this one can reach."""
    try:
        require_address()
        return place_in_job().world_size > 1
    except InputError:
        return False
