"""Grey values of more than 8 bits to 8 bits.

A screen shows 256 levels. Files of 16 or 32 bits, or of floating-point numbers, hold values in the whole range of the
type or in a small part of it, as a sensor of 12 bits does, and no file says which. So the values decide.
"""

import numpy as np
from numpy.typing import NDArray

from data_shards.decoding.bad_image import BadImage

WHITE = (1, 255, 65535)
"""What may stand for white. 1 only in floating-point files; 0 is black."""
_BLOCK = 2**20  # values that are scaled at a time: a large image in float64 would take eight times its memory


def to_eight_bits(values: NDArray[np.generic]) -> tuple[NDArray[np.uint8], str]:
    """Values of any type and shape as 0..255, and how in words.

    Where the values lie in 0..1 (floating point), 0..255 or 0..65535 and fill at least half of the first of these that
    holds them, that range is scaled to 0..255. Otherwise the file's own range is, from its smallest to its largest
    value. Values that are not finite count as the nearest of the finite ones, NaN as the smallest. A file of one value
    has no range of its own; it is scaled by the first of the three that holds it.

    Raises BadImage where no value is finite.
    """
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        raise BadImage("no value is a finite number")
    low, high = float(finite.min()), float(finite.max())
    whole = values.dtype.kind != "f"
    white = next((white for white in WHITE if high <= white and not (whole and white == 1)), None) if low >= 0 else None
    if white is not None and (high == low or high - low >= white / 2):
        low, high, how = 0.0, float(white), f"grey values scaled from 0..{white} to 0..255"
    else:
        how = "grey values scaled from the file's own range to 0..255"
    if high == low:
        return np.zeros(values.shape, np.uint8), how  # beyond 65535, or negative: nothing says how bright it is
    flat, scaled = values.reshape(-1), np.empty(values.size, np.uint8)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK].astype(np.float64)
        block = np.clip(np.nan_to_num(block, nan=low, posinf=high, neginf=low), low, high)
        scaled[start : start + _BLOCK] = np.rint((block - low) / (high - low) * 255)
    return scaled.reshape(values.shape), how
