"""engine.compile: the networks are compiled once a stage, whatever the batch and the weight of the KL term are."""

import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from trainer.config.config import load_config
from trainer.engines.engine import LearningRates
from trainer.objectives.objective import LocalBatch
from trainer.process_group import single
from trainer.updates.learner import build_engine

FIELDS = {
    "model.latent_dim": 3,
    "model.encoder_channels": [4],
    "model.decoder_channels": [4, 4],
    "model.hidden": 8,
    "data.global_batch": 6,
    "engine.compile": True,
    "device": "cpu",
}
RATES = LearningRates(networks=1e-3, log_variance=1e-2, variance_head=1e-3)


def batch(rows, weight):
    images = torch.randint(0, 256, (rows, 1, 8, 8), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    prior, noise = torch.randn(2, rows, 3)
    return LocalBatch(images=images, noise=noise, prior=prior, start=0, rows=rows, kl_weight=torch.tensor(weight))


@pytest.mark.parametrize("fields", [{}, {"model.norm": "batch"}, {"engine.grad_accumulation_steps": 3}])
def test_a_stage_is_compiled_once_whatever_the_rows_and_weights(monkeypatch, fields):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    engine = build_engine(load_config(None, FIELDS | fields), (1, 8, 8), single())

    def update(rows, weight):
        engine.step(batch(rows, weight), learning_rates=RATES, signals=torch.zeros(2))
        return counter.frame_count

    first = update(6, 0.0)
    assert first > 0
    assert [update(6, 0.1), update(6, 0.2), update(4, 0.3), update(6, 1.0)] == [first] * 4
    engine.enter_stage2(0.01)
    second = update(6, 1.0)
    assert second > first
    assert [update(6, 1.0), update(1, 1.0), update(6, 1.0)] == [second] * 3
