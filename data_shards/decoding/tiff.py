"""TIFFs that Pillow does not read, or reads wrongly: any type of number, and colours in planes of their own."""

import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from data_shards.decoding.bad_image import BadImage
from data_shards.decoding.depth import to_eight_bits
from data_shards.decoding.stored import NARROWED

if TYPE_CHECKING:
    from tifffile import TiffPage

CHANNELS_LEFT_OUT = "channels of a TIFF that are neither colour nor transparency left out"

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_BYTES = 4 * 178_956_970  # what the largest image that is read takes in Pillow
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # PhotometricInterpretation
_ASSOCIATED, _UNASSOCIATED = 1, 2  # ExtraSamples: colours that are multiplied by alpha, or not
_PROFILE, _ORIENTATION, _SAMPLES = 34675, 274, TiffImagePlugin.SAMPLESPERPIXEL
_SEPARATE = 2  # PlanarConfiguration


def is_tiff(data: bytes) -> bool:
    """Whether the first bytes are those of a TIFF or BigTIFF."""
    return data.startswith(_SIGNATURES)


def is_misread(file: Image.Image) -> bool:
    """Whether Pillow, which opened the file, gives other values than it holds: of uncompressed planes of 16 bits."""
    if not isinstance(file, TiffImagePlugin.TiffImageFile):
        return False
    tags = file.tag_v2
    deep = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8
    separate = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _SEPARATE
    return deep and separate and tags.get(TiffImagePlugin.COMPRESSION, 1) == 1


def has_further_channels(file: Image.Image) -> bool:
    """Whether Pillow, which opened the file, leaves channels of it out."""
    return isinstance(file, TiffImagePlugin.TiffImageFile) and file.tag_v2.get(_SAMPLES, 1) > len(file.getbands())


def read_tiff(data: bytes, done: list[str]) -> Image.Image:
    """The first page as L, LA, RGB or RGBA of 8 bits, with its profile and orientation in `info`.

    What was done is appended to `done`. Raises BadImage for a kind that is not read here, and what tifffile raises for
    a damaged file.
    """
    import tifffile  # which takes a while, and few files need it

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong is in the error that is raised
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        picture = _picture(page, _values(page, len(data)), done)
        if (profile := page.tags.get(_PROFILE)) is not None:
            picture.info["icc_profile"] = bytes(profile.value)
        if (orientation := page.tags.get(_ORIENTATION)) is not None:
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = int(orientation.value)
            picture.info["exif"] = exif.tobytes()
        picture.is_animated = _has_second_page(file)  # type: ignore[attr-defined]  # as Pillow's own files say it
    return picture


def _values(page: "TiffPage", size: int) -> NDArray[Any]:
    """H x W x samples of a page in a file of `size` bytes."""
    kind = f"a TIFF of {page.samplesperpixel} x {page.dtype or f'{page.bitspersample} bits'} a pixel"
    photometric = int(page.photometric)
    if page.dtype is None or page.dtype.kind not in "buif" or page.imagedepth != 1:
        raise BadImage(f"does not decode: {kind}; save it as integers or floating-point numbers, one layer a page")
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or (photometric == _RGB and page.samplesperpixel < 3):
        raise BadImage(f"does not decode: {kind}, whose colours are not read at that depth; save it as grey or RGB")
    if page.nbytes > _MOST_BYTES:
        raise BadImage(f"{page.imagewidth} x {page.imagelength} pixels of {kind}, more bytes than are read")
    if any(start + count > size for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)):
        raise BadImage("does not decode: image file is truncated")
    try:
        values = page.asarray(squeeze=False, maxworkers=1)  # planes x 1 x H x W x samples
    except (ValueError, ImportError) as error:
        if isinstance(error, ValueError) and "imagecodecs" not in str(error):
            raise
        raise BadImage(
            f"does not decode: {kind}, {_compression(page)}; install imagecodecs, or save it without compression"
        ) from error
    return np.moveaxis(values[:, 0], 0, -1).reshape(page.imagelength, page.imagewidth, page.samplesperpixel)


def _compression(page: "TiffPage") -> str:
    def name(value: int) -> str:
        return str(getattr(value, "name", value))

    predicted = f" with the predictor {name(page.predictor)}" if page.predictor != 1 else ""
    return f"compressed by {name(page.compression)}{predicted}"


def _picture(page: "TiffPage", values: NDArray[Any], done: list[str]) -> Image.Image:
    """Colours, or the first channel where none is a colour, with alpha; what else there is is left out."""
    colours = 3 if int(page.photometric) == _RGB else 1
    kinds = [int(kind) for kind in page.extrasamples]
    has_alpha = bool(kinds) and kinds[0] in (_ASSOCIATED, _UNASSOCIATED) and values.shape[2] > colours
    if values.shape[2] > colours + has_alpha:
        done.append(CHANNELS_LEFT_OUT)
    shallow = _eight_bits(values[..., :colours], done)
    if int(page.photometric) == _WHITE_IS_ZERO:
        shallow = 255 - shallow
    if not has_alpha:
        return Image.fromarray(shallow.squeeze(2) if colours == 1 else shallow)
    whole = np.concatenate([shallow, _alpha(values[..., colours : colours + 1])], 2)
    picture = Image.fromarray(whole)
    if kinds[0] == _ASSOCIATED:
        size, mode = (page.imagewidth, page.imagelength), picture.mode
        picture = Image.frombytes(mode[:-1] + "a", size, whole.tobytes()).convert(mode)
    return picture


def _eight_bits(values: NDArray[Any], done: list[str]) -> NDArray[np.uint8]:
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8:
        return values
    if values.shape[2] == 3 and values.dtype == np.uint16 and values.max(initial=0) >= 2**15:
        done.append(NARROWED)  # as Pillow does where the planes are not apart
        return (values >> 8).astype(np.uint8)
    scaled, how = to_eight_bits(values)
    done.append(how if values.shape[2] == 1 else how.replace("grey values", "colours"))
    return scaled


def _alpha(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Alpha of any type as 0..255: integers by the range of their type, floating-point numbers from 0..1."""
    white = 1.0 if values.dtype.kind in "bf" else float(np.iinfo(values.dtype).max)
    return np.rint(np.clip(np.nan_to_num(values.astype(np.float64) / white), 0, 1) * 255).astype(np.uint8)


def _has_second_page(file: Any) -> bool:
    try:
        return file.pages[1] is not None
    except IndexError:
        return False
