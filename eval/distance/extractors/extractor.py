"""What every feature extractor is: a network, how images are resized for it, and a name that says both.

Resizing is clean-fid's (Parmar et al. 2022), for whole batches at once. Its definition is Pillow's filter on each
channel in float32, neither rounded nor quantised, clipped to 0 to 255. Pillow's filters are linear and separable:
resizing an identity matrix with Pillow itself gives the matrix of a filter, so a batch costs two matrix products and no
loop over images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from data_shards.io.errors import InputError
from trainer.full_precision import full_precision


@lru_cache(maxsize=16)
def pillow_bicubic_matrix(size: int, new_size: int) -> Tensor:
    """The matrix (new_size, size) of Pillow's bicubic filter, antialiased where it shrinks."""
    identity = Image.fromarray(np.eye(size, dtype=np.float32))
    return torch.from_numpy(np.array(identity.resize((size, new_size), resample=Image.Resampling.BICUBIC)))


@full_precision()
def resize_clean(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) float32 in 0 to 255 as (B, C, size, size) in 0 to 255, by Pillow's bicubic filter."""
    height, width = images.shape[-2:]
    # At the same size the filter is the identity.
    if width != size:
        images = images @ pillow_bicubic_matrix(width, size).to(images.device).T
    if height != size:
        images = pillow_bicubic_matrix(height, size).to(images.device) @ images
    return images.clamp(0, 255)


def resize_bilinear(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) float32 in 0 to 255 as (B, C, size, size), as clean-fid's mode legacy_pytorch: no antialiasing."""
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False).clamp(0, 255)


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
    def __call__(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """(B, C, H, W) uint8, or B images (C, H, W) of different sizes, to features (B, dim), float32.

        C = 1 (repeated to three channels) or 3.
        """
        if isinstance(images, Tensor):
            return self._features(self._resized(images))
        if len({image.shape for image in images}) == 1:
            return self._features(self._resized(torch.stack(list(images))))
        resized = [self._resized(image[None]) for image in images]  # (1, 3, size, size) each
        if len({image.shape for image in resized}) == 1:
            return self._features(torch.cat(resized))
        return torch.cat([self._features(image) for image in resized])  # this network resizes by itself

    def _resized(self, images: Tensor) -> Tensor:
        channels = images.shape[1]
        if channels not in (1, 3):
            raise InputError(
                f"{channels} channels; extractors take 1 (grey) or 3 (red, green, blue)", parameter="images"
            )
        # A grey image is resized once.
        return self.resize(images.to(self.device).float()).expand(-1, 3, -1, -1)

    def _features(self, resized: Tensor) -> Tensor:
        # In float32 throughout: cuDNN would otherwise round convolutions to tf32.
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            return self.network(resized).float()
