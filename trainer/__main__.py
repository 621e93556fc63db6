"""python -m trainer --config trainer/configs/celeba.yaml [--any.field value]

torchrun --standalone --nproc-per-node 2 -m trainer --config ...    two processes on one machine
deepspeed --num_gpus 2 --module trainer --config ...                the same by DeepSpeed's launcher, also without GPUs
srun python -m trainer --config ...                                 one task a rank
"""

import os
import sys

# On CPUs DDP looks for unused parameters on purpose (engine.py) and warns that it finds none; torch reads this once.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from data_shards.io.errors import InputError, command
from trainer.config.config import parse
from trainer.loop import train


def main() -> None:
    # DeepSpeed's launcher adds this word; what it says is in the environment too.
    words = [word for word in sys.argv[1:] if not word.startswith("--local_rank=")]
    try:
        config = parse(words)
    except InputError:
        # Every process reads the same mistake; one of them tells it.
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
            sys.exit(2)
        raise
    train(config)


if __name__ == "__main__":
    sys.exit(command(main))
