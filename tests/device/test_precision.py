"""Under autocast: networks compute in bfloat16, and losses, KL, variances, penalties and statistics in float32 or more.

The pretended GPU knows no autocast, so this looks at that of the CPU: at the type of everything an update makes, by the
function of the project that makes it.
"""

import pytest
import torch
from device.pretended.counts import place
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from trainer.config.config import load_config
from trainer.config.methods import METHODS
from trainer.engines.engine import LearningRates
from trainer.networks.model import Posterior, SigmaVAE
from trainer.objectives.objective import LocalBatch, Objective
from trainer.process_group import single
from trainer.updates.learner import VarianceUpdate, build_engine

LOW = (torch.bfloat16, torch.float16)
# Functions that run layers of the networks, and what must be exact in them too.
LAYERS = ("SigmaVAE.encode", "SigmaVAE.decode", "ResidualBlock.forward", "Crop.forward", "GlobalBatchNorm._scale")
EXACT = {"exp", "clamp", "log", "sigmoid", "softplus", "rsqrt", "addcmul", "sum"}
FIELDS = {
    "model.latent_dim": 3,
    "model.encoder_channels": [8],
    "model.decoder_channels": [8, 8],
    "model.hidden": 8,
    "data.global_batch": 6,
    "engine.precision": "bf16",
}
CASES = {
    **{name: {"objective.name": name} for name in METHODS},
    "fixed": {"objective.name": "fixed", "objective.sigma2": 0.1},
    "adam": {"variance.update": "adam"},
    "weighted": {"variance.beta_nll": 0.5},
    "laplace": {"variance.family": "laplace"},
    "student_t": {"variance.family": "student_t"},
    "batch norm": {"model.norm": "batch", "model.residual_blocks": 1},
    "group norm": {"model.norm": "group", "model.residual_blocks": 1},
    "clipped": {"optimiser.max_grad_norm": 0.5},
    "in parts": {"objective.name": "dip_vae_i", "engine.grad_accumulation_steps": 3},
}


class Types(TorchDispatchMode):
    """Notes the operations that make numbers of a low precision, and the places at which there were any operations."""

    def __init__(self):
        super().__init__()
        self.low, self.places = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        at = place()
        self.places.add(at)
        made = [value for value in tree_flatten(result)[0] if isinstance(value, torch.Tensor)]
        if any(value.dtype in LOW for value in made) and not func.is_view:
            self.low.add((at, func._schema.name.split("::")[1]))
        return result


def wrong(types):
    """What is of a low precision and may not be."""
    return {
        (at, name)
        for at, name in types.low
        if at != "backward" and (not at.endswith(LAYERS) or name in EXACT) and "penalty_rows" not in at
    }


def log_of(fields):
    """The types of an update in each stage of a training."""
    config, generator = load_config(None, FIELDS | fields), torch.Generator().manual_seed(0)
    engine = build_engine(config, (1, 8, 8), single())
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=generator)
    noise, prior = torch.randn(2, 6, 3, generator=generator)
    batch = LocalBatch(images=images, noise=noise, prior=prior, start=0, rows=6, kl_weight=torch.ones(()))
    rates = LearningRates(networks=1e-3, log_variance=1e-2, variance_head=1e-3)
    variance = VarianceUpdate(config.variance, torch.device("cpu"), 100)
    stages = []
    for stage in (1, 2) if METHODS[config.objective.name].learns_variance else (1,):
        if stage == 2:
            engine.enter_stage2(0.01)
        with Types() as types:
            result = engine.step(batch, learning_rates=rates, signals=torch.zeros(2))
            if stage == 1:
                variance.after_batch(engine.objective.model, result.sums[3], 6, result.finite)
        assert bool(result.finite)
        stages.append(types)
    return stages


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_a_network_is_float32_or_more(name):
    for types in log_of(CASES[name]):
        assert [at for at, _ in types.low if at.endswith("SigmaVAE.decode")], "autocast was off"
        assert any("gaussian" in at or "families" in at for at in types.places)
        assert wrong(types) == set()


def test_a_penalty_under_autocast_is_found(monkeypatch):
    monkeypatch.setattr(Objective, "_exact_penalty", lambda self, rows, prior: self.penalty(rows, prior))
    assert any("dip_vae.py covariance" in at for at, _ in wrong(log_of(CASES["dip_vae_i"])[0]))
    assert any("wae_mmd.py _square_distances" in at for at, _ in wrong(log_of(CASES["wae_mmd"])[0]))


def test_a_posterior_under_autocast_is_found(monkeypatch):
    def encode(self, x):
        mean, log_std = self.to_posterior(self.encoder(x)).chunk(2, dim=1)
        return Posterior(mean, log_std.clamp(-8, 4).exp())

    monkeypatch.setattr(SigmaVAE, "encode", encode)
    assert any("kl_to_prior" in at for at, _ in wrong(log_of({})[0]))


def test_moments_of_a_batch_under_autocast_are_found(monkeypatch):
    from trainer.networks.norm import GlobalBatchNorm

    def moments(self, x):
        values = x.transpose(0, 1).flatten(1)
        return torch.tensor(1.0 * values.shape[1]), values.mean(1).float(), values.var(1, correction=0).float()

    monkeypatch.setattr(GlobalBatchNorm, "_global_moments", moments)
    assert wrong(log_of(CASES["batch norm"])[0])
