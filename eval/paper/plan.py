"""What is trained and measured to reproduce the paper on one data set: a YAML file, checked before the start."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import jsonargparse
import yaml

from data_shards.io.errors import InputError
from trainer.config.sections import require
from trainer.mixture.encodings import FORMS

PLANS = Path(__file__).parent / "plans"
LEARNED: Final = "learned"
"""The variance that stands for sigma^2 learned by stage 1 among fixed ones."""
Variance = float | Literal["learned"]
REFERENCE = "ours"
"""The method that variants are held against."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Epochs of the training split; every method sees the same images, one with a single stage the sum of both."""

    stage1_epochs: float = 20.0
    """Epochs of stage 1, above 0."""
    stage2_epochs: float = 10.0
    """Epochs of stage 2, above 0."""

    def __post_init__(self) -> None:
        require(self.stage1_epochs > 0, f"budget.stage1_epochs: {self.stage1_epochs} is not above 0")
        require(self.stage2_epochs > 0, f"budget.stage2_epochs: {self.stage2_epochs} is not above 0")


@dataclass(frozen=True, kw_only=True)
class MixtureForm:
    """A mixture fitted to the codes of a run."""

    components: int = 32
    """Number of components, at least 1."""
    encodings: str = "posterior"
    """How a code enters the fit: posterior, mean or sample."""

    def __post_init__(self) -> None:
        require(self.components >= 1, f"mixture.components: {self.components} is below 1")
        known = ", ".join(FORMS)
        require(self.encodings in FORMS, f"mixture.encodings: {self.encodings!r} is unknown; use one of {known}")

    @property
    def label(self) -> str:
        """Components and form, as keys of results have it."""
        return f"{self.components}-full-{self.encodings}"


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Table 1: two latents, so that densities can be drawn."""

    variances: tuple[Variance, ...] = (1.0, 0.5, LEARNED, 0.01)
    """sigma^2 of each training, fixed or learned; empty leaves the table out."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of each training."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the trainer's configuration that differ from the plan's, such as model.latent_dim."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Figure 1: the same training over fixed variances, and with the learned one."""

    variances: tuple[Variance, ...] = (0.01, 0.03, 0.1, 0.25, 0.5, 1.0, LEARNED)
    """sigma^2 of each training, fixed or learned, in one stage; empty leaves the figure out."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of each training."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """Table 4: the same codes under more and more components."""

    numbers: tuple[int, ...] = (500, 1000, 2000, 10_000)
    """Components of each mixture; empty leaves the table out."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the reference method whose codes are fitted."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One change to the reference method, measured alone at the same budget."""

    name: str
    """Of the row; letters, digits, dots and dashes."""
    meaning: str
    """What is changed, in a sentence without a full stop."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the trainer's configuration that differ; empty where only the latent density does."""
    density: str = "mixture"
    """mixture, best_mixture (components chosen by held-out likelihood), flow, or transported (`eval transport`)."""
    encodings: str = "posterior"
    """How a code enters the mixture."""


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """How everything is measured."""

    mixture: MixtureForm = field(default_factory=MixtureForm)
    """q_hat, wherever nothing else is said."""
    distance_images: int = 10_000
    """Generated images of each distance, at least 2."""
    distance_split: str = "test"
    """Split of real images that they are compared with."""
    extractor: Literal["auto", "inception", "efficientnet-lite0"] = "auto"
    """What images are compared by; auto is inception where its weights are at hand, else efficientnet-lite0."""
    extractor_weights: str = ""
    """Weight file of inception; empty takes the one that was downloaded before."""
    candidates: tuple[int, ...] = (1, 8, 32, 64, 128, 256, 500, 1000)
    """Numbers of components among which held-out codes choose, for best_mixture."""
    likelihood_images: int = 500
    """Images of each likelihood, at least 1."""
    importance_samples: int = 20
    """Samples of q(z|x) for each of them, at least 1."""
    memorisation_images: int = 200
    """Samples whose nearest training images are looked for, at least 2."""
    seed: int = 0
    """Seed of samples and noise."""

    def __post_init__(self) -> None:
        for name, least in (
            ("distance_images", 2),
            ("likelihood_images", 1),
            ("importance_samples", 1),
            ("memorisation_images", 2),
            ("seed", 0),
        ):
            require(getattr(self, name) >= least, f"measure.{name}: {getattr(self, name)} is below {least}")
        require(len(self.candidates) > 0, "measure.candidates: is empty; give at least one number of components")


@dataclass(frozen=True, kw_only=True)
class Aims:
    """What is to be shown beside the paper's claims."""

    one_variance_nats: float | None = None
    """Importance-weighted likelihood under q_hat that the end of stage 1 is to reach; None sets no aim."""
    distance_of_peers: Mapping[str, float] = field(default_factory=dict)
    """Largest distance of our samples as a part of that of pythae's model of that name (VAE, RAE_L2)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that `python -m eval reproduce` may train and measure on one data set."""

    dataset: Literal["mnist", "fashion-mnist", "celeba"]
    """Which of the paper's data sets."""
    config: str
    """The trainer's configuration that every training starts from."""
    shards: str
    """Where the shards lie, or are built."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the trainer's configuration that every training changes."""
    budget: Budget = field(default_factory=Budget)
    """Epochs."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each method of tables 2 and 3; the standard errors are over them."""
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The methods of tables 2 and 3 by the paper's names, each with its fields; `ours` is the reference."""
    plane: Plane = field(default_factory=Plane)
    """Table 1."""
    sweep: Sweep = field(default_factory=Sweep)
    """Figure 1."""
    components: Components = field(default_factory=Components)
    """Table 4."""
    variants: tuple[Variant, ...] = ()
    """Beyond the paper."""
    variant_seeds: tuple[int, ...] = (0,)
    """Seeds of each variant."""
    measure: Measurements = field(default_factory=Measurements)
    """Protocols."""
    aims: Aims = field(default_factory=Aims)
    """What is to be shown."""
    remark: str = ""
    """What must be known to read this data set's numbers, in sentences; stands above them."""
    not_run: str = ""
    """Why nothing was measured, for the pages of a data set of which nothing was."""

    def __post_init__(self) -> None:
        require(REFERENCE in self.methods, f"methods: {REFERENCE!r} is missing; it is what the others are held against")
        require(len(self.seeds) > 0, "seeds: is empty; give at least one")
        names = [variant.name for variant in self.variants]
        require(len(set(names)) == len(names), f"variants: a name occurs twice among {', '.join(names)}")
        for name, seeds in (("components", self.components.seeds), ("variant_seeds", self.variant_seeds)):
            lost = sorted(set(seeds) - set(self.seeds))
            require(not lost, f"{name}: seed {lost[:1]} is not among seeds {list(self.seeds)}, so there is no `ours`")


def read_plan(dataset: str, path: str | None = None) -> Plan:
    """The plan of a data set, from `path` or the project's own. Raises InputError, in one line, for what is none."""
    file = Path(path) if path else PLANS / f"{dataset.replace('-', '_')}.yaml"
    if not file.is_file():
        raise InputError(f"--plan: {file} is not a file; the project's own are in {PLANS}")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Plan, "plan", fail_untyped=True)
    try:
        content = yaml.safe_load(file.read_text())
        parsed = parser.parse_object({"plan": content})
        plan = parser.instantiate(parsed).plan
    except (jsonargparse.ArgumentError, yaml.YAMLError, TypeError, ValueError, InputError) as error:
        raise InputError(f"{file}: {_cause(error)}") from error
    if plan.dataset != dataset:
        raise InputError(f"{file}: is a plan for {plan.dataset}; --dataset says {dataset}")
    return plan


def _cause(error: BaseException) -> str:
    """The project's own words where they are behind the error, else the parser's in one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split())
