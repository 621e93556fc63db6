"""Checkpoints between EM iterations, so that a killed fit continues.

FOLDER/k-means.safetensors is the checkpoint of k-means, until the first of EM replaces it.
FOLDER/00000012/ holds parameters.safetensors, expectation-RANK-of-WORLD.safetensors, and progress.json, written last by
the first process when every process has written its part, which names the fit and the iteration too. Only the newest is
kept.
"""

import contextlib
import json
import math
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from data_shards.io import atomic
from data_shards.io.errors import raise_machine_fault
from data_shards.io.removal import remove_own
from trainer.mixture.em.e_step import EStep
from trainer.mixture.em.loop import EMState
from trainer.mixture.kmeans import KMeansCheckpoint
from trainer.mixture.parameters import Parameters
from trainer.process_group import Ranks
from trainer.run_folder.tensor_file import read_tensors

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


_PARAMETERS = ("weights", "means", "covariances")
_WITHOUT = "without."


class Checkpoints:
    """The checkpoints of one fit.

    fingerprint: settings and data by content, which must agree for a checkpoint to be used; every_seconds: least time
    between two.
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
            part = save(own, self._metadata(state.iteration))
            atomic.write_bytes(folder / self._part(self._ranks.world_size), part)
        self._ranks.barrier()
        if self._ranks.is_main:
            parameters = {name: getattr(state.parameters, name).cpu().contiguous() for name in _PARAMETERS}
            if state.without is not None:
                for name in _PARAMETERS:
                    parameters[_WITHOUT + name] = getattr(state.without, name).cpu().contiguous()
            atomic.write_bytes(folder / "parameters.safetensors", save(parameters))
            record = {
                "fingerprint": self._fingerprint,
                "world_size": self._ranks.world_size,
                "iteration": state.iteration,
                "history": state.history,
                "converged": state.converged,
                "nu": state.nu,
                "round": state.round,
                "revivals": state.revivals,
                "without_score": state.without_score if math.isfinite(state.without_score) else None,
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

        On another number of processes only the parameters are used; the truncated E-step searches anew. So does a
        process whose part is of another checkpoint, which is named on the terminal. A damaged checkpoint is passed
        over, and named too.
        """
        folder = self._newest()
        if folder is None:
            return None
        read = None
        try:
            read = self._read(folder, covariance_type)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise_machine_fault(error, folder)
            _passed_over(folder, error)
        failed = self._ranks.any(read is None)
        if failed or read is None:
            return None
        state, own = read
        if own is not None:
            e_step.restore(own)
        return state

    def _read(self, folder: Path, covariance_type: str) -> tuple[EMState, dict[str, Tensor] | None]:
        record = json.loads((folder / "progress.json").read_text())
        tensors = load((folder / "parameters.safetensors").read_bytes())
        tensors = {name: tensor.to(self._ranks.device) for name, tensor in tensors.items()}
        part = folder / self._part(self._ranks.world_size)
        own = None
        if record["world_size"] == self._ranks.world_size and part.exists():
            own = self._own(part, record["iteration"])
        before = {name: tensors.pop(f"{_WITHOUT}{name}") for name in _PARAMETERS if f"{_WITHOUT}{name}" in tensors}
        state = EMState(
            Parameters(covariance_type=covariance_type, **tensors),
            iteration=record["iteration"],
            history=record["history"],
            converged=record["converged"],
            nu=record["nu"],
            round=record["round"],
            revivals=record["revivals"],
            without=Parameters(covariance_type=covariance_type, **before) if before else None,
            without_score=-math.inf if record["without_score"] is None else record["without_score"],
        )
        return state, own

    def _own(self, part: Path, iteration: int) -> dict[str, Tensor] | None:
        """The tensors of this process's part; None where it is of another fit or iteration."""
        tensors, of = read_tensors(part)
        if of and of != self._metadata(iteration):  # parts of earlier versions say nothing
            print(f"warning: {part}: is of another checkpoint; what it holds is computed anew", file=sys.stderr)
            return None
        return tensors

    def _metadata(self, iteration: int) -> dict[str, str]:
        """What a process's part is known by."""
        return {"fingerprint": json.dumps(self._fingerprint, sort_keys=True), "iteration": str(iteration)}

    def _part(self, world_size: int) -> str:
        return f"expectation-{self._ranks.rank:05d}-of-{world_size:05d}.safetensors"

    def _newest(self) -> Path | None:
        """The folder that the first process sees; all processes take the same."""
        newest = -1
        for file in sorted(self._folder.glob("*/progress.json")) if self._ranks.is_main else ():
            try:
                if json.loads(file.read_text())["fingerprint"] == self._fingerprint:
                    newest = int(file.parent.name)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise_machine_fault(error, file)
                _passed_over(file.parent, error)
        mine = torch.tensor([float(newest) if self._ranks.is_main else 0.0], device=self._ranks.device)
        chosen = int(self._ranks.sum_(mine)[0])
        return None if chosen < 0 else self._folder / f"{chosen:08d}"


def _passed_over(path: Path, error: Exception) -> None:
    print(f"warning: {path}: a damaged checkpoint is passed over ({error})", file=sys.stderr, flush=True)
