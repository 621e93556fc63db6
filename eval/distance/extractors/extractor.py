"""What every feature extractor is: a network, how images are resized for it, and a name that says both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.io.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Images of 8 bits to feature vectors."""

    label: str
    """What a distance of these features is called in print, for example "FD (EfficientNet-Lite0, 64 px)"."""
    dim: int
    """Length of a feature vector."""
    resize: Callable[[Tensor], Tensor]
    """(B, C, H, W) float32 in 0 to 255 to the network's size, same range."""
    network: Callable[[Tensor], Tensor]
    """(B, 3, size, size) float32 in 0 to 255 to features (B, dim); it normalises by itself."""
    device: torch.device
    """Where the network is."""
    description: Mapping[str, str | int]
    """Everything that determines the features, for the protocol: name, mode, input size, resizer, weights' digest."""

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 with C = 1 (repeated to three channels) or 3 to features (B, dim), float32."""
        channels = images.shape[1]
        if channels not in (1, 3):
            raise InputError(
                f"{channels} channels; extractors take 1 (grey) or 3 (red, green, blue)", parameter="images"
            )
        # In float32 throughout: cuDNN would otherwise round convolutions to tf32.
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            resized = self.resize(images.to(self.device).float())  # (B, C, size, size); a grey image once
            return self.network(resized.expand(-1, 3, -1, -1)).float()
