"""The questions that can be asked of a trained run, by commands, sweeps and programs.

Each is frozen, knows its defaults, and refuses values that make no sense with an InputError that names the field. The
rooms `distance`, `likelihood`, `uncertainty` and `memorisation` answer them with the results of `eval.results`.
"""

from dataclasses import dataclass

from data_shards.io.errors import InputError, at_least

DEFAULT_COMPONENTS = 32
"""Of the mixture to sample from."""
INCEPTION_MODES = ("clean", "legacy_tensorflow", "legacy_pytorch")
IMAGE_FORMATS = ("png", "shards")
NOISES = ("independent", "correlated", "correlated-component")
FLOORS = ("algorithm1", "none")
HIDDEN = ("left", "right", "top", "bottom", "square", "random")


@dataclass(frozen=True, kw_only=True)
class DistanceQuestion:
    """How far are n images of a source from the real images of a split?"""

    source: str
    """One of `eval.images.densities.SOURCES`."""
    n: int | None = None
    """Images compared, at least 2; None for as many as `sufficient` says, see `images_of`."""
    split: str = "test"
    """Split of the real images they are compared with, all of it."""
    seed: int = 0
    """Seed of the samples, at least 0; image i is a function of (seed, i)."""
    mixture: int = DEFAULT_COMPONENTS
    """Components of the fitted mixture, for q_hat and transported."""
    covariance: str = "full"
    """Covariance type of the fitted mixture."""
    extractor: str = "efficientnet-lite0"
    """efficientnet-lite0, efficientnet-lite2, inception, dinov2, clip, a TorchScript file, or MODULE:FUNCTION."""
    extractor_size: int = 0
    """Input size in pixels; 0 for the extractor's own."""
    extractor_mode: str = "clean"
    """One of INCEPTION_MODES, for inception."""
    extractor_weights: str = ""
    """Weights of inception, empty to download them once, or of dinov2 or clip."""
    also: tuple[str, ...] = ()
    """Further measures, see `eval.distance.measures.FURTHER`."""

    def __post_init__(self) -> None:
        at_least(2, n=self.n)
        at_least(1, mixture=self.mixture)
        at_least(0, seed=self.seed)

    def images_of(self, train_split: str) -> int:
        """How many images are compared where that is the split that the run trains on."""
        return sufficient(of_training=self.split == train_split) if self.n is None else self.n


def sufficient(*, of_training: bool) -> int:
    """Images on each side that a distance should have: 50,000 from the split that was trained on, 10,000 from others.

    A Frechet distance falls as n grows, so one of fewer images is not comparable and is marked.
    """
    return 50_000 if of_training else 10_000


@dataclass(frozen=True, kw_only=True)
class NoiseQuestion:
    """What is the noise of an image given its latents? The fields that measurements of it share."""

    noise: str = "independent"
    """One of NOISES: independent pixels, one covariance for all, or one a component of the mixture."""
    floor: str = "algorithm1"
    """One of FLOORS, for the eigenvalues of correlated noise."""
    mixture: int = 32
    """Components of the fitted mixture."""
    covariance: str = "full"
    """Covariance type of the fitted mixture."""

    def __post_init__(self) -> None:
        _require_one_of(self, noise=NOISES, floor=FLOORS)
        if self.noise == "correlated-component":
            at_least(1, mixture=self.mixture)
        if self.noise == "independent" and self.floor != FLOORS[0]:
            raise InputError("is of correlated noise; give --noise correlated too, or leave it out", parameter="floor")

    @property
    def residuals(self) -> "ResidualsQuestion":
        """The covariances that it needs, where the noise is correlated."""
        return ResidualsQuestion(
            noise=self.noise, floor=self.floor, mixture=max(1, self.mixture), covariance=self.covariance
        )


@dataclass(frozen=True, kw_only=True)
class ResidualsQuestion:
    """How do the residuals of a run's training images vary together?"""

    noise: str = "correlated"
    """correlated for one covariance, correlated-component for one a component of the mixture."""
    floor: str = "algorithm1"
    """One of FLOORS: the least eigenvalue is the floor of Algorithm 1, or there is none."""
    mixture: int = 32
    """Components of the fitted mixture, at least 1."""
    covariance: str = "full"
    """Covariance type of the fitted mixture."""
    seed: int = 0
    """Seed of the codes, at least 0."""

    def __post_init__(self) -> None:
        _require_one_of(self, noise=NOISES[1:], floor=FLOORS)
        at_least(1, mixture=self.mixture)
        at_least(0, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class LikelihoodQuestion(NoiseQuestion):
    """How likely are images of a split?"""

    images: int = 500
    """Images measured, evenly spaced over the split."""
    samples: int = 20
    """Importance samples of q(z|x) for each image, at least 1."""
    annealing: int = 0
    """Densities of annealed importance sampling, which gives a tighter bound; 0 for none."""
    chains: int = 1
    """Annealed samples for each image, at least 1."""
    mixture: int = DEFAULT_COMPONENTS
    """Components of the fitted mixture; 0 for the prior only."""
    split: str = "test"
    """Split of the data."""
    seed: int = 0
    """Seed of the noise, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, samples=self.samples, chains=self.chains)
        at_least(0, mixture=self.mixture, seed=self.seed, annealing=self.annealing)
        if self.chains > 1 and not self.annealing:
            raise InputError("are of annealed importance sampling; give --annealing too", parameter="chains")


@dataclass(frozen=True, kw_only=True)
class UncertaintyQuestion(NoiseQuestion):
    """Do predicted variances say how far reconstructions are off?"""

    calibrate: bool = False
    """Whether intervals are calibrated on the held-out split of the training, and measured too."""
    images: int = 500
    """Images measured, evenly spaced over the split."""
    split: str = "test"
    """Split of the data."""
    seed: int = 0
    """Seed of the noise, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class CompletionQuestion(NoiseQuestion):
    """How well are hidden pixels of images predicted from the visible ones?"""

    noise: str = "correlated"
    """correlated, or correlated-component."""
    hide: str = "right"
    """One of HIDDEN: a half of each image, or its central square of half the sides."""
    images: int = 100
    """Images completed, evenly spaced over the split."""
    split: str = "test"
    """Split of the data."""
    seed: int = 0
    """Seed of the draws, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_one_of(self, noise=NOISES[1:], hide=HIDDEN)
        at_least(1, mixture=self.mixture)
        at_least(0, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class MemorisationQuestion:
    """Are samples nearer to training images than new images are?"""

    source: str = "q_hat"
    """q_hat, or transported: samples and reconstructions are both transported."""
    images: int = 200
    """Samples, and held-out images, at least 2."""
    mixture: int = DEFAULT_COMPONENTS
    """Components of the fitted mixture to sample from, at least 1."""
    covariance: str = "full"
    """Covariance type of the fitted mixture."""
    split: str = "test"
    """Split of the held-out images."""
    seed: int = 0
    """Seed of the noise, at least 0."""

    def __post_init__(self) -> None:
        if self.source not in ("q_hat", "transported"):
            raise InputError(f"{self.source!r} is unknown; use q_hat or transported", parameter="source")
        at_least(2, images=self.images)
        at_least(1, mixture=self.mixture)
        at_least(0, seed=self.seed)


def _require_one_of(question: object, **known: tuple[str, ...]) -> None:
    """Raises InputError where one of these fields of a question is not among its values."""
    for name, values in known.items():
        if getattr(question, name) not in values:
            raise InputError(f"{getattr(question, name)!r} is unknown; use {' or '.join(values)}", parameter=name)
