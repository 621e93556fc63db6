"""Colours of any kind to sRGB, as the file's ICC profile says."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

PROFILE_APPLIED = "colours converted from the file's ICC profile to sRGB"
PROFILE_UNREADABLE = "ICC profile unreadable or not of the image's kind, and ignored"
CMYK_GUESSED = "CMYK without a profile converted to RGB by the simple formula"
LAB_CONVERTED = "Lab colours converted to sRGB"

_SAME_COLOUR = 2  # levels: profiles of sRGB itself differ by as much from each other
_PLAIN_MODES = {
    "1": "L",
    "P": "RGB",
    "PA": "RGBA",
    "La": "LA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "HSV": "RGB",
    "YCbCr": "RGB",
}


def to_srgb(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, list[str]]:
    """A picture of mode L, LA, RGB or RGBA in sRGB, and what was done, in words.

    The mode may be any but the grey ones of more than 8 bits.
    """
    if picture.mode in ("P", "1", "L", "RGB") and picture.has_transparency_data:
        picture = picture.convert("LA" if picture.mode in ("1", "L") else "RGBA")
    elif picture.mode in _PLAIN_MODES:
        picture = picture.convert(_PLAIN_MODES[picture.mode])
    if picture.mode == "LAB":
        return _lab().apply(picture), [LAB_CONVERTED]
    if profile:
        try:
            transform = _from_profile(profile, picture.mode.removesuffix("A"))
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            return _without_profile(picture, [PROFILE_UNREADABLE])
        if transform is None:
            return picture, []
        return _transformed(picture, transform), [PROFILE_APPLIED]
    return _without_profile(picture, [])


def _without_profile(picture: Image.Image, done: list[str]) -> tuple[Image.Image, list[str]]:
    if picture.mode == "CMYK":
        return picture.convert("RGB"), [*done, CMYK_GUESSED]
    return picture, done


def _transformed(picture: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    if picture.mode not in ("LA", "RGBA"):
        return transform.apply(picture)
    colours = transform.apply(picture.convert(picture.mode.removesuffix("A")))
    colours.putalpha(picture.getchannel("A"))
    return colours


@functools.lru_cache(maxsize=64)
def _from_profile(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB, for pictures of mode L, RGB or CMYK; None where no colour would visibly change."""
    transform = ImageCms.buildTransform(io.BytesIO(profile), ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return transform
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    if mode == "L":
        colours = np.repeat(levels[None, :, None], 3, 2)
        picture = Image.fromarray(levels[None])
    else:
        colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        picture = Image.fromarray(colours)
    changed = np.abs(np.asarray(transform.apply(picture)).astype(int) - colours)
    return transform if changed.max() > _SAME_COLOUR else None


@functools.cache
def _lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
