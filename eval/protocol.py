"""The protocol of a number: everything one must know to compare it with another, printed and stored beside it.

Each kind of measurement extends `Protocol` by its own fields (the extractor of a distance, the importance samples of a
likelihood). Two numbers may be compared, and two parts merged, only where their records are equal.
"""

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What every measurement of a trained model shares."""

    run: str
    """Name of the run, as in its configuration."""
    weights: str
    """"final", "stage1" for the end of stage 1, or "best" for the largest held-out ELBO of the newest stage."""
    checkpoint: str
    """Digest of the measured weights, so that a run trained further is not mistaken for this one."""
    data: str
    """Hash of the shards' manifest."""
    split: str
    """Split of the data that the number is about: the images scored, or the reference of a distance."""
    n: int
    """Number of images that enter, at least 1."""
    image_shape: tuple[int, int, int]
    """C, H, W of the images that the model was trained on."""
    pixels: Mapping[str, Any] = field(default_factory=dict)
    """How those pixels were made from the source (crop, size, filter, encoding), as the manifest records it."""
    pixel_scale: str = "[0, 1]"
    """Range of the pixel values; a likelihood moves by -d log s when pixels are scaled by s."""
    seed: int = 0
    """Seed of all noise drawn, 0 or more."""
    precision: str = "highest"
    """Of the networks' matrix products in float32: highest, high (TF32) or medium (bfloat16)."""
    convolutions: str = "highest"
    """Of their convolutions, likewise; CUDA's default is high. Measures themselves are computed in full precision."""

    def record(self) -> dict[str, Any]:
        """The fields as JSON stores them."""
        content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return {name: value for name, value in content.items() if (name, value) not in ADDED}

    def address(self) -> str:
        """16 hexadecimal digits that differ where anything differs that the number depends on: its content address.

        Convolutions do not count, as their default is another on GPUs, whose results are shown on machines without.
        """
        return fingerprint({name: value for name, value in self.record().items() if name not in _BESIDE})

    def command(self, run: str) -> str:
        """The command that measures the same on what the run folder `run` holds now."""
        shared = {"run": run, "weights": self.weights, "split": self.split, "seed": self.seed}
        name, own = self._command()
        given = {option: value for option, value in (shared | own).items() if value != _DEFAULTS.get(option)}
        return " ".join(
            [
                "python -m eval",
                name,
                *(f"--{option} {shlex.quote(str(v))}" if v != "" else f"--{option}" for option, v in given.items()),
            ]
        )

    def _command(self) -> tuple[str, dict[str, Any]]:
        """The command's name, and the options that it has beside those of all."""
        raise NotImplementedError


_BESIDE = ("run", "convolutions")
ADDED = (
    ("precision", "highest"),
    ("convolutions", "highest"),
    ("family", "gaussian"),
    ("noise", "independent"),
    ("floor", ""),
    ("residuals", ""),
    ("calibration", ""),
    ("noise_mixture", ""),
    ("noise_mixture_digest", ""),
    ("annealing", None),
)
"""Fields with values that records of earlier versions do not have."""

_DEFAULTS = {
    "weights": "final",
    "split": "test",
    "seed": 0,
    "covariance": "full",
    "extractor": "efficientnet-lite0",
    "floor": "algorithm1",
    "chains": 1,
}
"""Values of options that a command need not be given."""


def _mixture_options(mixture: str) -> dict[str, Any]:
    components, _, covariance = mixture.partition("-")
    return {"mixture": components, "covariance": covariance} if mixture else {}


@dataclass(frozen=True, kw_only=True)
class DistanceProtocol(Protocol):
    """`split` is the reference's split; `n` is the number of images that are compared with it."""

    source: str
    """Where those n come from: q_hat, transported, prior, flow, reconstruction, train, or half of the reference."""
    latents: str
    """How each was generated, in words; empty for real images."""
    mixture: str = ""
    """The density sampled, as COMPONENTS-COVARIANCE; empty where none is."""
    mixture_digest: str = ""
    """Digest of its parameters; of the transport's too for transported."""
    n_reference: int
    """Number of real images on the other side."""
    extractor: Mapping[str, Any]
    """The description of the extractor: name, mode, input size, resizer, digest of the weights."""
    channels: str
    """How images of C channels became the three that extractors take."""
    quantisation: str = "rounded to 8 bits"
    """What generated pixels went through, as real ones did."""

    def _command(self) -> tuple[str, dict[str, Any]]:
        network = {"extractor": self.extractor["name"]}
        if "mode" in self.extractor:
            network["extractor-mode"] = self.extractor["mode"]
        elif (self.extractor["name"], self.extractor["size"]) != (_DEFAULTS["extractor"], 64):
            network["extractor-size"] = self.extractor["size"]
        number = {} if self.source == "half" else {"n": self.n}
        return "fid", {"from": self.source, **number, **_mixture_options(self.mixture), **network}


@dataclass(frozen=True, kw_only=True)
class VarianceProtocol(Protocol):
    """What else a number depends on that follows from the likelihood's variance."""

    measure: str
    """What is measured, and by which version of its definition."""
    subset: str = "evenly spaced over the split, in source order"
    """Which n images of the split were measured."""
    variance: str
    """"one" for the data set, or "per pixel"."""
    variance_floor: float
    """The smallest variance possible, in squared pixel units."""
    family: str = "gaussian"
    """The density of a pixel about its mean, see `trainer.objectives.families`."""

    def _command(self) -> tuple[str, dict[str, Any]]:
        return "uncertainty", {"images": self.n}


@dataclass(frozen=True, kw_only=True)
class NoiseProtocol(VarianceProtocol):
    """What else a number depends on that follows from the noise of an image given its latents."""

    noise: str = "independent"
    """independent pixels; correlated, by one covariance; or correlated-component, by one a component."""
    floor: str = ""
    """"algorithm1" or "none" for the eigenvalues of correlated noise; empty for independent pixels."""
    residuals: str = ""
    """Address of the fitted covariances, see `ResidualsProtocol`; empty for independent pixels."""

    def _noise_options(self) -> dict[str, Any]:
        return {} if self.noise == "independent" else {"noise": self.noise, "floor": self.floor}


@dataclass(frozen=True, kw_only=True)
class UncertaintyProtocol(NoiseProtocol):
    """What else the calibration of variances depends on."""

    calibration: str = ""
    """Split of the images that intervals were calibrated on; empty where they were not."""
    noise_mixture: str = ""
    """Whose components have a covariance each, as COMPONENTS-COVARIANCE; empty where they have not."""
    noise_mixture_digest: str = ""
    """Digest of its parameters; empty for none."""

    def _command(self) -> tuple[str, dict[str, Any]]:
        mixture = _mixture_options(self.noise_mixture)
        calibrate = {"calibrate": ""} if self.calibration else {}
        return "uncertainty", {"images": self.n, **self._noise_options(), **mixture, **calibrate}


@dataclass(frozen=True, kw_only=True)
class ResidualsProtocol(VarianceProtocol):
    """What fitted covariances of residuals depend on. `split` is the one they were fitted on, all of it."""

    noise: str
    """correlated, or correlated-component."""
    floor: str
    """"algorithm1" or "none"."""
    held_out: str
    """Split of the images on which rank, shrinkage and strength were chosen."""
    mixture: str
    """Whose components have a covariance each, as COMPONENTS-COVARIANCE; empty for one covariance."""
    mixture_digest: str
    """Digest of its parameters; empty for one covariance."""

    def _command(self) -> tuple[str, dict[str, Any]]:
        own = {"noise": self.noise, "floor": self.floor, **_mixture_options(self.mixture)}
        return "residuals", {"split": "test", **{k: v for k, v in own.items() if (k, v) != ("noise", "correlated")}}


@dataclass(frozen=True, kw_only=True)
class CompletionProtocol(NoiseProtocol):
    """What else the completion of images depends on."""

    hide: str
    """Which pixels are hidden: left, right, top, bottom, or square."""
    mixture: str
    """The density of the latents, as COMPONENTS-COVARIANCE."""
    mixture_digest: str
    """Digest of its parameters."""

    def _command(self) -> tuple[str, dict[str, Any]]:
        own = {"hide": self.hide, "images": self.n, "noise": self.noise, "floor": self.floor}
        return "complete", own | _mixture_options(self.mixture)


@dataclass(frozen=True, kw_only=True)
class LikelihoodProtocol(NoiseProtocol):
    """What else a likelihood depends on."""

    importance_samples: int
    """Samples of q(z|x) for each image, K."""
    mixture: str
    """The fitted density in the place of the prior, as COMPONENTS-COVARIANCE; empty for none."""
    mixture_digest: str
    """Digest of its parameters; empty for none."""
    annealing: Mapping[str, int] | None = None
    """Of the tighter bound, see `eval.measurements.annealed.Annealing`; None where it was not asked for."""

    def _command(self) -> tuple[str, dict[str, Any]]:
        mixture = _mixture_options(self.mixture) or {"mixture": 0}
        own = {"images": self.n, "samples": self.importance_samples, **self._noise_options(), **mixture}
        if self.annealing:
            own |= {"annealing": self.annealing["steps"], "chains": self.annealing["chains"]}
        return "likelihood", own


@dataclass(frozen=True, kw_only=True)
class MemorisationProtocol(VarianceProtocol):
    """What else the comparison depends on. `split` is the one whose images the model was not trained on."""

    mixture: str
    """The density sampled, as COMPONENTS-COVARIANCE."""
    mixture_digest: str
    """Digest of its parameters, or of the transport for transported."""
    train_split: str
    """The split that was trained on."""

    @property
    def source(self) -> str:
        """q_hat or transported."""
        return "transported" if self.measure.endswith("transported") else "q_hat"

    def _command(self) -> tuple[str, dict[str, Any]]:
        source = {"from": "transported"} if self.source == "transported" else {}
        return "memorisation", {**source, "images": self.n, **_mixture_options(self.mixture)}


def fingerprint(record: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of a protocol record, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The fields in which two records differ, with both values, for an error message. Empty where they agree."""
    missing = "(absent)"
    return "; ".join(
        f"{name} is {theirs.get(name, missing)!r} instead of {ours.get(name, missing)!r}"
        for name in sorted({*ours, *theirs})
        if ours.get(name, missing) != theirs.get(name, missing)
    )
