"""What is trained and measured to reproduce the paper on one data set: a YAML file, and the trainings that it means."""

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from data_shards.io.configuration import (
    Int,
    Name,
    NonNegativeInt,
    PathText,
    PositiveFloat,
    PositiveInt,
    Text,
    configuration,
    read_configuration,
)
from data_shards.io.disk import cache_folder
from data_shards.io.errors import InputError
from data_shards.io.strict_yaml import in_file
from eval.distance.extractors.inception import WEIGHTS_NAME
from eval.distance.measures import FURTHER
from trainer.config.config import Config, load_config, to_dict
from trainer.config.earlier_versions import as_first_written
from trainer.config.methods import METHODS
from trainer.config.what_may_change import FREE_TO_CHANGE

PLANS = Path(__file__).parent / "plans"
LEARNED: Final = "learned"
"""The variance that stands for sigma^2 learned by stage 1 among fixed ones."""
REFERENCE = "ours"
"""The method that variants are compared with."""
Variance = float | Literal["learned"]
Encodings = Literal["posterior", "mean", "sample"]
"""How a code enters a mixture's fit."""
Seeds = tuple[NonNegativeInt, ...]
Fields = Mapping[str, Any]
"""Fields of the trainer's configuration by dotted name, such as model.latent_dim."""


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

    @property
    def label(self) -> str:
        """Components and form, as the keys of results have it."""
        return f"{self.components}-full-{self.encodings}"

    @classmethod
    def of_label(cls, label: str) -> "MixtureForm":
        """The form that has this label."""
        components, _, encodings = label.split("-")
        return cls(components=int(components), encodings=encodings)  # type: ignore[arg-type]


@configuration
class Variances:
    """The same training under several variances sigma^2, fixed or learned; without any the exhibit is left out."""

    variances: tuple[Variance, ...] = ()
    seeds: Seeds = (0,)
    fields: Fields = field(default_factory=dict)
    """What all of these trainings change."""


@configuration
class Components:
    """Table 4: the same codes under more and more components; without numbers the table is left out."""

    numbers: tuple[PositiveInt, ...] = ()
    seeds: Seeds = (0,)
    """Seeds of the reference method whose codes are fitted."""


@configuration
class Variant:
    """One change to the reference method, measured alone at the same budget."""

    name: Name
    """Of the row and of the run folders."""
    meaning: str
    """What is changed, in a sentence without a full stop."""
    fields: Fields = field(default_factory=dict)
    """What its training changes; empty where only the latent density is another."""
    density: Literal["mixture", "best_mixture", "flow", "transported"] = "mixture"
    """best_mixture: components chosen by held-out likelihood; transported: `python -m eval transport`."""
    encodings: Encodings = "posterior"


@configuration
class Measurements:
    """How everything is measured."""

    mixture: MixtureForm = field(default_factory=MixtureForm)
    """q_hat, wherever nothing else is said."""
    distance_images: Annotated[Int, Field(ge=2)] = 10_000
    """Generated images of each distance."""
    distance_split: Text = "test"
    """Split of real images that they are compared with."""
    also: tuple[Text, ...] = ()
    """Further measures of samples from q_hat, see `python -m eval fid --help`; each number is a column of table 2."""
    extractor: Literal["auto", "inception", "efficientnet-lite0"] = "auto"
    """What images are compared by; auto is inception where its weights are at hand, else efficientnet-lite0."""
    candidates: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 8, 32, 64, 128, 256, 500, 1000)
    """Numbers of components among which held-out codes choose, for best_mixture."""
    likelihood_images: PositiveInt = 500
    """Images of each likelihood and calibration."""
    importance_samples: PositiveInt = 20
    """Samples of q(z|x) for each of them."""
    memorisation_images: Annotated[Int, Field(ge=2)] = 200
    """Samples whose nearest training images are looked for."""
    seed: NonNegativeInt = 0
    """Seed of samples and noise."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.also if name not in FURTHER]:
            raise InputError(f"{unknown[0]!r} is unknown; use some of {', '.join(FURTHER)}", parameter="also")


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
    config: PathText
    """The trainer's configuration that every training starts from."""
    shards: PathText
    """Where the shards lie, or are built."""
    fields: Fields = field(default_factory=dict)
    """What every training changes."""
    budget: Budget = field(default_factory=Budget)
    seeds: Annotated[Seeds, Field(min_length=1)] = (0, 1, 2)
    """Seeds of each method of tables 2 and 3; the standard errors are over them."""
    methods: Mapping[str, Fields] = field(default_factory=dict)
    """The methods of tables 2 and 3 by the paper's names, each with its fields; `ours` is the reference."""
    plane: Variances = field(default_factory=Variances)
    """Table 1: two latents, so that densities can be drawn."""
    sweep: Variances = field(default_factory=Variances)
    """Figure 1: in one stage."""
    components: Components = field(default_factory=Components)
    variants: tuple[Variant, ...] = ()
    """Beyond the paper."""
    variant_seeds: Seeds = (0,)
    measure: Measurements = field(default_factory=Measurements)
    aims: Aims = field(default_factory=Aims)
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
    """The plan of a data set, from `path` or the project's own, with its extractor chosen.

    Raises InputError, in one line, for what is no plan.
    """
    file = Path(path) if path else PLANS / f"{dataset.replace('-', '_')}.yaml"
    if not file.is_file():
        raise InputError(f"{file} is not a file; the project's own are in {PLANS}", parameter="plan")
    plan = read_configuration(Plan, file)
    if plan.dataset != dataset:
        raise in_file(InputError(f"{plan.dataset} is another data set than {dataset}", parameter="dataset"), file)
    if plan.measure.extractor != "auto":
        return plan
    at_hand = (cache_folder("weights") / WEIGHTS_NAME).exists()
    extractor: Literal["inception", "efficientnet-lite0"] = "inception" if at_hand else "efficientnet-lite0"
    return dataclasses.replace(plan, measure=dataclasses.replace(plan.measure, extractor=extractor))


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a plan."""

    name: str
    """Name of its run folder."""
    fields: Fields
    """Every field that differs from the plan's configuration file."""

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.fields["seed"])

    @property
    def weights(self) -> tuple[str, ...]:
        """The sets of weights that are measured: those at the end of each stage."""
        return ("stage1", "final") if self.fields["stage2.max_epochs"] > 0 else ("final",)


def trainings(plan: Plan, name: str, seeds: Seeds, fields: Fields) -> tuple[Training, ...]:
    """A training for each seed with the plan's budget: one of a single stage gets the epochs of both."""
    named = {**plan.fields, **fields}
    first, second = plan.budget.stage1_epochs, plan.budget.stage2_epochs
    if named.get("objective.name", "sigma_vae") != "sigma_vae" or named.get("stage2.max_epochs") == 0:
        first, second = first + second, 0.0
    epochs = {"stage1.max_epochs": first, "stage2.max_epochs": second}
    return tuple(Training(name=f"{name}-seed{seed}", fields=named | {"seed": seed} | epochs) for seed in seeds)


def method_trainings(plan: Plan, method: str) -> tuple[Training, ...]:
    """A method's trainings in tables 2 and 3."""
    return trainings(plan, method.lower(), plan.seeds, plan.methods[method])


def variant_trainings(plan: Plan, variant: Variant) -> tuple[Training, ...]:
    """A variant's trainings; without fields of its own it is another density on the reference's codes."""
    if not variant.fields:
        return tuple(one for one in method_trainings(plan, REFERENCE) if one.seed in plan.variant_seeds)
    return trainings(plan, variant.name, plan.variant_seeds, {**plan.methods[REFERENCE], **variant.fields})


def variance_trainings(plan: Plan, part: Literal["plane", "sweep"], variance: Variance) -> tuple[Training, ...]:
    """The trainings of a part of the plan with one variance; a method's or a variant's where equal."""
    if variance == LEARNED:
        fields: dict[str, Any] = {"objective.name": "sigma_vae", "stage2.max_epochs": 0}
    else:
        named = [name for name in ("vae", "beta_vae") if METHODS[name].variance == variance]
        fields = {"objective.name": named[0]} if named else {"objective.name": "fixed", "objective.sigma2": variance}
    wanted: Variances = getattr(plan, part)
    prefix = "plane" if part == "plane" else "sigma2"
    others = [one for method in plan.methods for one in method_trainings(plan, method)]
    others += [one for variant in plan.variants if variant.fields for one in variant_trainings(plan, variant)]
    return tuple(
        next((other for other in others if other.fields == one.fields), one)
        for one in trainings(plan, f"{prefix}-{variance}", wanted.seeds, {**wanted.fields, **fields})
    )


def resolved(plan: Plan, training: Training) -> Config:
    """The trainer's configuration of a training. Raises InputError where the fields make none."""
    return _loaded(plan.config, json.dumps({**training.fields, "name": training.name, "data.shards": plan.shards}))


@cache
def _loaded(path: str, fields: str) -> Config:
    return load_config(path, json.loads(fields))


def training_command(config: str, name: str, fields: Fields) -> str:
    """The command that trains a run of that name, with every field by which it differs from its configuration file."""
    given = {field: value if isinstance(value, str) else json.dumps(value) for field, value in fields.items()}
    words = ["python", "-m", "trainer", "--config", config, f"--name={name}"]
    return shlex.join([*words, *(f"--{field}={value}" for field, value in given.items())])


def configuration_hash(config: Config) -> str:
    """16 hexadecimal digits of everything that decides what is learnt."""
    # Kept measurements know their training by this hash of the fields' first names.
    content = as_first_written(to_dict(config))
    for name in FREE_TO_CHANGE:
        section, _, field = name.rpartition(".")
        (content[section] if section else content).pop(field, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
