"""The set of images that a word of the command line names."""

import tarfile
from os.path import expanduser  # the shell does not, after shards: and run:
from pathlib import Path

from data_shards.io.errors import InputError
from data_shards.pixels import Pixels
from eval.image_sets.arrays import array_of, image_array
from eval.image_sets.copies import fetched, is_remote, path_in
from eval.image_sets.image_files import image_files
from eval.image_sets.image_set import ImageSet
from eval.image_sets.kinds import KINDS
from eval.image_sets.recipe import made_by
from eval.image_sets.run_samples import Sampling, run_samples
from eval.image_sets.shard_splits import shard_split
from eval.image_sets.tars import is_pattern, tar_images
from trainer.process_group import Ranks


def open_set(
    word: str,
    ranks: Ranks,
    *,
    n: int | None = None,
    sampling: Sampling | None = None,
    recipe: Pixels | None = None,
) -> ImageSet:
    """The set that a word names, see KINDS, the same on every process; n images of it, all where n is None.

    sampling: what a run's images are drawn from; its seed is that of the choice of n images too. recipe: how all images
    are made into those of one size that a run takes; None leaves them in colour, of their own sizes. Raises InputError
    where there is no such set, or fewer images.
    """
    sampling = sampling or Sampling()
    if word.startswith("run:"):
        samples = run_samples(expanduser(word.removeprefix("run:")), sampling, ranks, n=n)
        return samples if recipe is None else made_by(recipe, samples)
    opened = ranks.agree(lambda: _open(word, n, sampling.seed, recipe))
    remedy = "give all processes the same files"
    ranks.refuse_differences({f"images of {word}": str(opened.identity)}, remedy)
    return opened


def _open(word: str, n: int | None, seed: int, recipe: Pixels | None) -> ImageSet:
    if word.startswith("shards:"):
        split = shard_split(expanduser(word.removeprefix("shards:")), n=n, seed=seed)
        return split if recipe is None else made_by(recipe, split)
    path = Path(word.removeprefix("file://"))
    if is_pattern(word) and not path.is_dir():
        return tar_images(word.removeprefix("file://"), n=n, seed=seed, recipe=recipe)
    if is_remote(word):
        return _of_another_machine(word, n, seed, recipe)
    if (found := array_of(str(path))) is not None:
        array = image_array(*found, name=word, n=n, seed=seed)
        return array if recipe is None else made_by(recipe, array)
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".zip"):
        return image_files(path, name=word, n=n, seed=seed, recipe=recipe)
    if path.is_file() and tarfile.is_tarfile(path):
        return tar_images(word, n=n, seed=seed, recipe=recipe)
    if path.exists():
        raise InputError(f"{word} is none of what images are read from: {KINDS}")
    raise InputError(f"{word} does not exist; give {KINDS}")


def _of_another_machine(word: str, n: int | None, seed: int, recipe: Pixels | None) -> ImageSet:
    """A zip or array at an address."""
    file, separator, array = word.rpartition(".npz:")
    address = f"{file}.npz" if separator else word
    suffix = Path(path_in(address)).suffix.lower()
    if suffix == ".zip":
        return image_files(fetched(address), name=word, n=n, seed=seed, recipe=recipe)
    if suffix in (".npz", ".npy"):
        found = image_array(fetched(address), array, name=word, n=n, seed=seed)
        return found if recipe is None else made_by(recipe, found)
    raise InputError(
        f"{word}: of other machines tars, zips and arrays are read, and shards as shards:ADDRESS/SPLIT; download it"
    )
