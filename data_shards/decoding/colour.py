"""Colours of any kind to sRGB, as the file's ICC profile says, or what else it says about them."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

from data_shards.decoding.named_colours import SCREEN_GAMMA, NamedColours

PROFILE_APPLIED = "colours converted from the file's ICC profile to sRGB"
PROFILE_UNREADABLE = "ICC profile unreadable or not of the image's kind, and ignored"
NAMED_APPLIED = "colours converted to sRGB from the colour space that the file names without an ICC profile"
HIGH_DYNAMIC_RANGE = "high dynamic range (PQ or HLG) cut off at the white of paper"
GAMMA_APPLIED = "brightness converted from the file's gamma to sRGB"
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


def to_srgb(picture: Image.Image, profile: bytes | None, named: NamedColours) -> tuple[Image.Image, list[str]]:
    """A picture of mode L, LA, RGB or RGBA in sRGB, and what was done, in words.

    The mode may be any but the grey ones of more than 8 bits. named: what holds where there is no profile.
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
    picture, done = _without_profile(picture, [])
    picture, also = _as_named(picture, named)
    return picture, [*done, *also]


def _as_named(picture: Image.Image, named: NamedColours) -> tuple[Image.Image, list[str]]:
    if named.profile is not None and (transform := _from_profile(named.profile, "RGB")) is not None:
        mode = picture.mode
        colours = _transformed(picture.convert("RGBA" if mode.endswith("A") else "RGB"), transform).convert(mode)
        return colours, [NAMED_APPLIED, *([HIGH_DYNAMIC_RANGE] if named.high_dynamic_range else [])]
    if named.gamma is None:
        return picture, list(named.remarks)
    levels = np.rint(255 * (np.arange(256) / 255) ** (1 / (SCREEN_GAMMA * named.gamma))).astype(int).tolist()
    table = levels * len(picture.mode.removesuffix("A")) + (list(range(256)) if picture.mode.endswith("A") else [])
    return picture.point(table), [GAMMA_APPLIED]


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
