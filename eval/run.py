"""A trained run as a measurement sees it: its model, its data, and the fields that all of its protocols have."""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from eval.protocol import Protocol, VarianceProtocol
from eval.questions import DEFAULT_COMPONENTS
from eval.results import AnyResult, result_path
from trainer.config.config import Config
from trainer.flow.latent_flow import LatentFlow
from trainer.flow.run_flow import FLOW, flow_folder, load_flow
from trainer.full_precision import allowed_precision
from trainer.mixture.density import MixtureDensity
from trainer.mixture.fitted import MIXTURE, load_mixture, mixture_folder, read_summary
from trainer.networks.model import SigmaVAE
from trainer.process_group import Ranks
from trainer.run_folder import latents
from trainer.run_folder.agreement import require_shared_folder
from trainer.run_folder.checkpoint import fingerprint, read_state
from trainer.run_folder.configurations import trained_configuration
from trainer.run_folder.latents import Latents, digest
from trainer.run_folder.restore import checkpoint_of, load_model

AnyProtocol = TypeVar("AnyProtocol", bound=Protocol)


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """One set of weights of a run, and the shards they were trained on."""

    folder: Path
    """The run folder."""
    weights: str
    """"final", "stage1" or "best"."""
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

    @property
    def family(self) -> str:
        """The density of a pixel about its mean; stage 1 is Gaussian."""
        return self.model.family if self.model.per_pixel else "gaussian"

    def protocol(self, kind: type[AnyProtocol], *, split: str, n: int, seed: int, **own: Any) -> AnyProtocol:
        """The protocol of a measurement on n images of a split: which weights, which data.

        own: the fields of `kind` that are of this kind of measurement alone.
        """
        if issubclass(kind, VarianceProtocol):
            own |= {
                "variance": "per pixel" if self.model.per_pixel else "one",
                "variance_floor": self.variance_floor,
                "family": self.family,
            }
        precision, convolutions = allowed_precision(next(self.model.parameters()).device)
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
            precision=precision,
            convolutions=convolutions,
            **own,
        )

    def result_path(self, name: str, protocol: Protocol) -> Path:
        """RUN/eval/NAME[-WEIGHTS]-ADDRESS.json; the folder exists afterwards."""
        folder = self.folder / "eval"
        folder.mkdir(exist_ok=True)
        return result_path(folder, name, protocol)

    def mixture(self, components: int, covariance: str, device: torch.device | str = "cpu") -> MixtureDensity:
        """The mixture that was fitted to these weights' codes. Raises InputError where it was not."""
        folder = mixture_folder(self.folder, components, covariance, self.weights)
        words = f"python -m trainer.mixture {self._words} --components {components}"
        words += "" if covariance == "full" else f" --covariance {covariance}"
        if not (folder / MIXTURE.record).exists():
            raise InputError(f"{folder} does not exist; fit it with `{words}`", parameter="mixture")
        if not self.has_mixture(components, covariance):
            raise InputError(
                f"{folder} was fitted to codes of other weights or images than the run has now; renew it with "
                f"`python -m eval encode {self._words}`, then `{words}`",
                parameter="mixture",
            )
        density = load_mixture(folder, device).density
        if density.means.shape[1] != self.model.latent_dim:
            what = f"has {density.means.shape[1]} dimensions, and this run {self.model.latent_dim} latents"
            raise InputError(f"{folder} {what}; it is of another run: fit one with `{words}`", parameter="mixture")
        return density

    def has_mixture(self, components: int, covariance: str) -> bool:
        """Whether such a mixture is there, fitted to codes of these weights."""
        folder = mixture_folder(self.folder, components, covariance, self.weights)
        # A summary of an earlier version does not say what it was fitted to.
        codes = ((read_summary(folder) or {}).get("codes") or {}).get("train")
        return (folder / MIXTURE.record).exists() and self._is_own(codes)

    def fitted_components(self, covariance: str) -> list[int]:
        """The numbers of components of the mixtures that were fitted to codes of weights of this name, increasing."""
        suffix = "" if self.weights == "final" else f"-{self.weights}"
        found = (self.folder / "mixtures").glob(f"*-{covariance}{suffix}/{MIXTURE.record}")
        return sorted(int(path.parent.name.split("-")[0]) for path in found)

    def components(self, covariance: str, given: int | None) -> int:
        """`given`, else the components of the only mixture that is fitted, or DEFAULT_COMPONENTS of several.

        Raises InputError where it is not clear which.
        """
        if given is not None:
            return given
        fitted = self.fitted_components(covariance)
        if len(fitted) > 1 and DEFAULT_COMPONENTS not in fitted:
            known = ", ".join(map(str, fitted))
            raise InputError(f"mixtures of {known} components are fitted; give one of these", parameter="mixture")
        return fitted[0] if len(fitted) == 1 else DEFAULT_COMPONENTS

    def flow(self) -> LatentFlow:
        """The flow that was fitted to these weights' codes. Raises InputError where it was not."""
        flow, folder = load_flow(self.folder, self.weights), flow_folder(self.folder, self.weights)
        record = FLOW.read_record(folder) or {}
        # Codes may have been removed since; a flow of an earlier version does not say what its codes were made from.
        is_own = flow.dim == self.model.latent_dim and self._is_own((record.get("codes_from") or {}).get("train"))
        split = self.config.data.train_split
        if is_own and latents.exists(self.folder, split, weights=self.weights):
            is_own = record.get("codes") == digest(self.codes(split))
        if not is_own:
            raise InputError(
                f"{folder} was fitted to other codes than the run has now; fit it again with "
                f"`python -m trainer.flow {self._words}`"
            )
        return flow

    def codes(self, split: str) -> Latents:
        """The codes of a split by these weights. Raises InputError where they are missing, or of other weights."""
        if not self._is_own(latents.encoded_from(self.folder, split, weights=self.weights)):
            raise InputError(
                f"{latents.latents_folder(self.folder, split, weights=self.weights)} holds codes of other weights or "
                f"images than the run has now; renew them with `python -m eval encode {self._words}`"
            )
        return latents.read(self.folder, split, weights=self.weights)

    def _is_own(self, made_from: Mapping[str, Any] | None) -> bool:
        """Whether something was made from these weights and this data. made_from: None where that is not recorded."""
        return made_from is None or (
            (made_from["checkpoint"], made_from["data"]) == (self.checkpoint, self.manifest.hash)
        )

    @property
    def _words(self) -> str:
        """The options that choose these weights, for commands in messages."""
        stage = "" if self.weights == "final" else f" --weights {self.weights}"
        return f"--run {shlex.quote(str(self.folder))}{stage}"


def load_run(run: str | Path, weights: str = "final", device: str | torch.device = "cpu") -> MeasuredRun:
    """Loads a run. weights: "final", "stage1" or "best".

    Raises InputError where run, checkpoint or shards are missing, or the shards are not those that were trained on.
    """
    config = trained_configuration(run)
    model = load_model(run, weights, str(device))
    try:
        manifest = Manifest.load(config.data.location)
    except InputError as error:
        raise InputError(f"{error}; where they have moved, set data.shards in {Path(run) / 'config.yaml'}") from error
    trained_on = read_state(checkpoint_of(run, weights)).manifest
    if trained_on != manifest.hash:
        raise InputError(
            f"{config.data.shards} holds other images than {run} was trained on (their hash was {trained_on[:12]}, "
            f"here {manifest.hash[:12]}); restore those shards, or train on these under another name",
            parameter="run",
        )
    return MeasuredRun(folder=Path(run), weights=weights, config=config, manifest=manifest, model=model)


def load_shared_run(run: str | Path, weights: str, ranks: Ranks) -> MeasuredRun:
    """`load_run` on every process of a job. Raises InputError too where they do not share one run folder."""
    measured = ranks.agree(lambda: load_run(run, weights, ranks.device))
    ranks.refuse_differences({"weights": measured.checkpoint}, "use a run folder on a disk that all machines share")
    require_shared_folder(measured.folder, ranks)
    return measured


def mixture_digest(mixture: MixtureDensity) -> str:
    """16 hexadecimal digits that differ between different mixtures."""
    parameters = mixture.parameters
    tensors = {name: getattr(parameters, name) for name in ("weights", "means", "covariances")}
    return f"{fingerprint(tensors):016x}"


def main_process_result(kind: type[AnyResult], compute: Callable[[], AnyResult], ranks: Ranks) -> AnyResult:
    """What `compute` gives on the first process, on every process; an InputError there is raised on every process."""
    if ranks.world_size == 1:
        return compute()
    content: dict[str, Any] = {}
    if ranks.is_main:
        try:
            content = {"result": compute().to_json()}
        except InputError as error:
            content = {"error": error.named(None), "parameter": error.parameter}
    answer = gathered_json(content, ranks)[0]
    if "error" in answer:
        raise InputError(answer["error"], parameter=answer["parameter"])
    return kind.from_json(answer["result"])


def gathered_json(content: Mapping[str, Any], ranks: Ranks) -> list[dict[str, Any]]:
    """What every process gives, in the order of their ranks, on every process."""
    if ranks.world_size == 1:
        return [dict(content)]
    own = json.dumps(content).encode()
    sizes = torch.zeros(ranks.world_size, dtype=torch.int64, device=ranks.device)
    sizes[ranks.rank] = len(own)
    ends = ranks.sum_(sizes).cumsum(0).tolist()
    room = torch.zeros(ends[-1], dtype=torch.int32, device=ranks.device)
    room[ends[ranks.rank] - len(own) : ends[ranks.rank]] = torch.frombuffer(bytearray(own), dtype=torch.uint8).to(room)
    everything = bytes(ranks.sum_(room).tolist())
    return [json.loads(everything[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
