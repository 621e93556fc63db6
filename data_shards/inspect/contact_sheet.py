"""Images side by side in one picture."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def contact_sheet(images: NDArray[np.uint8], *, columns: int) -> bytes:
    """A PNG of `images`, shape (N, C, H, W), C of 1 or 3, row after row, with one white pixel between them."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 255, np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + 1) + 1, place % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)  # (H, W, C)
    buffer = io.BytesIO()
    Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet).save(buffer, "PNG")
    return buffer.getvalue()
