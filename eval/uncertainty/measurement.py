"""Whether a run's predicted variance sigma_k(z)^2 says how far its reconstructions are off, in numbers."""

import math

import torch
from torch import Tensor

from data_shards.io.progress import Progress
from eval.images.subset import gathered, image_noise, own_places, subset_blocks, subset_indices
from eval.protocol import VarianceProtocol
from eval.questions import UncertaintyQuestion
from eval.results import (
    Coverage,
    CoverageOfImages,
    Residuals,
    UncertaintyResult,
    UpperHalf,
    measured_before,
)
from eval.run import MeasuredRun, main_process_result
from eval.uncertainty.calibration import LEVELS, correlation, coverage, rank_correlation, reliability, sparsification
from trainer.process_group import Ranks

RESIDUAL_EDGES = tuple(-5 + 0.25 * i for i in range(41))
"""Edges of the histogram of standardised residuals, in standard deviations."""


def measure_uncertainty(run: MeasuredRun, question: UncertaintyQuestion, ranks: Ranks) -> UncertaintyResult:
    """The answer to a question, the same on every process.

    Written to RUN/eval/uncertainty.json (uncertainty-stage1.json for the weights at the end of stage 1), and read from
    there where the same was measured before. Raises InputError where the split is too small.
    """
    protocol = run.protocol(
        VarianceProtocol, split=question.split, n=question.images, seed=question.seed, measure="uncertainty 1"
    )
    path = run.result_path("uncertainty")
    found = measured_before(UncertaintyResult, path, protocol)
    if not ranks.any(found is None) and found is not None:
        return found
    errors, variances = predictions(run, question, ranks)

    def result() -> UncertaintyResult:
        made = calibration(errors.double(), variances.double(), protocol)
        made.save(path)
        return made

    return main_process_result(UncertaintyResult, result, ranks)


@torch.inference_mode()
def predictions(run: MeasuredRun, question: UncertaintyQuestion, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Errors x - g(z) and variances sigma_k(z)^2 with one z ~ q(z|x) an image, (N, d) float32, on every process."""
    model = run.model
    indices = subset_indices(run.manifest, question.split, question.images)
    errors = torch.zeros(len(indices), model.pixels)
    variances = torch.zeros_like(errors)
    mine = own_places(len(indices), ranks)
    with Progress(f"uncertainty, {run.weights} weights", len(mine), show=ranks.is_main) as bar:
        bar.update(0)
        for places, index, x in subset_blocks(run.config.data.shards, question.split, indices, ranks):
            posterior = model.encode(x)
            noise = image_noise(question.seed, index.tolist(), 1, model.latent_dim)[0].to(ranks.device)  # (B, D)
            decoded = model.decode(posterior.mean + posterior.std * noise)
            errors[places] = (x - decoded.mean).flatten(1).cpu()
            variances[places] = decoded.variance.expand_as(decoded.mean).flatten(1).cpu()
            bar.update(places.stop - mine.start)
    return gathered(errors, ranks), gathered(variances, ranks)


def calibration(error: Tensor, variance: Tensor, protocol: VarianceProtocol) -> UncertaintyResult:
    """Calibration and sharpness of variances predicted for N images of d pixels.

    error: x - g(z), (N, d) float64; variance: (N, d) float64, above 0.
    """
    square_error = error.square()
    inside = coverage(square_error, variance)  # (N, L)
    residual = error / variance.sqrt()
    flat_error, flat_variance = square_error.flatten(), variance.flatten()
    return UncertaintyResult(
        protocol=protocol,
        coverage=tuple(
            CoverageOfImages(
                level=level,
                value=inside[:, i].mean().item(),
                standard_error=(inside[:, i].std() / math.sqrt(len(inside))).item() if len(inside) > 1 else None,
            )
            for i, level in enumerate(LEVELS)
        ),
        upper_half=_upper_half(flat_error, flat_variance),
        residuals=Residuals(
            mean=residual.mean().item(),
            standard_deviation=residual.std(correction=0).item(),
            edges=RESIDUAL_EDGES,
            density=tuple(histogram(residual).tolist()),
            beyond=(residual.abs() > RESIDUAL_EDGES[-1]).double().mean().item(),
        ),
        correlation_of_variance_and_square_error=correlation(flat_error, flat_variance),
        rank_correlation_over_pixels=rank_correlation(flat_error, flat_variance),
        rank_correlation_over_images=rank_correlation(square_error.mean(1), variance.mean(1)),
        reliability=reliability(flat_error, flat_variance),
        sparsification=sparsification(flat_error, flat_variance),
        log_likelihood_gain=log_likelihood_gain(square_error, variance),
        mean_square_error=flat_error.mean().item(),
        mean_variance=flat_variance.mean().item(),
    )


def _upper_half(square_error: Tensor, variance: Tensor) -> UpperHalf | None:
    """Calibration of those pixels whose variance lies above the median; None where all variances are equal.

    Backgrounds that are always black are easy, and many enough to hide how the intervals do where there is something
    to predict. square_error, variance: (n,).
    """
    above = variance > variance.median()
    if not above.any():
        return None
    inside = coverage(square_error[above][None], variance[above][None])[0]
    return UpperHalf(
        coverage=tuple(Coverage(level=level, value=inside[i].item()) for i, level in enumerate(LEVELS)),
        mean_square_error=square_error[above].mean().item(),
        variance=variance[above].mean().item(),
    )


def histogram(residual: Tensor) -> Tensor:
    """Density of standardised residuals over RESIDUAL_EDGES, (40,); residuals beyond the edges are left out."""
    edges = torch.tensor(RESIDUAL_EDGES, dtype=torch.float64)
    counts, _ = torch.histogram(residual.flatten(), edges)
    return counts / residual.numel() / edges.diff()


def log_likelihood_gain(square_error: Tensor, variance: Tensor) -> float:
    """Nats per image by which these variances beat the best single one (equation 9) on the same errors.

    square_error, variance: (N, d). Below 0 where one number for all pixels would have been better.
    """
    best = square_error.mean()
    per_pixel = square_error / variance + variance.log()
    return float(0.5 * ((1 + best.log()) * square_error.shape[1] - per_pixel.sum(1).mean()))
