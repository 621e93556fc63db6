"""Writing a set of generated images to disk, for people and other programs: PNG files, or tar shards of them."""

import io
import re
import tarfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from PIL import Image
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.errors import InputError, machine_faults
from data_shards.io.removal import holds_only, remove_own
from eval.images.sources import ImageSource
from trainer.process_group import Ranks

BLOCKS_A_SHARD = 64
_FILES = re.compile(r"\d{8,}\.(png|tar)")


def png_bytes(image: Tensor) -> bytes:
    """A PNG file of an image (C, H, W), uint8, C = 1 or 3."""
    pixels = image.permute(1, 2, 0).numpy()  # (H, W, C)
    content = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(content, format="PNG")
    return content.getvalue()


class ImageFolder:
    """A folder of images that takes its name only when all of them are in it.

    file_format is one of `eval.questions.IMAGE_FORMATS`. "png" has one file an image, 00000012.png for image 12;
    "shards" has WebDataset tars of up to 4096 images, each named after its first image, with members of those names and
    no times: the same images give the same bytes.
    """

    def __init__(self, folder: Path, file_format: str, ranks: Ranks) -> None:
        self.folder, self._ranks = folder, ranks
        self._save = write_tars if file_format == "shards" else write_pngs
        self._beside = folder.with_name(f".{folder.name}.partial")

        def make() -> None:
            if not ranks.is_main:
                return
            for former in (folder, self._beside):
                if former.exists() and not holds_only(former, _FILES):
                    raise InputError(f"{former}: holds other files than the images written here; move it away")
            remove_own(self._beside, _FILES)
            self._beside.mkdir(parents=True)

        ranks.agree(make)

    def saving(self, source: ImageSource) -> ImageSource:
        """The same source; every image that is taken from it is written as well."""
        return lambda blocks: self._save(source(blocks), self._beside)

    def finish(self) -> None:
        """Gives the folder its name. All processes take part, after their last image."""
        self._ranks.barrier()
        if self._ranks.is_main:
            atomic.replace_folder(self._beside, self.folder, _FILES)


def write_pngs(blocks: Iterator[tuple[Tensor, Tensor]], folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """The same blocks; each image is written as FOLDER/00000012.png for image 12."""
    for ids, images in blocks:
        for image_id, image in zip(ids.tolist(), images, strict=True):
            path = folder / _name(image_id)
            with machine_faults(path):
                path.write_bytes(png_bytes(image))
        yield ids, images


def write_tars(blocks: Iterator[tuple[Tensor, Tensor]], folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """The same blocks; their images are written into WebDataset tars of up to 4096, named after their first image."""
    while (first := next(blocks, None)) is not None:
        path = (folder / _name(int(first[0][0]))).with_suffix(".tar")
        with machine_faults(path), tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
            for ids, images in chain([first], islice(blocks, BLOCKS_A_SHARD - 1)):
                for image_id, image in zip(ids.tolist(), images, strict=True):
                    content = png_bytes(image)
                    member = tarfile.TarInfo(_name(image_id))
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
                yield ids, images


def _name(image_id: int) -> str:
    return f"{image_id:08d}.png"
