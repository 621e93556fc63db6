"""A trained run as a measurement sees it: its model, its data, and the fields that all of its protocols have."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from eval.protocol import Protocol, VarianceProtocol
from eval.results import AnyResult
from trainer.config.config import Config, load_config
from trainer.mixture.density import MixtureDensity
from trainer.mixture.fitted import load_mixture, mixture_folder
from trainer.networks import SigmaVAE
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import fingerprint
from trainer.run_folder.restore import load_model

AnyProtocol = TypeVar("AnyProtocol", bound=Protocol)


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

    @cached_property
    def checkpoint(self) -> str:
        """16 hexadecimal digits that differ between different weights."""
        return f"{fingerprint(self.model.state_dict()):016x}"

    @property
    def variance_floor(self) -> float:
        """The smallest variance that the likelihood can have, in squared pixel units of the [0, 1] scale."""
        return self.model.variance_floor.item() if self.model.per_pixel else self.model.dataset_variance

    def protocol(self, kind: type[AnyProtocol], *, split: str, n: int, seed: int, **own: Any) -> AnyProtocol:
        """The protocol of a measurement on n images of a split: which weights, which data.

        own: the fields of `kind` that are of this kind of measurement alone.
        """
        if issubclass(kind, VarianceProtocol):
            own |= {"variance": "per pixel" if self.model.per_pixel else "one", "variance_floor": self.variance_floor}
        return kind(
            run=self.config.name,
            weights=self.weights,
            checkpoint=self.checkpoint,
            data=self.manifest.hash,
            split=split,
            n=n,
            image_shape=self.manifest.image_shape,
            pixels=self.manifest.pixels.to_json(),
            seed=seed,
            **own,
        )

    def result_path(self, name: str) -> Path:
        """RUN/eval/NAME.json, or RUN/eval/NAME-stage1.json; the folder exists afterwards."""
        folder = self.folder / "eval"
        folder.mkdir(exist_ok=True)
        return folder / (f"{name}.json" if self.weights == "final" else f"{name}-{self.weights}.json")

    def mixture(self, components: int, covariance: str, device: torch.device | str = "cpu") -> MixtureDensity:
        """The mixture that was fitted to these weights' codes. Raises InputError where it was not."""
        folder = mixture_folder(self.folder, components, covariance, self.weights)
        if not (folder / "mixture.json").exists():
            stage = "" if self.weights == "final" else f" --weights {self.weights}"
            raise InputError(
                f"{folder} does not exist; fit it with "
                f"`python -m trainer.mixture --run {self.folder} --components {components}{stage}`",
                parameter="mixture",
            )
        return load_mixture(folder, device).density


def load_run(run: str | Path, weights: str = "final", device: str | torch.device = "cpu") -> MeasuredRun:
    """Loads a run. weights: "final" or "stage1". Raises InputError where run, checkpoint or shards are missing."""
    config = load_config(run)
    model = load_model(run, weights, str(device))
    return MeasuredRun(
        folder=Path(run), weights=weights, config=config, manifest=Manifest.load(config.data.shards), model=model
    )


def mixture_digest(mixture: MixtureDensity) -> str:
    """16 hexadecimal digits that differ between different mixtures."""
    parameters = mixture.parameters
    tensors = {name: getattr(parameters, name) for name in ("weights", "means", "covariances")}
    return f"{fingerprint(tensors):016x}"


def main_process_result(kind: type[AnyResult], compute: Callable[[], AnyResult], ranks: Ranks) -> AnyResult:
    """What `compute` gives on the first process, on every process; an InputError there is raised on every process."""
    if ranks.world_size == 1:
        return compute()
    content = b""
    if ranks.is_main:
        try:
            content = json.dumps({"result": compute().to_json()}).encode()
        except InputError as error:
            content = json.dumps({"error": error.named(None), "parameter": error.parameter}).encode()
    size = int(ranks.sum_(torch.tensor([len(content)], device=ranks.device)))
    room = torch.zeros(size, dtype=torch.int32, device=ranks.device)
    if ranks.is_main:
        room += torch.frombuffer(bytearray(content), dtype=torch.uint8).to(room)
    answer = json.loads(bytes(ranks.sum_(room).tolist()))
    if "error" in answer:
        raise InputError(answer["error"], parameter=answer["parameter"])
    return kind.from_json(answer["result"])
