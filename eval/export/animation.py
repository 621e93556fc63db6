"""Walks as a moving picture: a GIF, or an H.264 video in MP4."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_shards.io.errors import InputError
from eval.report.gallery import grid

_MILLISECONDS = 80
# Of x264: 18 and below is taken to be without visible loss.
_QUALITY = 12


def frames(rows: Sequence[Tensor], *, enlarge: int) -> list[Image.Image]:
    """All rows side by side, there and back. rows: images (steps, 3, H, W) uint8 each."""
    columns = math.ceil(len(rows) ** 0.5)
    white = torch.full_like(rows[0], 255)
    filled = [*rows, *[white] * (-len(rows) % columns)]
    made = []
    for step in range(len(rows[0])):
        lines = [torch.stack([row[step] for row in filled[i : i + columns]]) for i in range(0, len(filled), columns)]
        made.append(Image.fromarray(grid(lines, enlarge=enlarge)))
    return [*made, *made[-2:0:-1]]


def gif(images: Sequence[Image.Image]) -> bytes:
    """An animation without end, of 256 colours a frame."""
    content = io.BytesIO()
    images[0].save(content, format="GIF", save_all=True, append_images=images[1:], duration=_MILLISECONDS, loop=0)
    return content.getvalue()


def mp4(images: Sequence[Image.Image]) -> bytes:
    """A video that every player and browser shows. Sides of odd length get a white line, as H.264 needs even ones."""
    av = _pyav()
    width, height = (side + side % 2 for side in images[0].size)
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as file:
        # One thread, so that the same images give the same bytes.
        options = {"crf": str(_QUALITY), "threads": "1"}
        stream = file.add_stream("libx264", rate=Fraction(1000, _MILLISECONDS), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in images:
            padded = np.full((height, width, 3), 255, np.uint8)
            padded[: image.height, : image.width] = np.asarray(image.convert("RGB"))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        file.mux(stream.encode())
    return content.getvalue()


def require(kind: str) -> None:
    """Raises InputError where an animation of this kind cannot be made here."""
    if kind == "mp4":
        _pyav()


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise InputError(
            "mp4 needs PyAV; install it by pip install 'two-stage-sigma-vae[video]', or use gif", parameter="animation"
        ) from error
    return av


ANIMATIONS: Mapping[str, Callable[[Sequence[Image.Image]], bytes]] = {"gif": gif, "mp4": mp4}
"""Kinds, which are file extensions too: frames to the content of a file."""
