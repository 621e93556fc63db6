"""The batch that is tried before anything is written says the same as one that is really computed."""

import itertools

import pytest
import torch

from data_shards.io.errors import InputError
from trainer.config.config import load_config
from trainer.config.methods import METHODS
from trainer.networks.model import SigmaVAE
from trainer.trial_batch import require_trainable


def computes(config, side):
    try:
        model = SigmaVAE((1, side, side), config.model)
        images = torch.zeros(2, 1, side, side)
        return model.decode(model.encode(images).mean).mean.shape == images.shape
    except (InputError, RuntimeError):
        return False


@pytest.mark.parametrize("kernel", [3, 4, 5, 6, 7])
def test_networks_are_refused_exactly_where_they_cannot_be_computed(kernel):
    for depth, side in itertools.product((1, 2, 4, 6), (1, 3, 8, 28)):
        channels = {"model.encoder_channels": [8] * depth, "model.decoder_channels": [8] * depth}
        config = load_config(None, {"model.kernel": kernel, **channels})
        if computes(config, side):
            require_trainable(config, (1, side, side))
        else:
            with pytest.raises(InputError, match=r"^model\.encoder_channels: "):
                require_trainable(config, (1, side, side))


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_tried_with_both_stages(method, norm):
    fields = {"objective.name": method, "model.norm": norm, "variance.beta_nll": 0.5, "model.residual_blocks": 1}
    if method == "fixed":
        fields["objective.sigma2"] = 0.1
    require_trainable(load_config(None, fields), (3, 28, 28))


def test_networks_that_no_memory_holds_are_refused():
    config = load_config(None, {"model.hidden": 100_000, "model.encoder_channels": [100_000, 100_000]})
    with pytest.raises(InputError, match=r"weights with gradients and moments need .* GB, but the cpu has"):
        require_trainable(config, (3, 64, 64), torch.device("cpu"))
