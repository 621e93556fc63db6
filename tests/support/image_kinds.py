"""One file of each kind that people have, what Pillow's own functions make of it, and what is said about it."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps
from support import icc_profiles
from support.handmade_images import tiff

from data_shards.decoding import colour, decode

WIDTH, HEIGHT = 24, 16
BACKGROUND = "#f0e0d0"
_RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(_RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)).resize(
    (WIDTH, HEIGHT), Image.Resampling.BICUBIC
)
GREY = PHOTO.convert("L")
ALPHA = Image.fromarray(np.linspace(0, 255, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint8))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file."""

    name: str
    data: bytes
    seen: np.ndarray
    """RGB, H x W x 3."""
    said: set[str]


def saved(picture: Image.Image, form: str, **options) -> bytes:
    """The bytes of a file of that format."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def rgb(picture: Image.Image) -> np.ndarray:
    """The values of a picture as RGB."""
    return np.asarray(picture.convert("RGB"))


def on_background(picture: Image.Image) -> np.ndarray:
    """The picture pasted on the background through its own mask."""
    whole = picture.convert("RGBA")
    return rgb(Image.alpha_composite(Image.new("RGBA", picture.size, BACKGROUND), whole))


def grey_png(bits: int, values: np.ndarray, transparent: int | None = None) -> bytes:
    """A grey PNG of 1, 2, 4, 8 or 16 bits, written by hand as Pillow writes few of them."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape
    digits = [[f"{value:0{bits}b}" for value in row] for row in values.tolist()]
    rows = [int("".join(row), 2).to_bytes(width * bits // 8, "big") for row in digits]
    content = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    if transparent is not None:
        content += chunk(b"tRNS", struct.pack(">H", transparent))
    content += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def converted(picture: Image.Image, profile: bytes) -> np.ndarray:
    """Pillow's own conversion to sRGB."""
    return rgb(ImageCms.profileToProfile(picture, io.BytesIO(profile), SRGB, outputMode="RGB"))


def _plain() -> list[Kind]:
    lossless = {
        "PNG": {},
        "BMP": {},
        "TIFF": {},
        "PPM": {},
        "TGA": {},
        "WEBP": {"lossless": True},
        "JPEG2000": {},
        "SGI": {},
        "PCX": {},
        "QOI": {},
        "ICO": {"sizes": [(WIDTH, HEIGHT)]},
    }
    kinds = [
        Kind(name=f"colours, {form}", data=saved(PHOTO, form, **options), seen=rgb(PHOTO), said=set())
        for form, options in lossless.items()
    ]
    for form in ("JPEG", "AVIF", "WEBP", "GIF"):
        data = saved(PHOTO, form)
        kinds.append(Kind(name=f"colours, {form}", data=data, seen=rgb(Image.open(io.BytesIO(data))), said=set()))
    for form in ("PNG", "JPEG", "PPM"):
        data = saved(GREY, form)
        seen = rgb(Image.open(io.BytesIO(data)))
        kinds.append(Kind(name=f"grey, {form}", data=data, seen=seen, said={decode.MADE_RGB}))
    ink = GREY.convert("1")
    for form in ("PNG", "PPM", "TIFF", "XBM"):
        kinds.append(Kind(name=f"1 bit, {form}", data=saved(ink, form), seen=rgb(ink), said={decode.MADE_RGB}))
    return kinds


def _turned() -> list[Kind]:
    kinds = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
            data = saved(PHOTO, form, exif=exif)
            upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
            said = {decode.TURNED} if orientation > 1 else set()
            kinds.append(Kind(name=f"EXIF {orientation}, {form}", data=data, seen=rgb(upright), said=said))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = saved(PHOTO, "JPEG", xmp=xmp)
    seen = rgb(Image.open(io.BytesIO(data)).transpose(Image.Transpose.ROTATE_270))
    kinds.append(Kind(name="XMP 6, JPEG", data=data, seen=seen, said={decode.TURNED}))
    return kinds


def _transparent() -> list[Kind]:
    said = {f"transparency composited on {BACKGROUND}"}
    colours, greys = PHOTO.copy(), GREY.copy()
    colours.putalpha(ALPHA)
    greys.putalpha(ALPHA)
    kinds = [
        Kind(name="RGBA, PNG", data=saved(colours, "PNG"), seen=on_background(colours), said=said),
        Kind(name="RGBA, TIFF", data=saved(colours, "TIFF"), seen=on_background(colours), said=said),
        Kind(
            name="RGBA, WEBP",
            data=saved(colours, "WEBP", lossless=True, exact=True),
            seen=on_background(colours),
            said=said,
        ),
        Kind(name="grey and alpha, PNG", data=saved(greys, "PNG"), seen=on_background(greys), said=said),
    ]
    opaque = PHOTO.convert("RGBA")
    kinds.append(Kind(name="RGBA without transparency", data=saved(opaque, "PNG"), seen=rgb(PHOTO), said=set()))
    black_ink = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    black_ink.paste((0, 0, 0, 255), (4, 4, 12, 12))
    white_paper = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    white_paper.paste((0, 0, 0), (4, 4, 12, 12))
    kinds.append(Kind(name="black ink on nothing", data=saved(black_ink, "PNG"), seen=rgb(white_paper), said=said))
    palette = PHOTO.quantize(16)
    holes = np.asarray(palette) == 3
    seen = rgb(palette).copy()
    seen[holes] = np.array([0xF0, 0xE0, 0xD0])
    for form in ("PNG", "GIF"):
        data = saved(palette, form, transparency=3)
        kinds.append(Kind(name=f"palette with a hole, {form}", data=data, seen=seen, said=said))
    data = saved(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    mask = Image.fromarray((np.asarray(palette) * 16).astype(np.uint8))
    veiled = palette.convert("RGB")
    veiled.putalpha(mask)
    kinds.append(Kind(name="palette with alpha, PNG", data=data, seen=on_background(veiled), said=said))
    hole = PHOTO.getpixel((0, 0))
    seen = rgb(PHOTO).copy()
    seen[(seen == hole).all(2)] = (0xF0, 0xE0, 0xD0)
    kinds.append(
        Kind(name="a transparent colour, PNG", data=saved(PHOTO, "PNG", transparency=hole), seen=seen, said=said)
    )
    for bits in (1, 2, 4, 8, 16):
        levels = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 2**bits * (65535 // 383 if bits == 16 else 1)
        white = 65535 if bits == 16 else 2**bits - 1
        seen = np.repeat(np.rint(levels * 255 / white)[..., None], 3, 2).astype(np.uint8)
        seen[levels == levels[0, 1]] = (0xF0, 0xE0, 0xD0)
        also = {"grey values scaled from 0..65535 to 0..255"} if bits == 16 else set()
        data = grey_png(bits, levels, transparent=int(levels[0, 1]))
        kinds.append(
            Kind(name=f"a transparent grey, {bits} bits", data=data, seen=seen, said=said | also | {decode.MADE_RGB})
        )
    return [
        Kind(
            name=k.name, data=k.data, seen=k.seen, said=k.said | ({decode.MADE_RGB} if "grey and" in k.name else set())
        )
        for k in kinds
    ]


def _deep() -> list[Kind]:
    def kind(name: str, data: bytes, seen: np.ndarray, how: str) -> Kind:
        grey = np.repeat(np.rint(seen)[..., None], 3, 2).astype(np.uint8)
        return Kind(name=name, data=data, seen=grey, said={f"grey values scaled from {how} to 0..255", decode.MADE_RGB})

    ramp = np.linspace(0, 1, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    own = "the file's own range"
    whole, small = np.rint(ramp * 65535).astype(np.uint16), np.rint(100 + ramp * 3995).astype(np.uint16)
    eight = np.asarray(GREY).astype(np.uint16)
    kinds = []
    for form in ("PNG", "TIFF", "PPM"):
        kinds += [
            kind(f"16 bits, {form}", saved(Image.fromarray(whole), form), whole / 257, "0..65535"),
            kind(f"8 bits times 257, {form}", saved(Image.fromarray(eight * 257), form), eight, "0..65535"),
        ]
    for form in ("PNG", "TIFF"):
        kinds.append(
            kind(f"12 bits in 16, {form}", saved(Image.fromarray(small), form), (small - 100) / 3995 * 255, own)
        )
    one = np.full((HEIGHT, WIDTH), 32896, np.uint16)
    kinds.append(kind("16 bits, one value", saved(Image.fromarray(one), "PNG"), one / 257, "0..65535"))
    wide = np.rint(ramp * 2e9 - 1e9).astype(np.int32)
    kinds.append(kind("32 bits, TIFF", saved(Image.fromarray(wide), "TIFF"), ramp * 255, own))
    numbers = ramp.astype(np.float32)
    for name, values, seen, how in (
        ("0..1", numbers, numbers * 255, "0..1"),
        ("0..255", numbers * 255, numbers * 255, "0..255"),
        ("-1..1", numbers * 2 - 1, ramp * 255, own),
        ("huge", ((ramp - 0.5) * 6e38).astype(np.float32), ramp * 255, own),
    ):
        kinds.append(kind(f"float {name}, TIFF", saved(Image.fromarray(values), "TIFF"), seen, how))
    holes = numbers.copy()
    holes[0, 0], holes[0, 1], holes[0, 2] = np.nan, np.inf, -np.inf
    seen = np.clip(np.nan_to_num(holes, nan=0, posinf=1, neginf=0), 0, 1) * 255
    kinds.append(kind("float with NaN, TIFF", saved(Image.fromarray(holes), "TIFF"), seen, "0..1"))
    kinds.append(kind("float of 64 bits, TIFF", tiff(ramp, 1), ramp * 255, "0..1"))
    half = ramp.astype(np.float16)
    kinds.append(kind("float of 16 bits, TIFF", tiff(half, 1), half.astype(float) * 255, "0..1"))
    said = {"colours scaled from 0..1 to 0..255"}
    floats = tiff((rgb(PHOTO) / 255).astype(np.float32), 2)
    kinds.append(Kind(name="colours in floating point, TIFF", data=floats, seen=rgb(PHOTO), said=said))
    return kinds


def _colours() -> list[Kind]:
    applied, guessed = {colour.PROFILE_APPLIED}, {colour.CMYK_GUESSED}
    inks = PHOTO.convert("CMYK")
    alpha = PHOTO.copy()
    alpha.putalpha(ALPHA)
    wide, linear, press = icc_profiles.wide_rgb(), icc_profiles.linear_grey(), icc_profiles.cmyk()
    seen_wide = converted(PHOTO, wide)
    veiled = Image.fromarray(seen_wide)
    veiled.putalpha(ALPHA)
    jpeg, cmyk = saved(PHOTO, "JPEG", icc_profile=wide), saved(inks, "JPEG", icc_profile=press)
    kinds = [
        ("RGB profile, PNG", saved(PHOTO, "PNG", icc_profile=wide), seen_wide, applied),
        ("RGB profile, TIFF", saved(PHOTO, "TIFF", icc_profile=wide), seen_wide, applied),
        ("RGB profile, JPEG", jpeg, converted(Image.open(io.BytesIO(jpeg)), wide), applied),
        ("sRGB profile, PNG", saved(PHOTO, "PNG", icc_profile=SRGB.tobytes()), rgb(PHOTO), set()),
        (
            "RGB profile and alpha",
            saved(alpha, "PNG", icc_profile=wide),
            on_background(veiled),
            applied | {f"transparency composited on {BACKGROUND}"},
        ),
        ("grey profile, PNG", saved(GREY, "PNG", icc_profile=linear), converted(GREY, linear), applied),
        ("a grey profile in colours", saved(PHOTO, "PNG", icc_profile=linear), rgb(PHOTO), {colour.PROFILE_UNREADABLE}),
        ("a damaged profile", saved(PHOTO, "PNG", icc_profile=wide[:200]), rgb(PHOTO), {colour.PROFILE_UNREADABLE}),
        ("CMYK profile, TIFF", saved(inks, "TIFF", icc_profile=press), converted(inks, press), applied),
        ("CMYK profile, JPEG", cmyk, converted(Image.open(io.BytesIO(cmyk)), press), applied),
        ("CMYK, TIFF", saved(inks, "TIFF"), rgb(inks), guessed),
        (
            "CMYK, a damaged profile",
            saved(inks, "TIFF", icc_profile=b"x" * 200),
            rgb(inks),
            {*guessed, colour.PROFILE_UNREADABLE},
        ),
    ]
    inks_jpeg = saved(inks, "JPEG")
    kinds.append(("CMYK, JPEG", inks_jpeg, rgb(Image.open(io.BytesIO(inks_jpeg))), guessed))
    lab = ImageCms.profileToProfile(PHOTO, SRGB, ImageCms.createProfile("LAB"), outputMode="LAB")
    back = ImageCms.profileToProfile(lab, ImageCms.createProfile("LAB"), SRGB, outputMode="RGB")
    kinds.append(("Lab, TIFF", saved(lab, "TIFF"), rgb(back), {colour.LAB_CONVERTED}))
    return [Kind(name=name, data=data, seen=seen, said=set(said)) for name, data, seen, said in kinds]


def _several() -> list[Kind]:
    other = ImageOps.invert(PHOTO)
    kinds = []
    for form in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = saved(PHOTO, form, save_all=True, append_images=[other], **options)
        kinds.append(Kind(name=f"two frames, {form}", data=data, seen=rgb(PHOTO), said={decode.FIRST_FRAME}))
    for form in ("GIF", "AVIF", "MPO"):
        data = saved(PHOTO, form, save_all=True, append_images=[other])
        first = rgb(Image.open(io.BytesIO(data)))
        kinds.append(Kind(name=f"two frames, {form}", data=data, seen=first, said={decode.FIRST_FRAME}))
    return kinds


_GROUPS: tuple[Callable[[], list[Kind]], ...] = (_plain, _turned, _transparent, _deep, _colours, _several)
KINDS = [kind for group in _GROUPS for kind in group()]
