"""A tiny extractor that `--extractor distance_extractor:make` names, and a command line run inside the test."""

import argparse
import json
import os
import time
from pathlib import Path

import torch
from torch import nn

from eval import fid_command

DIM = 24


def make(device):
    """Random convolutions, the same in every process."""
    convolution = nn.Conv2d(3, DIM, 8, stride=8)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    return nn.Sequential(convolution, nn.ReLU()).to(device).eval()


def make_slow(device):
    """The same, but after its third batch it leaves a note in $NOTE and waits to be killed."""
    network, calls = make(device), []

    def features(images):
        calls.append(len(images))
        if len(calls) == 3 and "NOTE" in os.environ:
            Path(os.environ["NOTE"]).touch()
            time.sleep(600)
        return network(images)

    return features


def arguments(run, *options, extractor="distance_extractor:make"):
    """Options of `python -m eval fid` for a small set of samples."""
    parser = argparse.ArgumentParser()
    fid_command.add_arguments(parser)
    words = ["--run", str(run), "--from", "q_hat", "--mixture", "4", "--n", "700", "--extractor-size", "32"]
    return parser.parse_args([*words, "--extractor", extractor, *options])


def fid(run, *options, **named):
    """Runs `python -m eval fid` in this process."""
    fid_command.run(arguments(run, *options, **named))


def result(run):
    """The one result in the run folder, which is then forgotten so that the next command measures anew."""
    (path,) = (Path(run) / "eval").glob("fid-*.json")
    content = json.loads(path.read_text())
    path.unlink()
    return content


def distance(run):
    """The Frechet distance of `result`."""
    return result(run)["values"]["frechet_distance"]["value"]
