"""A tiny extractor, `--extractor support.distance_extractor:make`, and the set of images that tests compare."""

import os
import time
from pathlib import Path

import torch
from torch import nn

from data_shards.io.errors import OneLineParser
from eval.commands import fid as fid_command
from eval.commands.options import question_of
from eval.distance.comparison import comparison
from eval.images.blocks import BLOCK
from eval.questions import DistanceQuestion
from eval.run import load_run

DIM, N = 24, 700
FOLDER_SIZE = 30
"""Images of a folder that is compared with another."""
TINY = ("--extractor", "support.distance_extractor:make", "--extractor-size", "32")


def make(device):
    """Random convolutions, the same in every process."""
    convolution = nn.Conv2d(3, DIM, 8, stride=8)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    return nn.Sequential(convolution, nn.ReLU()).to(device).eval()


def make_slow(device):
    """The same, but after its third batch it writes the file $NOTE and waits to be killed."""
    network, calls = make(device), []

    def features(images):
        calls.extend([len(images)] if len(images) == BLOCK else [])  # the probe's batches are smaller
        if len(calls) == 3 and "NOTE" in os.environ:
            Path(os.environ["NOTE"]).touch()
            time.sleep(600)
        return network(images)

    return features


def words(run, *options, extractor="support.distance_extractor:make"):
    """Options of `python -m eval fid` for a small set of samples; later ones win."""
    small = ["--extractor-size", "32", "--extractor", extractor]
    source = options[options.index("--from") + 1] if "--from" in options else "q_hat"
    small += ["--n", str(N)] if source != "half" else []
    mixture = ["--mixture", "4"] if source in ("q_hat", "transported") else []
    return ["--run", str(run), "--from", source, *mixture, *small, *options]


def arguments(run, *options):
    """The same, parsed."""
    parser = OneLineParser()
    fid_command.add_arguments(parser)
    return parser.parse_args(words(run, *options))


def question(run, *options):
    """The comparison that the options describe, on one CPU."""
    args, cpu = arguments(run, *options), torch.device("cpu")
    return comparison(load_run(args.run, args.weights, cpu), question_of(DistanceQuestion, args), cpu)


def fid(run, *options):
    """Runs `python -m eval fid` in this process."""
    fid_command.run(arguments(run, *options))
