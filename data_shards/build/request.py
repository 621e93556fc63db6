"""Shards of a data set that is known by name: what to build, and an estimate of what it takes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from data_shards.build.builder import DEFAULT_SHARD_IMAGES, BuildOptions, build, finished_without_source, merge, recipe
from data_shards.build.layout import shard_plans
from data_shards.build.leftovers import files_of
from data_shards.build.recipe import agree_on_recipe, division_kept, read_recipe
from data_shards.decoding import decode
from data_shards.io.disk import free_bytes
from data_shards.io.errors import InputError
from data_shards.manifest import DEFAULT_WINDOW, Manifest
from data_shards.pixels import Encoding, Fit, Pixels
from data_shards.sources.portion import HeldOutPortions, Portion
from data_shards.sources.source import Crop, Dataset, Source

SOURCES: dict[str, Dataset] = {
    known.name: known
    for module in (
        "celeba",
        "idx",
        "folder",
    )
    for known in import_module(f"data_shards.sources.{module}").DATASETS
}
"""The data sets that are known by name. A new one is a file in `sources/` and a line here."""

# JPEGs of 178 x 218 pixels that one core of 2021 decodes, crops and resizes to 64 x 64 in a second.
_IMAGES_PER_CORE_SECOND = 1800


def build_shards(
    dataset: str,
    out: str | Path,
    *,
    source: str | Path | None = None,
    size: int | None = None,
    crop: Crop | None = None,
    fit: Fit | None = None,
    background: str | None = None,
    channels: int | None = None,
    encoding: Encoding = "raw",
    valid: int | str | None = None,
    test: int | str | None = None,
    shard_images: int = DEFAULT_SHARD_IMAGES,
    window: int = DEFAULT_WINDOW,
    skip_bad: int = 0,
    processes: int = 1,
    update: bool = False,
    check_content: bool = False,
) -> Manifest:
    """Builds tar shards of a data set in the folder `out` and returns their manifest.

    manifest = build_shards("folder", "shards/mine", source="IMAGES", size=64)
    for batch in ShardStream("shards/mine", split="train", global_batch=256): ...

    The same call again continues an interrupted build, writes damaged shards again, and returns where all is there.

    dataset       a name in `SOURCES`: celeba, mnist, fashion-mnist or folder
    out           folder for the shards; made where it is missing
    source        folder of the data set's files; may be left out for fashion-mnist, which is found or downloaded
    size          side of the images in pixels; default 64, for mnist and fashion-mnist 28, as they are
    crop          side of the centred square that is cut out first, in pixels; "square", the largest that there is; or
                  "none"; default 140 for celeba, "square" for folder, "none" for the others
    fit           how an image of another shape fits where nothing is cut out: "pad" (the default) keeps its shape and
                  fills the rest with the background, "stretch" squashes it
    background    colour that is seen where an image is transparent or padded, a name or "#rrggbb"; default white
    channels      1 (grey) or 3 (RGB, the default); for folder only
    encoding      raw (uint8 .npy, the fastest to read), png, jpeg, or original (the bytes of the source, which are
                  cropped and resized when they are read)
    valid         how many training images become the split valid, or a percentage such as "5%". Of mnist and
                  fashion-mnist these are the last, by default 5000. Of a folder a hash of each file's name decides, so
                  that no image moves to another split when others are added; by default it is 5% where there is no
                  folder with such a name. celeba has official splits
    test          the same for the split test of a folder
    shard_images  images in a shard; of a folder on average
    window        shards in which samples are shuffled together
    skip_bad      how many unusable source images are left out before the build is refused
    processes     processes that write shards; the bytes do not depend on it
    update        brings finished shards up to date where images were added, removed or replaced since; only the shards
                  that change are written
    check_content compares all images with what the shards were made from, not only those of another size or time

    Raises InputError where an argument is wrong, the source is missing or damaged, more than `skip_bad` images are
    unusable, `out` holds shards of another source or with other options, or the disk is too small.
    """
    request = BuildRequest(
        dataset=dataset,
        out=Path(out),
        source=None if source is None else Path(source),
        size=size,
        crop=crop,
        fit=fit,
        background=background,
        channels=channels,
        encoding=encoding,
        valid=valid,
        test=test,
        shard_images=shard_images,
        window=window,
        skip_bad=skip_bad,
        processes=processes,
        update=update,
        check_content=check_content,
    )
    manifest = request.build()
    assert manifest is not None  # there is one part
    return manifest


def _say_nothing(line: str) -> None:
    pass


def _recorded(portion: Portion | None) -> int | str | None:
    """A portion as the recipe has it."""
    return None if portion is None else portion.images if portion.images is not None else str(portion)


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """The arguments of `build_shards`, and `part` of `parts` jobs that share the work. Raises InputError."""

    dataset: str
    out: Path
    source: Path | None = None
    size: int | None = None
    crop: Crop | None = None
    fit: Fit | None = None
    background: str | None = None
    channels: int | None = None
    encoding: Encoding = "raw"
    valid: int | str | None = None
    test: int | str | None = None
    shard_images: int = DEFAULT_SHARD_IMAGES
    window: int = DEFAULT_WINDOW
    skip_bad: int = 0
    processes: int = 1
    part: int = 0
    parts: int = 1
    update: bool = False
    check_content: bool = False
    steal_lock: bool = False
    pixels: Pixels = field(init=False)
    """How the images are made."""
    options: BuildOptions = field(init=False)
    """How they are cut into shards."""
    held_out: HeldOutPortions = field(init=False)
    """What becomes valid and test, where that was chosen."""

    def __post_init__(self) -> None:
        if self.dataset not in SOURCES:
            raise InputError(f"{self.dataset!r} is unknown; use one of {', '.join(SOURCES)}", parameter="dataset")
        known = SOURCES[self.dataset]
        held_out = HeldOutPortions(
            valid=known.checked_portion("valid", self.valid),
            test=known.checked_portion("test", self.test),
        )
        options = BuildOptions(
            valid=_recorded(held_out.valid or known.valid),
            test=_recorded(held_out.test or known.test),
            shard_images=self.shard_images,
            window=self.window,
            skip_bad=self.skip_bad,
            processes=self.processes,
            part=self.part,
            parts=self.parts,
            update=self.update,
            check_content=self.check_content,
            steal_lock=self.steal_lock,
        )
        pixels = known.pixels(
            size=self.size,
            crop=self.crop,
            fit=self.fit,
            background=self.background,
            channels=self.channels,
            encoding=self.encoding,
        )
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "held_out", held_out)
        object.__setattr__(self, "pixels", pixels)

    def open_source(self) -> Source:
        """The source, found or downloaded where no folder is given. Raises InputError."""
        known = SOURCES[self.dataset]
        if known.takes_every_image and self.source is not None:
            place, out = self.source.resolve(), self.out.resolve()
            if place == out or place in out.parents:
                raise InputError(f"{self.out} lies in the source {self.source}; choose a folder elsewhere", "out")
        return known.open_source(self.source, replace(self.held_out, kept=division_kept(self.out)))

    def build(self, say: Callable[[str], None] = _say_nothing) -> Manifest | None:
        """Writes the shards of this part; the manifest, where this part is all the work.

        say: is given a line before the work for each thing that was found in the source, or decided about it; after
        it one where shards are of an earlier decoder
        """
        source = self._source_or_nothing()
        if source is None:
            say(f"{self.out}: finished and whole; the source is no longer there to be compared")
            return Manifest.load(self.out)
        for line in source.notes():
            say(line)
        made = build(source, self.pixels, self.out, self.options, folder=self.source)
        if made is not None:
            self._say_decodings(made, say)
        return made

    def _say_decodings(self, made: Manifest, say: Callable[[str], None]) -> None:
        decodings = made.build.get("decodings", [1])
        if decodings != [decode.VERSION] and SOURCES[self.dataset].encoded:
            which = " and ".join(map(str, decodings))
            what = "its statistics are of pixels" if self.encoding == "original" else "its pixels are"
            say(
                f"{self.out}: {what} by version {which} of the decoder; today's, {decode.VERSION}, reads some kinds of "
                "file otherwise; build into another folder to have all as today"
            )

    def merge(self, say: Callable[[str], None] = _say_nothing) -> Manifest:
        """Checks the shards of all parts and writes the manifest. Raises InputError where one is missing. say: as in
        `build`"""
        source = self._source_or_nothing()
        if source is None:
            return Manifest.load(self.out)
        made = merge(source, self.pixels, self.out, self.options, folder=self.source)
        self._say_decodings(made, say)
        return made

    def _source_or_nothing(self) -> Source | None:
        """The source; None where it is gone since its shards were finished, and these are whole."""
        try:
            return self.open_source()
        except InputError:
            if self.source is not None and self.source.exists():
                raise
            kept = read_recipe(self.out)
            if kept is None or (self.source is not None and kept.get("folder") != str(self.source.resolve())):
                raise
            options = recipe(self.dataset, self.pixels, self.options)
            if self.update or finished_without_source(self.out, options, self.processes) is None:
                raise
            return None

    def estimate(self, say: Callable[[str], None] = _say_nothing) -> "BuildEstimate":
        """What the build takes. Reads the listing of the source and writes nothing. say: as in `build`

        Raises InputError where `out` holds shards with other options, or files of others.
        """
        source = self.open_source()
        plans = shard_plans(source, self.shard_images)
        planned = [name for plan in plans for name in files_of(plan.name)]
        agree_on_recipe(self.out, recipe(source.name, self.pixels, self.options), planned)
        for line in source.notes():
            say(line)
        images = {split: len(keys) for split, keys in source.keys.items()}
        total = sum(images.values())
        return BuildEstimate(
            images=images,
            shards=len(plans),
            seconds=total / (self.processes * _IMAGES_PER_CORE_SECOND),
            bytes=total * self.pixels.member_bytes,
            exact=self.encoding == "raw",
            free_bytes=free_bytes(self.out),
        )


@dataclass(frozen=True, kw_only=True)
class BuildEstimate:
    """What a build takes."""

    images: dict[str, int]
    """Of each split."""
    shards: int
    """Of all splits."""
    seconds: float
    """By the processes of the request, on one core each."""
    bytes: int
    """Of all shards; an upper limit where the images are compressed."""
    exact: bool
    """Whether the images are not compressed."""
    free_bytes: int
    """On the disk of the shards."""
