"""What the features of one image cost."""

import pytest
import torch
from torch import nn

from data_shards.io.errors import InputError
from eval.distance.extractors.operations import operations_of


def test_a_torchscript_file_costs_the_products_of_resizing_and_of_its_layers(tmp_path):
    path = tmp_path / "network.pt"
    torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 4))).save(str(path))
    resizing = 28 * 28 * 32 + 32 * 28 * 32
    convolution, linear = 8 * 30 * 30 * (3 * 3 * 3), 8 * 30 * 30 * 4
    assert operations_of(str(path), (1, 28, 28), size=32) == 2 * (resizing + convolution + linear)


def test_twice_the_side_costs_four_times():
    small, large = (operations_of("efficientnet-lite0", (3, 64, 64), size=size) for size in (64, 128))
    assert large / small == pytest.approx(4, rel=0.05)  # resizing grows otherwise


def test_an_extractor_that_does_not_exist_has_no_cost():
    with pytest.raises(InputError, match="'nonesuch' is unknown"):
        operations_of("nonesuch", (1, 28, 28))
