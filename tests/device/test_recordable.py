"""What the recording of an update on a real GPU rests on, looked at on a CPU.

Autograd's node that adds up the gradient of a parameter belongs to the stream in which it was made. Updates before the
recording run in another stream, so no node of theirs may be left when it begins.
"""

import pytest
import torch
from device.test_precision import CASES, FIELDS

from trainer.config.config import load_config
from trainer.engines.engine import LearningRates
from trainer.objectives.objective import LocalBatch
from trainer.process_group import single
from trainer.updates.learner import build_engine


def marks(objective):
    """The notes that the nodes of all parameters carry, which go with the node; a new node has none."""
    return [p.view_as(p).grad_fn.next_functions[0][0].metadata for p in objective.parameters() if p.requires_grad]


def update(engine):
    """One update, in whose forward pass the nodes are marked. Returns what the forward pass returned."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=generator)
    noise, prior = torch.randn(2, 6, 3, generator=generator)
    batch = LocalBatch(images=images, noise=noise, prior=prior, start=0, rows=6, kl_weight=torch.ones(()))
    kept = []

    def mark(objective, _, terms):
        for notes in marks(objective):
            notes["made in an update"] = True
        kept.append(terms)

    hook = engine.objective.register_forward_hook(mark)
    engine.step(
        batch,
        learning_rates=LearningRates(networks=1e-3, log_variance=1e-2, variance_head=1e-3),
        signals=torch.zeros(2),
    )
    hook.remove()
    return kept


@pytest.mark.parametrize("name", ["sigma_vae", "wae_mmd", "batch norm", "in parts"])
def test_no_node_of_a_backward_pass_outlives_its_update(name):
    engine = build_engine(load_config(None, FIELDS | CASES[name]), (1, 8, 8), single())
    update(engine)
    assert not any(marks(engine.objective))


def test_nodes_that_outlive_their_update_are_found():
    engine = build_engine(load_config(None, FIELDS), (1, 8, 8), single())
    terms = update(engine)
    assert terms
    assert any(marks(engine.objective))
