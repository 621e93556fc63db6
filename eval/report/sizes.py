"""How many images a report measures: as many as the demo, or what the data has, and which split stands for new images.

What differs from the demo is said in sentences, for the command and the page.
"""

from dataclasses import dataclass

from data_shards.io.errors import InputError, at_least
from eval.questions import DistanceQuestion, LikelihoodQuestion, MemorisationQuestion, UncertaintyQuestion, sufficient
from eval.run import MeasuredRun
from trainer.dry_run import SUSTAINED, forward_operations
from trainer.mixture.settings import CovarianceType

# A component needs some codes of its own; a mixture of few codes gets fewer components.
_CODES_A_COMPONENT = 10
# What the likelihood may take on one CPU, and what a core reaches of `SUSTAINED` in it.
_LIKELIHOOD_SECONDS, _REACHED, _FEWEST_OF_LARGE = 300.0, 0.5, 50


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured on how many images; 0 where the split has too few."""

    split: str
    """The split of new images."""
    components: int
    """Of the mixture."""
    distance: int
    """Generated images of a distance."""
    real: int
    """Training images whose distance gives the scale."""
    likelihood: int
    uncertainty: int
    memorisation: int
    remarks: tuple[str, ...]
    """What differs from the usual, a sentence each."""


def chosen_sizes(run: MeasuredRun, split: str | None, components: int | None, covariance: CovarianceType) -> Sizes:
    """The sizes for a run. split, components: None to choose them.

    Raises InputError where the shards have no such split, or no split of new images.
    """
    remarks: list[str] = []
    chosen = _split(run, split, remarks)
    images = run.manifest.num_samples(chosen)
    enough = sufficient(of_training=chosen == run.config.data.train_split)
    distance = min(enough, images) if images >= 2 else 0
    if not distance:
        remarks.append(f"Split {chosen} has one image: no distance and no nearest images are measured.")
    elif distance < enough:
        remarks.append(
            f"Split {chosen} has {images:,} images, so distances are of {distance:,}: too large by an unknown amount, "
            "and comparable with each other only."
        )
    likelihood = _affordable(run, min(LikelihoodQuestion.images, images), remarks)
    return Sizes(
        split=chosen,
        components=_components(run, components, covariance, remarks),
        distance=distance,
        real=min(distance, run.manifest.num_samples(run.config.data.train_split)),
        likelihood=likelihood,
        uncertainty=min(UncertaintyQuestion.images, images),
        memorisation=min(MemorisationQuestion.images, images) if images >= 2 else 0,
        remarks=tuple(remarks),
    )


def _split(run: MeasuredRun, asked: str | None, remarks: list[str]) -> str:
    """The asked split, or the first of test and the training's held-out one that has images."""
    filled = [name for name in run.manifest.splits if run.manifest.num_samples(name)]
    held_out = run.config.data.valid_split
    wanted = [asked] if asked else ["test", held_out]
    found = next((name for name in wanted if name in filled), None)
    if found is None:
        known = ", ".join(filled)
        raise InputError(f"{run.config.data.shards} has no split {wanted[0]!r}; use one of {known}", parameter="split")
    if found != "test" and not asked:
        remarks.append(
            f"The shards have no split test, so split {found} stands for new images. It decided when training ended, "
            "and may therefore look a little better than images that nothing has seen."
        )
    return found


def _components(run: MeasuredRun, asked: int | None, covariance: CovarianceType, remarks: list[str]) -> int:
    """The asked number; else that of the mixture that is there; else 32, or fewer where there are few images."""
    if asked is not None:
        at_least(1, mixture=asked)
        return asked
    usual, fitted = DistanceQuestion.mixture, run.fitted_components(covariance)
    images = run.manifest.num_samples(run.config.data.train_split)
    for_few = max(1, min(usual, images // _CODES_A_COMPONENT))
    if not fitted and for_few < usual:
        remarks.append(f"The mixture has {for_few} components, not {usual}, as there are {images:,} training images.")
    if not fitted or usual in fitted:
        return usual if fitted else for_few
    others = f"; those of {', '.join(map(str, fitted[:-1]))} by --mixture" if fitted[:-1] else ""
    remarks.append(f"A mixture of {fitted[-1]} components has been fitted and is taken{others}.")
    return fitted[-1]


def _affordable(run: MeasuredRun, images: int, remarks: list[str]) -> int:
    """As many images as a likelihood takes some minutes for."""
    an_image = (0.5 + 0.75 * LikelihoodQuestion.samples) * forward_operations(run.model)
    affordable = max(_FEWEST_OF_LARGE, int(_LIKELIHOOD_SECONDS * _REACHED * SUSTAINED["cpu"] / an_image))
    if affordable < images:
        remarks.append(
            f"The likelihood is of {affordable:,} images, which takes some minutes; `python -m eval likelihood` "
            "measures more."
        )
    return min(images, affordable)
