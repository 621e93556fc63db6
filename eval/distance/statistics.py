"""Sums of feature vectors, which parts of an evaluation write and a merge adds up.

Statistics, not features, travel: (ids, n, sum x, sum x x^T) in float64 determine mean and covariance, and their sum
over parts is what one process would have found, up to the order of float64 additions. A mean of distances is not.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from scipy.linalg.blas import dsyrk
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.errors import InputError
from data_shards.io.regular_files import kind_if_no_file
from eval.image_sets.image_set import Decisions
from eval.protocol import differences
from trainer.run_folder.tensor_file import read_tensors


class FeatureStatistics:
    """Running sums over feature vectors of `dim` numbers.

    ids: (n,) int64, which images entered; sum: (dim,) and outer: (dim, dim), float64, sum x and sum x x^T;
    features: (n, dim) float32 in the order of ids, or None unless `keep_features`: what kernel distances need;
    protocol: how the features were made; statistics of different protocols are never added; decisions: what was done to
    the images, as far as that is to be known where parts are merged.
    """

    def __init__(self, dim: int, *, protocol: Mapping[str, Any] | None = None, keep_features: bool = False) -> None:
        self.dim, self.protocol, self.decisions = dim, dict(protocol or {}), Decisions()
        self.sum = torch.zeros(dim, dtype=torch.float64)
        self.outer = torch.zeros(dim, dim, dtype=torch.float64)
        self._ids = [torch.zeros(0, dtype=torch.int64)]
        self._features = [torch.zeros(0, dim)] if keep_features else None

    @classmethod
    def from_sums(
        cls, *, ids: Tensor, total: Tensor, outer: Tensor, features: Tensor | None, protocol: Mapping[str, Any]
    ) -> "FeatureStatistics":
        """Statistics whose sums are known already; shapes as in the class."""
        made = cls(len(total), protocol=protocol, keep_features=features is not None)
        made.sum, made.outer, made._ids = total, outer, [ids]
        if features is not None:
            made._features = [features]
        return made

    @property
    def n(self) -> int:
        """Number of images."""
        return sum(len(ids) for ids in self._ids)

    @property
    def ids(self) -> Tensor:
        """(n,) int64."""
        self._ids = [torch.cat(self._ids)]
        return self._ids[0]

    @property
    def features(self) -> Tensor | None:
        """(n, dim) float32, or None where they were not kept."""
        if self._features is None:
            return None
        self._features = [torch.cat(self._features)]
        return self._features[0]

    def kept_features(self) -> Tensor:
        """(n, dim) float32. Raises InputError where the vectors were not kept."""
        if self.features is None:
            raise InputError(
                "feature vectors are needed, but the parts hold sums only; ask for the measure in each part",
                parameter="also",
            )
        return self.features

    def update(self, features: Tensor, ids: Tensor) -> None:
        """Adds `features`, (B, dim), of the images `ids`, (B,).

        Raises InputError where a feature is not finite, naming the image.
        """
        if features.shape != (len(ids), self.dim):
            raise ValueError(f"features {tuple(features.shape)} are not ({len(ids)}, {self.dim})")
        finite = features.isfinite().all(dim=1).cpu()
        if not finite.all():
            raise InputError(
                f"features: image {int(ids.cpu()[~finite][0])} has one that is not finite; look at its pixels"
            )
        x = features.detach().double()  # (B, dim)
        self.sum += x.sum(0).cpu()
        if x.is_cuda:
            self.outer += (x.T @ x).cpu()
        else:
            # Half the work of a full product: the lower triangle of the sum, mirrored.
            lower = torch.from_numpy(dsyrk(1.0, x.numpy().T, trans=0, lower=1))
            self.outer += lower.tril() + lower.tril(-1).T
        self._ids.append(ids.cpu().to(torch.int64))
        if self._features is not None:
            self._features.append(features.detach().float().cpu())

    def mean(self) -> Tensor:
        """(dim,) float64."""
        return self.sum / self.n

    def covariance(self) -> Tensor:
        """(dim, dim) float64, divided by n - 1. Raises InputError for fewer than two images."""
        if self.n < 2:
            raise InputError(f"a covariance of {self.n} images is undefined; use at least 2", parameter="n")
        mean = self.mean()
        return (self.outer - self.n * torch.outer(mean, mean)) / (self.n - 1)

    @classmethod
    def merge(cls, parts: Sequence["FeatureStatistics"]) -> "FeatureStatistics":
        """The statistics of all images of `parts` together.

        Raises InputError where protocols differ or an image is in two parts.
        """
        if not parts:
            raise InputError("parts: none are given; give at least one")
        first = parts[0]
        for number, part in enumerate(parts):
            different = differences(first.protocol, part.protocol)
            if different or part.dim != first.dim:
                raise InputError(f"part {number}: of another protocol: {different or f'{part.dim} features'}")
        ids, order = torch.cat([part.ids for part in parts]).sort(stable=True)
        doubled = ids[1:][ids[1:] == ids[:-1]]
        if len(doubled):
            raise InputError(f"parts: image {int(doubled[0])} is in two of them; each image may enter once")
        features = [part.features for part in parts if part.features is not None]
        merged = cls.from_sums(
            ids=ids,
            total=torch.stack([part.sum for part in parts]).sum(0),
            outer=sum((part.outer for part in parts), torch.zeros_like(first.outer)),
            features=torch.cat(features)[order] if len(features) == len(parts) else None,
            protocol=first.protocol,
        )
        merged.decisions = Decisions.together(part.decisions.to_json() for part in parts)
        return merged

    def save(self, path: str | Path) -> None:
        """Writes everything into the safetensors file `path`, whole or not at all, with a digest of its content."""
        tensors = {"ids": self.ids, "sum": self.sum, "outer": self.outer}
        if self.features is not None:
            tensors["features"] = self.features
        said: dict[str, Any] = {"protocol": self.protocol}
        # Files of earlier versions have none.
        said |= {"decisions": self.decisions.to_json()} if self.decisions != Decisions() else {}
        record = said | {"sha256": _digest(tensors, said)}
        # One entry, since the order of several is not fixed and the same sums shall give the same bytes.
        atomic.write_bytes(Path(path), save(tensors, {"record": json.dumps(record, sort_keys=True)}))

    @classmethod
    def load(cls, path: str | Path) -> "FeatureStatistics":
        """Reads what `save` wrote. Raises InputError naming the file where it is missing, damaged or no file."""
        if kind := kind_if_no_file(path):
            raise InputError(f"{path}: is {kind}; move it away and start the command that makes it again")
        try:
            tensors, texts = read_tensors(path)
            record = json.loads(texts["record"])
            said = {name: record[name] for name in ("protocol", "decisions") if name in record}
            if record["sha256"] != _digest(tensors, said):
                raise ValueError("its digest does not match its content")
            statistics = cls.from_sums(
                ids=tensors["ids"],
                total=tensors["sum"],
                outer=tensors["outer"],
                features=tensors.get("features"),
                protocol=record["protocol"],
            )
            statistics.decisions = Decisions.together([said["decisions"]] if "decisions" in said else [])
        except FileNotFoundError as error:
            raise InputError(f"{path}: missing; start the command that makes it again") from error
        except (SafetensorError, struct.error, KeyError, ValueError) as error:
            raise InputError(
                f"{path}: damaged ({error}); delete it and start the command that makes it again"
            ) from error
        return statistics


def _digest(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> str:
    beside = said if "decisions" in said else said["protocol"]
    content = hashlib.sha256(json.dumps(beside, sort_keys=True).encode())
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        content.update(tensors[name].contiguous().numpy().data)
    return content.hexdigest()
