"""The checkpoint of k-means: one file, replaced between iterations, so that a killed fit does not start over."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from data_shards.io import atomic
from trainer.process_group import Ranks


class KMeansCheckpoint:
    """Centroids after some iterations, which are all that k-means needs to go on.

    fingerprint: what must agree for the file to be taken up: settings and data; every_seconds: least time between two.
    """

    def __init__(self, file: Path, fingerprint: dict[str, Any], ranks: Ranks, every_seconds: float) -> None:
        self._file, self._ranks, self._every_seconds = file, ranks, every_seconds
        self._fingerprint = json.dumps(fingerprint, sort_keys=True)
        self._saved = time.monotonic()

    def save(self, centroids: Tensor, iteration: int) -> None:
        """Writes centroids (K, D) after `iteration` iterations where the last file is old enough."""
        if not self._ranks.is_main or time.monotonic() - self._saved < self._every_seconds:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"fingerprint": self._fingerprint, "iteration": str(iteration)}
        atomic.write_bytes(self._file, save({"centroids": centroids.cpu().contiguous()}, metadata))
        self._saved = time.monotonic()

    def resume(self, shape: tuple[int, int]) -> tuple[Tensor, int] | None:
        """Centroids of that shape and the iterations done, as the first process finds them, or None."""
        state = torch.zeros(shape[0] * shape[1] + 2, dtype=torch.float64, device=self._ranks.device)
        if self._ranks.is_main and self._file.exists():
            with safe_open(str(self._file), "pt") as file:
                metadata = file.metadata()
                if metadata["fingerprint"] == self._fingerprint:
                    state[:-2] = file.get_tensor("centroids").flatten().to(state.device)
                    state[-2:] = torch.tensor([int(metadata["iteration"]), 1.0])
        self._ranks.sum_(state)
        return (state[:-2].view(shape), int(state[-2])) if state[-1] else None

    def remove(self) -> None:
        """Deletes the file, on the first process, when a later checkpoint has taken its place."""
        self._file.unlink(missing_ok=True)
