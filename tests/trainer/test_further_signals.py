"""Batch systems may signal a process twice: by itself and through its launcher."""

import os
import signal

import pytest

from trainer.preemption import Interrupted, StopRequest
from trainer.process_group import process_group


def test_a_signal_after_the_training_has_stopped_waiting_for_images_does_not_break_its_checkpoint(tmp_path):
    with process_group("cpu") as ranks, StopRequest(tmp_path, 0) as stop:
        stop.begin_training()
        os.kill(os.getpid(), signal.SIGUSR2)
        with pytest.raises(Interrupted):
            next(stop.waiting([1], ranks))
        os.kill(os.getpid(), signal.SIGUSR2)  # raised Interrupted where the checkpoint is written
        assert stop.reason() == "SIGUSR2"
