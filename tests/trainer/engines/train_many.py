"""Trains several runs one after the other in one group of processes: torchrun train_many.py FILE."""

import json
import sys
from pathlib import Path

from trainer.__main__ import read_command_line
from trainer.loop import train
from trainer.process_group import process_group

with process_group():
    for words in json.loads(Path(sys.argv[1]).read_text()):
        train(read_command_line(words).config)
