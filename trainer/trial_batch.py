"""One batch through the networks and the losses of both stages, on the meta device: nothing is computed or allocated.

What cannot be trained is so refused before anything is written.
"""

import os

import torch

from data_shards.io.errors import InputError
from trainer.config.config import Config
from trainer.networks.model import SigmaVAE
from trainer.objectives.objective import LocalBatch, Objective

# float32: a weight, its gradient and Adam's two moments.
_BYTES_OF_A_WEIGHT = 16


def require_trainable(config: Config, image_shape: tuple[int, int, int], device: torch.device | None = None) -> None:
    """Raises InputError where the networks do not suit the images, or do not fit into the memory.

    config: without `auto` channels. image_shape: (C, H, W). device: whose memory is to hold weights and moments; none
    is asked where it is None.
    """
    channels, height, width = image_shape
    try:
        with torch.device("meta"):
            model = SigmaVAE(image_shape, config.model, family=config.variance.family)
            one_update(model, config)
        if config.two_stages:
            model.log_variance = torch.zeros(1)  # a number, which the start of stage 2 reads
            model.add_variance_head(1.0)
            with torch.device("meta"):
                one_update(model.to("meta"), config)
    except InputError as error:
        raise InputError(error.named(None), parameter=f"model.{error.parameter}") from None
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"these networks cannot be trained on {channels} x {height} x {width} images "
            f"({str(error).splitlines()[0]}); use encoder_channels and decoder_channels auto, or a kernel of 3 or 5",
            parameter="model",
        ) from error
    weights = sum(parameter.numel() for parameter in model.parameters())
    memory = _memory(device) if device is not None else None
    if memory is not None and weights * _BYTES_OF_A_WEIGHT > memory:
        raise InputError(
            f"{weights:,} weights with gradients and moments need {weights * _BYTES_OF_A_WEIGHT / 1e9:.3g} GB, but the "
            f"{device} has {memory / 1e9:.3g} GB; use fewer channels or a smaller hidden",
            parameter="model",
        )


def one_update(model: SigmaVAE, config: Config) -> None:
    """The passes forward and backward of an update on at most two images, within a block of the meta device."""
    objective = Objective(model.train(), config.objective, config.variance)
    rows = min(2, config.data.global_batch)
    batch = LocalBatch(
        images=torch.zeros(rows, *model.image_shape, dtype=torch.uint8),
        noise=torch.zeros(rows, model.latent_dim),
        prior=torch.zeros(rows, model.latent_dim),
        start=0,
        rows=rows,
        kl_weight=torch.ones(()),
    )
    whole = None if objective.penalty is None else objective.penalty_rows(batch).detach()
    objective(batch, whole).loss.backward()


def _memory(device: torch.device) -> int:
    """Bytes of memory of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
