"""`python -m trainer.mixture`: fits mixtures to the latent codes of a run."""

import sys

from data_shards.io.errors import command
from trainer.mixture.command import main

if __name__ == "__main__":
    sys.exit(command(main))
