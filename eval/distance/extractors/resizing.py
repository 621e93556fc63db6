"""Resizing as clean-fid does it (Parmar et al. 2022), for whole batches at once.

clean-fid's definition is Pillow's filter on each channel in float32, neither rounded nor quantised, clipped to 0 to
255. Pillow's filters are linear and separable: resizing an identity matrix with Pillow itself gives the matrix of a
filter, so a batch costs two matrix products and no loop over images.
"""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


@lru_cache(maxsize=16)
def pillow_bicubic_matrix(size: int, new_size: int) -> Tensor:
    """The matrix (new_size, size) of Pillow's bicubic filter, antialiased where it shrinks."""
    identity = Image.fromarray(np.eye(size, dtype=np.float32))
    return torch.from_numpy(np.array(identity.resize((size, new_size), resample=Image.Resampling.BICUBIC)))


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
