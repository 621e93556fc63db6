"""What an update tells is read before a stop or a checkpoint could lose it."""

import math

import pytest
import torch

from data_shards.stream.stream import Batch
from trainer.updates.meter import Meter


@pytest.mark.parametrize(
    ("substituted", "finite", "expected"), [(0.0, True, False), (1.0, True, True), (0.0, False, True)]
)
def test_a_replaced_image_and_a_skipped_update_are_read_at_once(substituted, finite, expected):
    meter, none = Meter(torch.device("cpu")), torch.zeros(0, dtype=torch.int64)
    batch = Batch(image=none, index=none, start=30, count=30, epoch=0, substituted=int(substituted))
    sums = [10.0, -9.0, 1.0, 3.0, 0.0, substituted]
    meter.add(batch, torch.tensor([*sums, float(finite), 1.0, math.log(0.5)], dtype=torch.float64))
    assert meter.must_read() is expected
