"""What this machine cannot do while a file is read is not taken for damage of the file."""

import contextlib
import json
import os
import resource

import numpy as np
import pytest
import torch

from eval.distance.extractors.transformer_weights import read_transformer
from eval.export.output_folder import RECORD, made_before
from eval.image_sets.arrays import image_array, member_names, members
from trainer.mixture.checkpoints import Checkpoints
from trainer.process_group import single
from trainer.run_folder.tensor_folder import TensorFolder

RESULT = TensorFolder(noun="mixture", tensors="mixture.safetensors", record="mixture.json")


@contextlib.contextmanager
def no_descriptors():
    """A block in which no further file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def npz(folder):
    np.savez(folder / "a.npz", images=np.zeros((2, 4, 4, 3), np.uint8))
    return folder / "a.npz"


def npy(folder):
    np.save(folder / "a.npy", np.zeros((2, 4, 4, 3), np.uint8))
    return folder / "a.npy"


def weights(folder):
    torch.save({"a": torch.zeros(2)}, folder / "a.pth")
    return folder / "a.pth"


def hugging_face(folder):
    (folder / "config.json").write_text("{}")
    return folder


def result(folder):
    RESULT.write(folder, {"a": torch.zeros(2)}, {})
    return folder


def em(folder):
    (folder / "00000001").mkdir()
    (folder / "00000001" / "progress.json").write_text(json.dumps({"fingerprint": {}}))
    return folder


def output(folder):
    (folder / RECORD).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("made", "read"),
    [
        (npz, members),
        (npz, member_names),
        (npy, lambda path: image_array(path, "", name="a", n=None, seed=0)),
        (weights, read_transformer),
        (hugging_face, read_transformer),
        (result, lambda folder: RESULT.read(folder, "fit it")),
        (em, lambda folder: Checkpoints(folder, {}, single(), 60.0).resume(None, "full")),
        (output, lambda folder: made_before(folder, {})),
    ],
    ids=["npz", "names in an npz", "npy", "weights", "folder of weights", "result", "EM", "output"],
)
def test_too_many_open_files_are_no_damage(tmp_path, made, read):
    place = made(tmp_path)
    with no_descriptors(), pytest.raises(OSError, match=r"[Tt]oo many open files"):
        read(place)
