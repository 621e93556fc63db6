"""`python -m trainer.mixture`: fits mixtures to the latent codes of a run."""

import sys

from data_shards.errors import command
from trainer.mixture.fit_command import main

if __name__ == "__main__":
    sys.exit(command(main))
