"""Images of any kind made into those that a run takes, as the build of its shards made them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.decode import MADE_GREY, MADE_RGB
from data_shards.pixels import Pixels
from data_shards.sources.source import WHITE
from eval.image_sets.image_set import ImageSet


def recipe_of(pixels: Pixels) -> Pixels:
    """How a run's shards were made, for files of any size: where their source had one size, and no files, the largest
    centred square is resized to it.
    """
    if pixels.resize and pixels.background is not None:
        return pixels
    crop: int | Literal["square"] | None = pixels.crop if pixels.resize else "square"
    return replace(pixels, resize=True, crop=crop, background=pixels.background or WHITE)


def made_by(recipe: Pixels, images: ImageSet) -> ImageSet:
    """The images of a set made by a recipe. An image that it cannot be made of is noted and has no place."""

    def made(blocks: range) -> Iterator[tuple[Tensor, list[Tensor]]]:
        for ids, pixels in images.images(blocks):
            kept: list[int] = []
            found: list[Tensor] = []
            for image_id, image in zip(ids.tolist(), pixels, strict=True):
                try:
                    found.append(_made(recipe, image, images))
                    kept.append(image_id)
                except BadImage as error:
                    images.decisions.unreadable[f"image {image_id}"] = str(error)
            if kept:
                yield torch.tensor(kept), found

    return replace(images, images=made)


def _made(recipe: Pixels, image: Tensor, images: ImageSet) -> Tensor:
    if tuple(image.shape) == recipe.shape:
        return image
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())  # (H, W, C)
    coloured, said = _coloured(array, recipe.channels)
    prepared = recipe.prepare(coloured)
    images.decisions.conversions.update([*said, *prepared.conversions])
    return torch.tensor(prepared.image)


def _coloured(array: NDArray[np.uint8], channels: int) -> tuple[NDArray[np.uint8], list[str]]:
    if array.shape[2] == channels:
        return array, []
    if channels == 3:
        return array.repeat(3, axis=2), [MADE_RGB]
    return np.asarray(Image.fromarray(array).convert("L"))[:, :, None], [MADE_GREY]
