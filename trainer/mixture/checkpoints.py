"""Checkpoints between EM iterations, so that a killed fit continues.

FOLDER/k-means.safetensors is the checkpoint of k-means, until the first of EM replaces it.
FOLDER/00000012/ holds parameters.safetensors, expectation-RANK-of-WORLD.safetensors, and progress.json, written last by
the first process when every process has written its part. Only the newest is kept.
"""

import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from data_shards.io import atomic
from data_shards.io.removal import remove_own
from trainer.mixture.em.e_step import EStep
from trainer.mixture.em.loop import EMState
from trainer.mixture.kmeans import KMeansCheckpoint
from trainer.mixture.parameters import Parameters
from trainer.process_group import Ranks

_KMEANS, _FOLDER = "k-means.safetensors", re.compile(r"\d{8}")
_FILES = re.compile(r"\.?(progress\.json|parameters\.safetensors|expectation-\d+-of-\d+\.safetensors)(\.\d+\.partial)?")


def remove_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a fit that has ended from `folder`, and the folder where nothing else is in it."""
    (folder / _KMEANS).unlink(missing_ok=True)
    for checkpoint in folder.iterdir() if folder.is_dir() else ():
        if _FOLDER.fullmatch(checkpoint.name):
            remove_own(checkpoint, _FILES)
    with contextlib.suppress(OSError):
        folder.rmdir()


class Checkpoints:
    """The checkpoints of one fit.

    fingerprint: settings and data, which must agree for a checkpoint to be used; every_seconds: least time between two.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], ranks: Ranks, every_seconds: float) -> None:
        self._folder, self._ranks, self._every_seconds = Path(folder), ranks, every_seconds
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self._saved = time.monotonic()
        self.kmeans = KMeansCheckpoint(self._folder / _KMEANS, fingerprint, ranks, every_seconds)
        """The checkpoint of the k-means that the fit starts with."""

    def save(self, state: EMState, e_step: EStep) -> None:
        """Writes a checkpoint where the last one is old enough. Called by all processes after an iteration."""
        if not self._ranks.any(self._ranks.is_main and time.monotonic() - self._saved >= self._every_seconds):
            return
        folder = self._folder / f"{state.iteration:08d}"
        if self._ranks.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "progress.json").unlink(missing_ok=True)  # of a former fit, whose files are replaced now
        self._ranks.barrier()
        own = {name: tensor.cpu().contiguous() for name, tensor in e_step.state().items()}
        if own:
            atomic.write_bytes(folder / self._part(self._ranks.world_size), save(own))
        self._ranks.barrier()
        if self._ranks.is_main:
            tensors = ("weights", "means", "covariances")
            parameters = {name: getattr(state.parameters, name).cpu().contiguous() for name in tensors}
            atomic.write_bytes(folder / "parameters.safetensors", save(parameters))
            record = {
                "fingerprint": self._fingerprint,
                "world_size": self._ranks.world_size,
                "iteration": state.iteration,
                "history": state.history,
                "converged": state.converged,
            }
            atomic.write_json(folder / "progress.json", record)
            for other in self._folder.iterdir():
                if _FOLDER.fullmatch(other.name) and other != folder:
                    remove_own(other, _FILES)
            self.kmeans.remove()
        self._ranks.barrier()
        self._saved = time.monotonic()

    def resume(self, e_step: EStep, covariance_type: str) -> EMState | None:
        """The newest complete checkpoint of this fit, with the state of `e_step` restored, or None.

        On another number of processes only the parameters are used; the truncated E-step searches anew.
        """
        folder, record = self._newest()
        if folder is None:
            return None
        tensors = load((folder / "parameters.safetensors").read_bytes())
        tensors = {name: tensor.to(self._ranks.device) for name, tensor in tensors.items()}
        part = folder / self._part(self._ranks.world_size)
        if record["world_size"] == self._ranks.world_size and part.exists():
            e_step.restore(load(part.read_bytes()))
        return EMState(
            Parameters(covariance_type=covariance_type, **tensors),
            iteration=record["iteration"],
            history=record["history"],
            converged=record["converged"],
        )

    def _part(self, world_size: int) -> str:
        return f"expectation-{self._ranks.rank:05d}-of-{world_size:05d}.safetensors"

    def _newest(self) -> tuple[Path | None, dict[str, Any]]:
        """The folder and record that the first process sees; all processes take the same."""
        newest = -1
        for file in sorted(self._folder.glob("*/progress.json")):
            if json.loads(file.read_text())["fingerprint"] == self._fingerprint:
                newest = int(file.parent.name)
        mine = torch.tensor([float(newest) if self._ranks.is_main else 0.0], device=self._ranks.device)
        chosen = int(self._ranks.sum_(mine)[0])
        if chosen < 0:
            return None, {}
        folder = self._folder / f"{chosen:08d}"
        return folder, json.loads((folder / "progress.json").read_text())
