"""Batch systems may signal a process twice: by itself and through its launcher."""

import os
import signal

import pytest
from support.failing_server import failing

from data_shards.io.address import Location
from data_shards.stream.stream import ShardStream
from trainer.preemption import Interrupted, StopRequest
from trainer.process_group import process_group
from trainer.waiting import Waits


def test_a_signal_after_the_training_has_stopped_waiting_for_images_does_not_break_its_checkpoint(
    digits_shards, tmp_path
):
    with (
        failing(digits_shards, "hang", after=0, seconds=1000) as server,
        process_group("cpu") as ranks,
        StopRequest(tmp_path, 0) as stop,
    ):
        place = Location(address=server.address, cache_dir=str(tmp_path / "cache"))
        batches = Waits(stop, ranks).for_updates(ShardStream(place, split="train", global_batch=30))
        stop.begin_training()
        os.kill(os.getpid(), signal.SIGUSR2)
        with pytest.raises(Interrupted):
            next(batches)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.reason() == "SIGUSR2"
