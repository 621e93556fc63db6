"""Images with hidden pixels, completed: each hidden pixel's mean and interval given the visible ones.

p(hidden | visible) is a mean over z of p(hidden | visible, z), which is Gaussian in closed form, weighted by
q_hat(z) p(visible | z). Latents are drawn near the best of many draws of q_hat and weighted by the ratio of these
weights to the density that they were drawn from. Compared are the mean of the training images, the decoder alone
(independent pixels) and the correlated noise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.io.progress import Progress
from eval.calibration import CoverageOfImages
from eval.images.blocks import gathered, own_places, subset_blocks, subset_indices
from eval.images.sources import mixture_sampler
from eval.measured_once import measured_once
from eval.measurements.calibration_numbers import LEVELS
from eval.measurements.hidden import Completer, DecoderAlone, WithResiduals, hidden_pixels
from eval.measurements.posterior_samples import effective_samples
from eval.measurements.quantiles import log_cdf
from eval.protocol import CompletionProtocol
from eval.questions import CompletionQuestion
from eval.residuals.noise import CorrelatedNoise
from eval.residuals.stored import load_noise
from eval.results import Completed, CompletionResult, Measured
from eval.run import MeasuredRun, mixture_digest
from trainer.mixture.density import MixtureDensity
from trainer.noise import seeded_generator
from trainer.objectives.gaussian import log_normal
from trainer.process_group import Ranks

POOL = 1024
"""Draws of q_hat among which the search for latents of an image begins."""
ROUNDS = 3
_CENTRES = 8
_DRAWS, _OF_MIXTURE = 224, 32
"""Draws of a round near the centres, and from q_hat itself, which bounds their weights."""
_WIDER = 1.5
_TRAINING_IMAGES = 10_000
SHOWN = 8
"""Images whose completions are kept for a picture."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One image's hidden pixels."""

    mean: Tensor
    """(hidden,) float64."""
    deviation: Tensor
    """(hidden,)."""
    probability: Tensor
    """P(pixel <= the true one), (hidden,)."""
    effective: float
    """Effective draws of z."""


@torch.no_grad()
def complete_image(
    x: Tensor, hidden: Tensor, completer: Completer, mixture: MixtureDensity, pool: Tensor, seed: int
) -> Completion:
    """Completes an image (C, H, W), whose hidden pixels are only compared with.

    hidden: (C, H, W) bool; pool: (M, D) draws of the mixture; seed: of further draws.
    """
    generator, D, device = seeded_generator(seed, "completion"), pool.shape[1], x.device
    sampler = mixture_sampler(mixture.parameters)
    true = x.flatten()[hidden.flatten()].double()
    seen = x.masked_fill(hidden, 0)
    z = pool
    found = completer(seen, z)
    log_weight = found.log_likelihood  # the pool was drawn from q_hat
    for _ in range(ROUNDS):
        guess = seen.flatten()
        guess[hidden.flatten()] = (log_weight.softmax(0) @ found.mean).float().clamp(0, 1)
        # The encoder's spread at the completed image is about that of the latents.
        posterior = completer.model.encode(guess.view_as(x)[None])
        centres = torch.cat([posterior.mean, z[log_weight.topk(_CENTRES).indices]]).double()  # (J, D)
        std = _WIDER * posterior.std[0].double()  # (D,)
        chosen = torch.randint(len(centres), (_DRAWS,), generator=generator).to(device)
        noise = torch.randn(_DRAWS, D, dtype=torch.float64, generator=generator).to(device)
        far = sampler(generator)[:_OF_MIXTURE].to(device).double()
        z = torch.cat([centres[chosen] + std * noise, far])
        # The density that z was drawn from, a mixture of Gaussians at the centres and q_hat (Veach and Guibas 1995).
        near = torch.stack([log_normal(z, centre, std) for centre in centres]).logsumexp(0)
        log_q_hat = mixture.score_samples(z).to(device)
        log_proposal = torch.logaddexp(
            near + math.log(_DRAWS / len(z) / len(centres)), log_q_hat + math.log(_OF_MIXTURE / len(z))
        )
        z = z.float()
        found = completer(seen, z)
        log_weight = found.log_likelihood + log_q_hat - log_proposal
    weight = log_weight.softmax(0)
    mean = weight @ found.mean
    variance = weight @ (found.variance + found.mean.square()) - mean.square()
    below = log_cdf((true - found.mean) / found.variance.sqrt(), found.family).exp()
    return Completion(
        mean=mean,
        deviation=variance.clamp_min(0).sqrt(),
        probability=weight @ below,
        effective=effective_samples(log_weight[:, None]).item(),
    )


def measure_completion(
    run: MeasuredRun, question: CompletionQuestion, ranks: Ranks, *, steal: bool = False
) -> tuple[CompletionResult, Tensor | None]:
    """The answer to a question, the same on every process, and pictures where it was not measured before.

    Pictures: (rows, SHOWN, C, H, W) in [0, 1]: the image, its visible part, and by method mean and deviation. Written
    to RUN/eval/complete[-stage1]-ADDRESS.json. steal: takes the file from another job that measures it. Raises
    InputError where there is one, or mixture or noise were not fitted.
    """
    mixture = run.mixture(question.mixture, question.covariance, ranks.device)
    noise = load_noise(run, question.residuals, ranks)
    hidden = hidden_pixels(question.hide, run.model.image_shape).to(ranks.device)
    protocol = run.protocol(
        CompletionProtocol,
        split=question.split,
        n=question.images,
        seed=question.seed,
        measure=CompletionResult.MEASURE,
        noise=question.noise,
        floor=question.floor,
        residuals=noise.digest,
        hide=question.hide,
        mixture=f"{question.mixture}-{question.covariance}",
        mixture_digest=mixture_digest(mixture),
    )
    path = run.result_path("complete", protocol)
    with measured_once(CompletionResult, path, protocol, ranks, steal=steal) as place:
        if place.found is not None:
            return place.found, None
        table = _table(run, question, mixture, _completers(run, hidden, noise), hidden, ranks)
        result = CompletionResult(
            protocol=protocol, methods={name: _completed(values) for name, values in table.values.items()}
        )
        place.save(result)
    return result, table.pictures


def _completers(run: MeasuredRun, hidden: Tensor, noise: CorrelatedNoise) -> dict[str, Completer]:
    return {
        "decoder alone": DecoderAlone(model=run.model, hidden=hidden),
        "correlated noise": WithResiduals(model=run.model, hidden=hidden, noise=noise),
    }


@dataclass(frozen=True, kw_only=True)
class _Table:
    values: Mapping[str, Tensor]
    """By method (N, 2 + levels): square error, effective draws, coverage of each level."""
    pictures: Tensor
    """See `measure_completion`."""


def _table(
    run: MeasuredRun,
    question: CompletionQuestion,
    mixture: MixtureDensity,
    completers: Mapping[str, Completer],
    hidden: Tensor,
    ranks: Ranks,
) -> _Table:
    indices = subset_indices(run.manifest, question.split, question.images)
    mean, std = _training_moments(run, ranks)
    names = ["mean of the training images", *completers]
    values = {name: torch.zeros(len(indices), 2 + len(LEVELS), dtype=torch.float64) for name in names}
    shown = torch.zeros(2 + 2 * len(names), min(SHOWN, len(indices)), *run.model.image_shape)
    sampler = mixture_sampler(mixture.parameters)
    draws = [sampler(seeded_generator(question.seed, "completion pool", block)) for block in range(POOL // 64)]
    pool = torch.cat(draws).to(ranks.device)
    mine = own_places(len(indices), ranks)
    with Progress(f"completion, {run.weights} weights", len(mine), show=ranks.is_main) as bar:
        bar.update(0)
        for places, index, images in subset_blocks(run.config.data.location, question.split, indices, ranks):
            for place, x, i in zip(range(places.start, places.stop), images, index.tolist(), strict=True):
                true = x[hidden].double()
                made = [_by_training_images(true, mean[hidden], std[hidden])]
                made += [
                    complete_image(x, hidden, one, mixture, pool, question.seed + i) for one in completers.values()
                ]
                for name, one in zip(names, made, strict=True):
                    values[name][place] = _numbers(one, true).cpu()
                if place < shown.shape[1]:
                    shown[:, place] = _pictures(x, hidden, made).cpu()
                bar.update(place + 1 - mine.start)
    return _Table(
        values={name: gathered(one, ranks) for name, one in values.items()}, pictures=gathered(shown, ranks).clamp(0, 1)
    )


def _by_training_images(true: Tensor, mean: Tensor, std: Tensor) -> Completion:
    """The same completion for every image: mean and deviation of training images at the hidden pixels, (n,) each."""
    below = log_cdf((true - mean) / std.clamp_min(1e-9)).exp()
    return Completion(mean=mean, deviation=std, probability=below, effective=1.0)


def _numbers(made: Completion, true: Tensor) -> Tensor:
    """A row of `_Table.values`, (2 + levels,). true: the hidden pixels, (n,) float64."""
    inside = [((2 * made.probability - 1).abs() <= level).double().mean() for level in LEVELS]
    error = (made.mean - true).square().mean()
    return torch.stack([error, error.new_tensor(made.effective), *inside])


def _pictures(x: Tensor, hidden: Tensor, made: Sequence[Completion]) -> Tensor:
    """The image, its visible part, and by method the completed image and the deviations: (2 + 2 methods, C, H, W)."""
    rows = [x, x.masked_fill(hidden, 0.5)]
    for one in made:
        completed, deviation = x.clone(), torch.zeros_like(x)
        completed[hidden], deviation[hidden] = one.mean.float(), one.deviation.float()
        rows += [completed, deviation]
    return torch.stack(rows)


def _training_moments(run: MeasuredRun, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each pixel over training images, (C, H, W) float64."""
    split = run.config.data.train_split
    count = min(_TRAINING_IMAGES, run.manifest.num_samples(split))
    sums = torch.zeros(2, *run.model.image_shape, dtype=torch.float64, device=ranks.device)
    for _, _, x in subset_blocks(run.config.data.location, split, subset_indices(run.manifest, split, count), ranks):
        sums += torch.stack([x.double().sum(0), x.double().square().sum(0)])
    mean, square = ranks.sum_(sums) / count
    return mean, (square - mean.square()).clamp_min(0).sqrt()


def _completed(values: Tensor) -> Completed:
    """values: (N, 2 + levels)."""
    error = values.std(0) / len(values) ** 0.5 if len(values) > 1 else None

    def measured(column: int, unit: str) -> Measured:
        one = None if error is None else error[column].item()
        return Measured(value=values[:, column].mean().item(), standard_error=one, unit=unit)

    return Completed(
        mean_square_error=measured(0, "squared pixel units"),
        effective_samples=measured(1, "samples"),
        coverage=tuple(
            CoverageOfImages(
                level=level,
                value=values[:, 2 + row].mean().item(),
                standard_error=None if error is None else error[2 + row].item(),
            )
            for row, level in enumerate(LEVELS)
        ),
    )
