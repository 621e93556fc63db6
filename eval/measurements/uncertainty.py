"""Whether a run's predicted variance sigma_k(z)^2 can be trusted: does it say how far its reconstructions are off?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from data_shards.io.progress import Progress
from eval.calibration import RegionCoverage
from eval.images.blocks import gathered, image_noise, own_places, subset_blocks, subset_indices
from eval.measured_once import measured_once
from eval.measurements import conformal
from eval.measurements.calibration_numbers import LEVELS, calibration
from eval.measurements.regions import (
    correlated_variances,
    independent_variance,
    region_coverage,
    region_means,
    region_sides,
)
from eval.protocol import UncertaintyProtocol
from eval.questions import UncertaintyQuestion
from eval.residuals.noise import CorrelatedNoise
from eval.residuals.stored import load_noise
from eval.results import UncertaintyResult
from eval.run import MeasuredRun, main_process_result, mixture_digest
from trainer.process_group import Ranks


def measure_uncertainty(
    run: MeasuredRun, question: UncertaintyQuestion, ranks: Ranks, *, steal: bool = False
) -> UncertaintyResult:
    """The answer to a question, the same on every process.

    Written to RUN/eval/uncertainty[-stage1]-ADDRESS.json, and read from there where the same was measured before.
    steal: takes the file from another job that measures it. Raises InputError where there is one, the split is too
    small, or the noise was not fitted.
    """
    correlated = None if question.noise == "independent" else load_noise(run, question.residuals, ranks)
    mixture = correlated.mixture if correlated else None
    held_out = run.config.data.valid_split
    if question.calibrate and held_out == question.split:
        raise InputError(f"intervals are calibrated on {held_out}; measure another split", parameter="split")
    protocol = run.protocol(
        UncertaintyProtocol,
        split=question.split,
        n=question.images,
        seed=question.seed,
        measure=UncertaintyResult.MEASURE,
        noise=question.noise,
        floor=question.floor if correlated else "",
        residuals=correlated.digest if correlated else "",
        calibration=held_out if question.calibrate else "",
        noise_mixture=f"{question.mixture}-{question.covariance}" if mixture else "",
        noise_mixture_digest=mixture_digest(mixture) if mixture else "",
    )
    path = run.result_path("uncertainty", protocol)
    with measured_once(UncertaintyResult, path, protocol, ranks, steal=steal) as place:
        if place.found is not None:
            return place.found
        made = _measured(run, question, correlated, protocol, ranks)
        place.save(made)
    return made


def _measured(
    run: MeasuredRun,
    question: UncertaintyQuestion,
    correlated: CorrelatedNoise | None,
    protocol: UncertaintyProtocol,
    ranks: Ranks,
) -> UncertaintyResult:
    held_out = run.config.data.valid_split
    measured = predictions(run, question, ranks, correlated)
    calibrated_on = None
    if question.calibrate:
        total = run.manifest.num_samples(held_out)
        images = max(1, min(total, conformal.MOST_NUMBERS // run.model.pixels))
        calibrated_on = predictions(run, replace(question, split=held_out, images=images), ranks, correlated)

    def result() -> UncertaintyResult:
        made = calibration(measured.errors.double(), measured.variances.double(), protocol)
        made = replace(made, regions=measured.regions(calibrated_on))
        if calibrated_on is not None:
            known = calibrated_on.errors, calibrated_on.variances
            new = measured.errors, measured.variances
            made = replace(made, calibrated=conformal.calibrated_intervals(known, new, LEVELS, held_out))
        return made

    return main_process_result(UncertaintyResult, result, ranks)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Reconstructions with one z ~ q(z|x) an image, on every process."""

    errors: Tensor
    """x - g(z), (N, d) float32."""
    variances: Tensor
    """Of each pixel, (N, d) float32."""
    scores: Mapping[int, tuple[Tensor, Tensor]]
    """|error| / deviation of region means by their side, independent and correlated, (N, regions); or empty."""

    def regions(self, held_out: "Predictions | None") -> tuple[RegionCoverage, ...]:
        """Coverage of the means over regions. held_out: images to calibrate their intervals on."""
        return tuple(
            region_coverage(side, scores, LEVELS, held_out.scores[side][1] if held_out else None)
            for side, scores in self.scores.items()
        )


@torch.inference_mode()
def predictions(
    run: MeasuredRun, question: UncertaintyQuestion, ranks: Ranks, correlated: CorrelatedNoise | None = None
) -> Predictions:
    """The reconstructions that a question is about; means over regions too where the noise is correlated."""
    model = run.model
    indices = subset_indices(run.manifest, question.split, question.images)
    N = len(indices)
    errors = torch.zeros(N, model.pixels)
    variances = torch.zeros_like(errors)
    shape = model.image_shape
    sides = region_sides(*shape[1:]) if correlated else ()
    counts = {side: region_means(torch.zeros(1, *shape), side).shape[1] for side in sides}
    scores = {side: torch.zeros(2, N, count, dtype=torch.float64) for side, count in counts.items()}
    mine = own_places(N, ranks)
    with Progress(f"uncertainty, {run.weights} weights", len(mine), show=ranks.is_main) as bar:
        bar.update(0)
        for places, index, x in subset_blocks(run.config.data.location, question.split, indices, ranks):
            posterior = model.encode(x)
            noise = image_noise(question.seed, index.tolist(), 1, model.latent_dim)[0].to(ranks.device)  # (B, D)
            z = posterior.mean + posterior.std * noise
            decoded = model.decode(z)
            errors[places] = (x - decoded.mean).flatten(1).cpu()
            variance = correlated.variance(z, decoded) if correlated else decoded.variance.expand_as(decoded.mean)
            variances[places] = variance.float().flatten(1).cpu()
            of_regions = correlated_variances(correlated, z, decoded, sides) if correlated else []
            for side, variance in zip(sides, of_regions, strict=True):
                error = region_means((x - decoded.mean).double(), side).abs()
                for row, own in enumerate((independent_variance(decoded, side), variance)):
                    scores[side][row, places] = (error / own.sqrt()).cpu()
            bar.update(places.stop - mine.start)
    return Predictions(
        errors=gathered(errors, ranks),
        variances=gathered(variances, ranks),
        scores={side: tuple(gathered(both, ranks)) for side, both in scores.items()},
    )
