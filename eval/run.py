"""A trained run as a measurement sees it: its model, its data, and what the protocol of every number must say."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from eval.protocol import Protocol
from trainer.config.config import Config, load_config
from trainer.mixture import GaussianMixture
from trainer.mixture.folder import mixture_folder
from trainer.networks.model import SigmaVAE
from trainer.run_folder.checkpoint import fingerprint
from trainer.run_folder.restore import load_model


@dataclass(frozen=True, kw_only=True)
class VarianceProtocol(Protocol):
    """What else a number depends on that follows from the likelihood's variance."""

    measure: str
    """What is measured, and by which edition of its definition."""
    subset: str = "evenly spaced over the split, in source order"
    """Which n images of the split were measured."""
    variance: str
    """"one" for the data set, or "per pixel"."""
    variance_floor: float
    """The smallest variance possible, in squared pixel units."""


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """One set of weights of a run, and the shards they were trained on."""

    folder: Path
    """The run folder."""
    weights: str
    """"final" or "stage1"."""
    config: Config
    """The configuration it was trained with."""
    manifest: Manifest
    """Of its shards."""
    model: SigmaVAE
    """In evaluation mode."""

    @property
    def variance_floor(self) -> float:
        """The smallest variance that the likelihood can have, in squared pixel units of the [0, 1] scale."""
        return self.model.variance_floor.item() if self.model.per_pixel else self.model.dataset_variance

    def protocol_fields(self, split: str, n: int, seed: int) -> dict[str, Any]:
        """The fields of a `Protocol` for a measurement on n images of a split: which weights, which data."""
        return {
            "run": self.config.name,
            "weights": self.weights,
            "checkpoint": f"{fingerprint(self.model.state_dict()):016x}",
            "data": self.manifest.hash,
            "split": split,
            "n": n,
            "image_shape": self.manifest.image_shape,
            "pixels": self.manifest.pixels.to_json(),
            "seed": seed,
        }

    def variance_protocol(self, split: str, n: int, seed: int) -> dict[str, Any]:
        """The fields of a `VarianceProtocol` for a measurement on n images of a split."""
        return {
            **self.protocol_fields(split, n, seed),
            "variance": "per pixel" if self.model.per_pixel else "one",
            "variance_floor": self.variance_floor,
        }

    def result_path(self, name: str) -> Path:
        """RUN/eval/NAME.json, or RUN/eval/NAME-stage1.json; the folder exists afterwards."""
        folder = self.folder / "eval"
        folder.mkdir(exist_ok=True)
        return folder / (f"{name}.json" if self.weights == "final" else f"{name}-{self.weights}.json")

    def mixture(self, components: int, covariance: str, device: torch.device | str = "cpu") -> GaussianMixture:
        """The mixture that was fitted to these weights' codes. Raises InputError where it was not."""
        folder = mixture_folder(self.folder, components, covariance, self.weights)
        if not (folder / "mixture.json").exists():
            stage = "" if self.weights == "final" else f" --weights {self.weights}"
            raise InputError(
                f"--mixture: {folder} is not there; fit it with "
                f"`python -m trainer.mixture --run {self.folder} --components {components}{stage}`"
            )
        return GaussianMixture.load(folder, device)


def open_run(run: str | Path, weights: str = "final", device: str | torch.device = "cpu") -> MeasuredRun:
    """Loads a run. weights: "final" or "stage1". Raises InputError where run, checkpoint or shards are missing."""
    config = load_config(run)
    model = load_model(run, weights, str(device))
    return MeasuredRun(
        folder=Path(run), weights=weights, config=config, manifest=Manifest.load(config.data.shards), model=model
    )


def measured_before(path: Path, protocol: Protocol) -> dict[str, Any] | None:
    """The result in `path` where it was measured by the same protocol, else None."""
    if not path.exists():
        return None
    content = read_result(path)
    return content if content["protocol"] == protocol.record() else None


def mixture_digest(mixture: GaussianMixture) -> str:
    """16 hexadecimal digits that differ between different mixtures."""
    parameters = mixture.parameters_
    tensors = {name: getattr(parameters, name) for name in ("weights", "means", "covariances")}
    return f"{fingerprint(tensors):016x}"


def read_result(path: Path) -> dict[str, Any]:
    """A result that a command wrote. Raises InputError where the file is not one."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it and measure again") from error
    if not isinstance(content, dict) or "protocol" not in content:
        raise InputError(f"{path}: holds no result with a protocol; delete it and measure again")
    return content
