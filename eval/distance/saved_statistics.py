"""Mean and covariance of a set's features in a file, in place of the images: ours, or those of clean-fid.

Ours say of which extractor they are. clean-fid's do not, and are its Inception's; their names have its mode.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_shards.io.atomic import write_bytes
from data_shards.io.errors import InputError
from eval.distance.extractors.extractor import Extractor
from eval.distance.extractors.probe import alike
from eval.distance.statistics import FeatureStatistics
from eval.image_sets.arrays import member_names, members
from eval.protocol import differences
from eval.questions import INCEPTION_MODES


class SavedStatistics(FeatureStatistics):
    """mean: (d,); covariance: (d, d), float64; n: number of images, 0 where the file does not say."""

    def __init__(self, mean: Tensor, covariance: Tensor, n: int, protocol: Mapping[str, Any]) -> None:
        super().__init__(len(mean), protocol=protocol)
        self._mean, self._covariance, self._n = mean, covariance, n

    @property
    def n(self) -> int:
        """Number of images, 0 where the file does not say."""
        return self._n

    def mean(self) -> Tensor:
        """(dim,) float64."""
        return self._mean

    def covariance(self) -> Tensor:
        """(dim, dim) float64."""
        return self._covariance


def save_statistics(path: Path, statistics: FeatureStatistics, extractor: Extractor) -> None:
    """Writes mu, sigma, n, the extractor's description and the images' identity. Raises InputError for one image."""
    content = io.BytesIO()
    np.savez(
        content,
        mu=statistics.mean().numpy(),
        sigma=statistics.covariance().numpy(),
        n=np.int64(statistics.n),
        extractor=np.array(json.dumps(dict(extractor.description), sort_keys=True)),
        images=np.array(json.dumps(statistics.protocol, sort_keys=True)),
    )
    write_bytes(path, content.getvalue())


def is_statistics(word: str) -> bool:
    """Whether a word names a file of statistics: an .npz with mu and sigma, and no images."""
    path = Path(word)
    if path.suffix != ".npz" or not path.is_file():
        return False
    # Images come before statistics: other programs keep both in one file, of an extractor that it does not name.
    return {"mu", "sigma"} <= member_names(path) and not any(array.ndim >= 3 for array in members(path).values())


def load_statistics(path: Path, extractor: Extractor) -> SavedStatistics:
    """Raises InputError where the file holds statistics of another extractor, or none."""
    found = members(path)
    mean, covariance = _float64(found["mu"]), _float64(found["sigma"])
    d = mean.numel()
    if mean.shape != (d,) or covariance.shape != (d, d):
        raise InputError(f"{path}: mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)} do not fit together")
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise InputError(f"{path}: has a number that is not finite; make it again")
    if "extractor" in found:
        if different := _other_extractor(found, path, extractor):
            raise InputError(f"{path}: statistics of another extractor ({different}); use that one, or make them again")
        n, protocol = int(found["n"]) if "n" in found else 0, _json(found["images"], path) if "images" in found else {}
    else:
        _require_clean_fids(path, extractor)
        n, protocol = 0, {}
    if d != extractor.dim:
        raise InputError(f"{path}: statistics of {d} features, but {extractor.label} has {extractor.dim}")
    return SavedStatistics(mean, covariance, n, protocol)


def saved_before(path: Path, identity: Mapping[str, Any], extractor: Extractor) -> SavedStatistics | None:
    """The statistics of these images by this extractor in a file; None where there is no file.

    Raises InputError where it holds anything else, which the user may still need.
    """
    if not path.exists():
        return None
    if not is_statistics(str(path)):
        raise InputError(f"{path} is there, and holds no statistics; choose another name", parameter="out")
    found = members(path)
    if not {"extractor", "images", "n"} <= found.keys():
        raise InputError(f"{path} holds statistics that were not made here; choose another name", parameter="out")
    theirs = _json(found["images"], path).get("images", {})
    ours = json.loads(json.dumps(identity))
    if different := _other_extractor(found, path, extractor) or differences(ours, theirs):
        raise InputError(
            f"{path} holds other statistics ({different}); choose another name, or remove it", parameter="out"
        )
    return load_statistics(path, extractor)


def _other_extractor(found: Mapping[str, NDArray[np.generic]], path: Path, extractor: Extractor) -> str:
    """How the extractor that a file names differs from this one; empty where it does not."""
    theirs, ours = _json(found["extractor"], path), dict(extractor.description)
    # Rounding on another machine is not another extractor.
    if "probe" in ours and "probe" in theirs and alike(str(ours["probe"]), str(theirs["probe"])):
        theirs["probe"] = ours["probe"]
    return differences(ours, theirs)


def _require_clean_fids(path: Path, extractor: Extractor) -> None:
    """Raises InputError unless statistics without a word about their extractor can be of this one."""
    name, mode = extractor.description["name"], extractor.description.get("mode")
    if name != "inception":
        raise InputError(
            f"{path}: does not say which extractor its statistics are of, so that they are taken for clean-fid's; use "
            f"--extractor inception, or make them with {name} by `python -m eval statistics`"
        )
    words = path.stem.lower()
    if "clip" in words:
        raise InputError(f"{path}: by its name of clean-fid's CLIP network, not of its Inception")
    other = next((known for known in INCEPTION_MODES if f"_{known}" in words and known != mode), None)
    if other is not None and f"_{mode}" not in words:
        raise InputError(f"{path}: by its name of clean-fid's mode {other}; use --extractor-mode {other}")


def _float64(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def _json(array: NDArray[np.generic], path: Path) -> dict[str, Any]:
    try:
        content = json.loads(str(array))
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); make it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged; make it again")
    return content
