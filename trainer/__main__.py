"""python -m trainer --config trainer/configs/celeba.yaml [--any.field value]

torchrun --standalone --nproc-per-node 2 -m trainer --config ...    two processes on one machine
deepspeed --num_gpus 2 --module trainer --config ...                the same by DeepSpeed's launcher, also without GPUs
srun python -m trainer --config ...                                 one task a rank
"""

import os
import sys

# On CPUs DDP is made to find unused parameters (ddp.py), and warns that there are none; torch reads this on import.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from data_shards.io.errors import InputError, command
from trainer.config.config import parse
from trainer.loop import train


def main() -> None:
    # DeepSpeed's launcher adds this option; its value is in the environment too.
    words = [word for word in sys.argv[1:] if not word.startswith("--local_rank=")]
    try:
        config = parse(words)
    except InputError:
        # Every process finds the same mistake; only one of them prints it.
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
            sys.exit(2)
        raise
    train(config)


if __name__ == "__main__":
    sys.exit(command(main))
