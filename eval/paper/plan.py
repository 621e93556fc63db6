"""What is trained and measured to reproduce the paper on one data set: a YAML file, checked before the start."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from data_shards.io.configuration import (
    Name,
    NonNegativeInt,
    PathText,
    PositiveFloat,
    PositiveInt,
    configuration,
    in_file,
    read_configuration,
)
from data_shards.io.errors import InputError

PLANS = Path(__file__).parent / "plans"
LEARNED: Final = "learned"
"""The variance that stands for sigma^2 learned by stage 1 among fixed ones."""
Variance = float | Literal["learned"]
Encodings = Literal["posterior", "mean", "sample"]
Seeds = tuple[NonNegativeInt, ...]
REFERENCE = "ours"
"""The method that variants are compared with."""


@configuration
class Budget:
    """Epochs of the training split; every method sees the same images, one with a single stage the sum of both."""

    stage1_epochs: PositiveFloat = 20.0
    stage2_epochs: PositiveFloat = 10.0


@configuration
class MixtureForm:
    """A mixture fitted to the codes of a run."""

    components: PositiveInt = 32
    encodings: Encodings = "posterior"
    """How a code enters the fit."""

    @property
    def label(self) -> str:
        """Components and form, as the keys of results have it."""
        return f"{self.components}-full-{self.encodings}"


@configuration
class Plane:
    """Table 1: two latents, so that densities can be drawn."""

    variances: tuple[Variance, ...] = (1.0, 0.5, LEARNED, 0.01)
    """sigma^2 of each training, fixed or learned; empty leaves the table out."""
    seeds: Seeds = (0,)
    """Seeds of each training."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the trainer's configuration that differ from the plan's, such as model.latent_dim."""


@configuration
class Sweep:
    """Figure 1: the same training over fixed variances, and with the learned one."""

    variances: tuple[Variance, ...] = (0.01, 0.03, 0.1, 0.25, 0.5, 1.0, LEARNED)
    """sigma^2 of each training, fixed or learned, in one stage; empty leaves the figure out."""
    seeds: Seeds = (0,)
    """Seeds of each training."""


@configuration
class Components:
    """Table 4: the same codes under more and more components."""

    numbers: tuple[PositiveInt, ...] = (500, 1000, 2000, 10_000)
    """Components of each mixture; empty leaves the table out."""
    seeds: Seeds = (0,)
    """Seeds of the reference method whose codes are fitted."""


@configuration
class Variant:
    """One change to the reference method, measured alone at the same budget."""

    name: Name
    """Of the row and of the run folders."""
    meaning: str
    """What is changed, in a sentence without a full stop."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the trainer's configuration that differ; empty where only the latent density does."""
    density: Literal["mixture", "best_mixture", "flow", "transported"] = "mixture"
    """best_mixture: components chosen by held-out likelihood; transported: `python -m eval transport`."""
    encodings: Encodings = "posterior"
    """How a code enters the mixture."""


@configuration
class Measurements:
    """How everything is measured."""

    mixture: MixtureForm = field(default_factory=MixtureForm)
    """q_hat, wherever nothing else is said."""
    distance_images: Annotated[int, Field(ge=2)] = 10_000
    """Generated images of each distance."""
    distance_split: str = "test"
    """Split of real images that they are compared with."""
    extractor: Literal["auto", "inception", "efficientnet-lite0"] = "auto"
    """What images are compared by; auto is inception where its weights are at hand, else efficientnet-lite0."""
    extractor_weights: PathText = ""
    """Weight file of inception; empty takes the one that was downloaded before."""
    candidates: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 8, 32, 64, 128, 256, 500, 1000)
    """Numbers of components among which held-out codes choose, for best_mixture."""
    likelihood_images: PositiveInt = 500
    """Images of each likelihood and calibration."""
    importance_samples: PositiveInt = 20
    """Samples of q(z|x) for each of them."""
    memorisation_images: Annotated[int, Field(ge=2)] = 200
    """Samples whose nearest training images are looked for."""
    seed: NonNegativeInt = 0
    """Seed of samples and noise."""


@configuration
class Aims:
    """What is to be shown beside the paper's claims."""

    one_variance_nats: float | None = None
    """Importance-weighted likelihood under q_hat that the end of stage 1 is to reach; None sets no aim."""
    distance_of_peers: Mapping[str, float] = field(default_factory=dict)
    """Largest distance of our samples as a part of that of pythae's model of that name (VAE, RAE_L2)."""


@configuration
class Plan:
    """Everything that `python -m eval reproduce` may train and measure on one data set."""

    dataset: Literal["mnist", "fashion-mnist", "celeba"]
    """Which of the paper's data sets."""
    config: PathText
    """The trainer's configuration that every training starts from."""
    shards: PathText
    """Where the shards lie, or are built."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the trainer's configuration that every training changes."""
    budget: Budget = field(default_factory=Budget)
    """Epochs."""
    seeds: Annotated[Seeds, Field(min_length=1)] = (0, 1, 2)
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
    variant_seeds: Seeds = (0,)
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
        if REFERENCE not in self.methods:
            raise InputError(f"{REFERENCE!r} is missing, with which the others are compared", parameter="methods")
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise InputError(f"a name occurs twice among {', '.join(names)}", parameter="variants")
        for name, seeds in (("components", self.components.seeds), ("variant_seeds", self.variant_seeds)):
            if lost := sorted(set(seeds) - set(self.seeds)):
                raise InputError(f"seed {lost[0]} is not among seeds {list(self.seeds)} of {REFERENCE}", parameter=name)


def read_plan(dataset: str, path: str | None = None) -> Plan:
    """The plan of a data set, from `path` or the project's own. Raises InputError, in one line, for what is none."""
    file = Path(path) if path else PLANS / f"{dataset.replace('-', '_')}.yaml"
    if not file.is_file():
        raise InputError(f"{file} is not a file; the project's own are in {PLANS}", parameter="plan")
    plan = read_configuration(Plan, file)
    if plan.dataset != dataset:
        raise in_file(InputError(f"{plan.dataset} is another data set than {dataset}", parameter="dataset"), file)
    return plan
