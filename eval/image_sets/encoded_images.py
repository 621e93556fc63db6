"""Sets of encoded image files, wherever their bytes lie. What a file means is decided as in a build of shards."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.decode import decode
from data_shards.pixels import Pixels
from data_shards.sources.source import WHITE
from eval.image_sets.image_set import Decisions, ImageBlocks
from eval.images.blocks import block_ids

# Decoded images that are held at a time: photographs of 12 million pixels have 36 MB each.
_MOST_BYTES = 256 * 2**20


def decoded(
    names: Sequence[str], read: Callable[[str], bytes], decisions: Decisions, recipe: Pixels | None = None
) -> ImageBlocks:
    """The images of files, in colour and of their own sizes, or made by a recipe as those of shards are.

    read: name to bytes, raises BadImage; an unreadable image is noted and has no place.
    """
    n = len(names)

    def pixels(name: str) -> Tensor:
        if recipe is not None:
            prepared = recipe.prepare(read(name))
            decisions.conversions.update(prepared.conversions)
            return torch.tensor(prepared.image)  # (C, H, W)
        found = decode(read(name), channels=3, background=WHITE)
        decisions.conversions.update(found.conversions)
        return torch.tensor(found.image).permute(2, 0, 1)  # a copy: Pillow's arrays cannot be written

    def images(blocks: range) -> Iterator[tuple[Tensor, Sequence[Tensor]]]:
        for block in blocks:
            ids: list[int] = []
            found: list[Tensor] = []
            for image_id in block_ids(block, n).tolist():
                try:
                    found.append(pixels(names[image_id]))
                except BadImage as error:
                    decisions.unreadable[names[image_id]] = str(error)
                    continue
                ids.append(image_id)
                if sum(map(Tensor.numel, found)) > _MOST_BYTES:
                    yield torch.tensor(ids), found
                    ids, found = [], []
            if ids:
                yield torch.tensor(ids), found

    return images
