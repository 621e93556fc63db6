"""What the numbers of a stage say about it, and what a person may do: constant data, collapse, divergence, overfitting.

The ELBO of a Gaussian with one variance has no zero. It is compared with that of the mean image, which a model reaches
that knows nothing of an image, and with the best of its own stage, in nats per pixel value.
"""

import math
from dataclasses import dataclass

from trainer.updates.evaluation import HeldOut

# Nats per pixel value. Far below the best of a stage: as by a sigma^2 that is 2% larger. Fallen: 20% larger. Lost: so
# far below the mean image's ELBO as no new network is, unless all images are equal to a standard deviation of 0.01.
FAR, FALLEN, LOST = 0.01, 0.1, 3.0
# Squared pixel units of the [0, 1] scale: pixels that differ by a fifth of a grey level of 255.
CONSTANT_VARIANCE = 1e-6
SLOWER = "lower optimiser.learning_rate, set optimiser.max_grad_norm or optimiser.warmup_images"


@dataclass(frozen=True, kw_only=True)
class StageEnd:
    """A stage at its end, before and after its best weights were restored."""

    stage: int
    """1 or 2."""
    reason: str
    """"cap", "converged" or "collapsed"."""
    rising: bool
    """Whether the last check had the gain that the configuration asks for."""
    last: HeldOut
    """Of the weights after the last update."""
    kept: HeldOut
    """Of the weights that the stage ends with."""
    best_elbo: float
    """The largest held-out ELBO of the stage, in nats per image."""
    best_images: int
    """Images that the run had seen then."""
    images: int
    """Images that the run has seen."""
    restored: bool
    """Whether the stage ends with the weights of `best_images`."""
    train_elbo: float | None
    """Of the last updates, in nats per image; None where none was good."""
    train_images: int
    """Images of the training split."""
    pixels: int
    """d = C * H * W."""


def below_mean_image(measured: HeldOut, pixels: int) -> float:
    """The ELBO of the mean image minus that of the model at its closed-form variance, in nats per pixel value."""
    return (measured.elbo_of_mean_image - measured.elbo_at_closed_form) / pixels


def constant(measured: HeldOut) -> bool:
    """Whether the held-out images hardly differ from one another."""
    return measured.mean_image_variance < CONSTANT_VARIANCE


def is_lost(measured: HeldOut, pixels: int) -> bool:
    """Whether the weights are worth nothing: the training diverged, and no best weights are better."""
    return not constant(measured) and below_mean_image(measured, pixels) > LOST


def lost(end: StageEnd, learning_rate: float) -> str:
    """The message about weights for which `is_lost` holds."""
    return (
        f"stage {end.stage} diverged: its held-out ELBO, at the variance of its own errors, is "
        f"{end.kept.elbo_at_closed_form:,.1f} nats at best, where the mean image alone has "
        f"{end.kept.elbo_of_mean_image:,.1f}; start again under another name, and {SLOWER} (the learning rate is "
        f"{learning_rate:g})"
    )


def fallen(*, best: float, best_images: int, now: float, train: float | None, images: int, pixels: int) -> str | None:
    """A message where the held-out ELBO has fallen far within a stage, else None. ELBOs are in nats per image."""
    if best - now <= FALLEN * pixels:
        return None
    where = f"the held-out ELBO has fallen from {best:,.1f} at image {best_images:,} to {now:,.1f} at image {images:,}"
    if train is not None and best - train > FALLEN * pixels:
        return f"{where}, and that of training to {train:,.1f}: the training diverges; {SLOWER}"
    return f"{where}, while that of training is {train if train is not None else math.nan:,.1f}: the model overfits"


def at_stage_end(end: StageEnd) -> list[str]:
    """Messages about a stage that has ended, the cause before what follows from it."""
    field = f"stage{end.stage}.max_epochs"
    if constant(end.kept):
        return [
            "the held-out images hardly differ from one another (variance about their mean image "
            f"{end.kept.mean_image_variance:.1e}): there is nothing to learn; see `python -m data_shards info`"
        ]
    if end.reason == "collapsed":
        return [
            "sigma^2 fell to its smallest value, so the training images are memorised or nearly constant; "
            f"lower {field}, use a smaller model or more images; lower variance.min_variance if so little noise is real"
        ]
    found = []
    if end.best_elbo - end.last.elbo > FAR * end.pixels:
        found.append(_overfitted_or_diverged(end, field))
    below, at_best = below_mean_image(end.kept, end.pixels) > 0, end.best_images == end.images
    if below and not at_best:
        found.append(
            f"stage {end.stage} ends with a held-out ELBO, at the variance of its own errors, of "
            f"{end.kept.elbo_at_closed_form:,.1f} nats, below the "
            f"{end.kept.elbo_of_mean_image:,.1f} of the mean image alone, and it does not rise: {SLOWER}"
        )
    elif below:
        found.append(
            f"stage {end.stage} ends with a held-out ELBO, at the variance of its own errors, of "
            f"{end.kept.elbo_at_closed_form:,.1f} nats, still below the "
            f"{end.kept.elbo_of_mean_image:,.1f} of the mean image alone; raise {field}; where that fails, {SLOWER}"
        )
    elif end.kept.active_dimensions == 0:
        found.append(
            f"stage {end.stage} ends with no active latent dimension: every image has the same code (posterior "
            f"collapse); set objective.kl_warmup_images, or raise {field}"
        )
    elif end.reason == "cap" and end.rising and at_best:
        found.append(
            f"stage {end.stage} ended at its cap while the ELBO was still rising; raise {field} for a better model"
        )
    return found


def _overfitted_or_diverged(end: StageEnd, field: str) -> str:
    kept = (
        f"the stage ends with the weights of image {end.best_images:,}"
        if end.restored
        else f"the stage keeps its last weights, and `--weights best` measures those of image {end.best_images:,}"
    )
    where = (
        f"stage {end.stage} ended at image {end.images:,} with a held-out ELBO of {end.last.elbo:,.1f} nats, far below "
        f"the {end.best_elbo:,.1f} at image {end.best_images:,}; {kept}"
    )
    if end.train_elbo is not None and end.best_elbo - end.train_elbo <= FAR * end.pixels:
        return f"{where}; the model overfits its {end.train_images:,} training images: use more, or lower {field}"
    return f"{where}; the training diverged: {SLOWER}"
