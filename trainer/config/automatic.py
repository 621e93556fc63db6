"""What `auto` in a configuration stands for, once the size of the images is known."""

import math
from dataclasses import replace

from trainer.config.config import Config
from trainer.config.sections import DataConfig, ModelConfig

# An encoder halves images down to a map whose shorter side has 4 to 7 pixels, with these channels on the way.
_SMALLEST_MAP, _CHANNELS = 4, (32, 64, 128, 256)
_MOST_READERS = 8


def resolved(config: Config, image_shape: tuple[int, int, int]) -> Config:
    """The configuration with numbers in place of every `auto` that the images decide. image_shape: (C, H, W)."""
    return replace(config, model=resolved_model(config.model, image_shape))


def resolved_model(model: ModelConfig, image_shape: tuple[int, int, int]) -> ModelConfig:
    """The section `model` with channels for images of that shape, (C, H, W), in place of `auto`."""
    halvings = max(1, int(math.log2(max(1.0, min(image_shape[1:]) / _SMALLEST_MAP))))
    channels = tuple(_CHANNELS[min(depth, len(_CHANNELS) - 1)] for depth in range(halvings))
    return replace(
        model,
        encoder_channels=channels if model.encoder_channels == "auto" else model.encoder_channels,
        # The same way back, from a first map that is twice the encoder's last: the decoder doubles once less.
        decoder_channels=channels[::-1] if model.decoder_channels == "auto" else model.decoder_channels,
    )


def reader_processes(data: DataConfig, *, raw: bool, device: str, processors: int) -> int:
    """Reader processes beside a training process, with a number in place of `auto`.

    raw: whether the shards hold pixels, which are read faster than another process could hand them over (two such
    processes were a quarter as fast as none). device: cpu or cuda; on a CPU the networks need the processors.
    processors: for this training process.
    """
    if data.workers != "auto":
        return data.workers
    return 0 if raw or device == "cpu" else max(0, min(_MOST_READERS, processors - 1))
