"""python -m trainer --config trainer/configs/celeba.yaml [--any.field value] [--dry-run]

torchrun --standalone --nproc-per-node 2 -m trainer --config ...    two processes on one machine
deepspeed --num_gpus 2 --module trainer --config ...                the same by DeepSpeed's launcher, also without GPUs
srun python -m trainer --config ...                                 one task a rank
"""

import contextlib
import os
import sys

# On CPUs DDP is made to find unused parameters (ddp.py), and warns that there are none; torch reads this on import.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from data_shards.io.errors import InputError, command
from trainer.config.command_line import read_command_line


def main() -> None:
    """Reads the command line, then trains or estimates."""
    # DeepSpeed's launcher adds this option; its value is in the environment too.
    words = [word for word in sys.argv[1:] if not word.startswith("--local_rank=")]
    try:
        asked = read_command_line(words)
    except InputError:
        # Every process finds the same mistake; only one of them prints it.
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
            sys.exit(2)
        raise
    # torch takes seconds to import: --help and mistakes come before.
    if not asked.dry_run:
        from trainer.loop import train

        train(asked.config)
        return
    from trainer.dry_run import dry_run

    with contextlib.redirect_stdout(sys.stderr if asked.print_folder else sys.stdout):
        dry_run(asked.config, asked.processes)
    if asked.print_folder:
        print(asked.config.folder)


if __name__ == "__main__":
    sys.exit(command(main))
