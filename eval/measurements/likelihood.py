"""How likely held-out images are under a run: importance-weighted and evidence lower bounds, with standard errors."""

from collections.abc import Mapping

import torch
from torch import Tensor

from data_shards.io.progress import Progress
from eval.images.blocks import gathered, own_places, subset_blocks, subset_indices
from eval.measured_once import measured_once
from eval.measurements.annealed import ANNEALED_UNITS, Annealing, annealed_values, joint_density
from eval.measurements.discretised import bits_per_dimension
from eval.measurements.latent_divergence import divergence
from eval.measurements.posterior_samples import PosteriorSamples, Prior, effective_samples, log_mean_exp, sample_many
from eval.protocol import LikelihoodProtocol
from eval.questions import LikelihoodQuestion
from eval.residuals.noise import CorrelatedNoise
from eval.residuals.stored import load_noise
from eval.results import LikelihoodResult, Measured
from eval.run import MeasuredRun, mixture_digest
from trainer.mixture.density import MixtureDensity
from trainer.objectives.families import cap
from trainer.objectives.gaussian import log_prior
from trainer.process_group import Ranks
from trainer.updates.evaluation import ACTIVE_VARIANCE

# name: unit, for every model
_OF_THE_MODEL = {
    "elbo": "nats per image",
    "log_likelihood": "nats per image",
    "kl": "nats per image",
    "mean_square_error": "squared pixel units",
}
# and for every density over the latents
_OF_A_DENSITY = {
    "iwae": "nats per image",
    "bits_per_dimension": "bits per pixel value",
    "effective_samples": "samples",
}
_OF_THE_MIXTURE = {"held_out_log_ratio": "nats per image"}


def units(densities: Mapping[str, Prior], *, discretised: bool = True) -> dict[str, str]:
    """Name and unit of every number, in order.

    densities: "prior", and "q_hat" where a mixture was fitted; discretised: whether 8-bit pixels have probabilities.
    """
    of_each = {name: text for name, text in _OF_A_DENSITY.items() if discretised or name != "bits_per_dimension"}
    named = {f"{name}_{density}": text for density in densities for name, text in of_each.items()}
    return _OF_THE_MODEL | named | (_OF_THE_MIXTURE if "q_hat" in densities else {})


def image_values(samples: PosteriorSamples, d: int, densities: Mapping[str, Prior]) -> Tensor:
    """The numbers of `units` for B images of d pixel values, (B, number of units), float64.

    held_out_log_ratio is E_q[log q_hat(z) - log p(z)]; KL(q_hat || p) is the same mean over q_hat's own samples. Where
    KL(q_hat || p) is much the larger, the mixture remembers its training codes.
    """
    values = {
        "elbo": samples.elbo(),
        "log_likelihood": samples.log_likelihood.mean(0),
        "kl": samples.kl,
        "mean_square_error": samples.square_error.mean(0),
    }
    log_densities = {name: samples.prior_terms(density) for name, density in densities.items()}  # (K, B) each
    for name, log_density in log_densities.items():
        log_ratio = log_density - samples.log_posterior
        log_weights = samples.log_likelihood + log_ratio
        values[f"iwae_{name}"] = log_mean_exp(log_weights)
        values[f"effective_samples_{name}"] = effective_samples(log_weights)
        if len(samples.log_discretised):
            nats = log_mean_exp(samples.log_discretised + log_ratio)
            values[f"bits_per_dimension_{name}"] = bits_per_dimension(nats, d)
    if "q_hat" in log_densities:
        values["held_out_log_ratio"] = (log_densities["q_hat"] - log_densities["prior"]).mean(0)
    named = units(densities, discretised=len(samples.log_discretised) > 0)
    return torch.stack([values[name] for name in named], dim=1)


def summary(table: Tensor, named: Mapping[str, str]) -> dict[str, Measured]:
    """Mean over the images of a table (N, number of units), with its standard error (None for one image) and unit."""
    error = table.std(0, correction=min(1, len(table) - 1)) / len(table) ** 0.5
    return {
        name: Measured(
            value=table[:, column].mean().item(),
            standard_error=error[column].item() if len(table) > 1 else None,
            unit=text,
        )
        for column, (name, text) in enumerate(named.items())
    }


def measure_likelihood(
    run: MeasuredRun, question: LikelihoodQuestion, ranks: Ranks, *, steal: bool = False
) -> LikelihoodResult:
    """The answer to a question, the same on every process.

    Written to RUN/eval/likelihood[-stage1]-ADDRESS.json, and read from there where the same was measured before.
    steal: takes the file from another job that measures it. Raises InputError where there is one, the split is too
    small, or the mixture missing.
    """
    mixture = run.mixture(question.mixture, question.covariance, ranks.device) if question.mixture else None
    correlated = None if question.noise == "independent" else load_noise(run, question.residuals, ranks)
    protocol = run.protocol(
        LikelihoodProtocol,
        split=question.split,
        n=question.images,
        seed=question.seed,
        measure=LikelihoodResult.MEASURE,
        importance_samples=question.samples,
        mixture=f"{question.mixture}-{question.covariance}" if mixture else "",
        mixture_digest=mixture_digest(mixture) if mixture else "",
        noise=question.noise,
        floor=question.floor if correlated else "",
        residuals=correlated.digest if correlated else "",
        annealing=annealing.record() if (annealing := _annealing(question)) else None,
    )
    path = run.result_path("likelihood", protocol)
    with measured_once(LikelihoodResult, path, protocol, ranks, steal=steal) as place:
        if place.found is not None:
            return place.found
        result = _measured(run, question, mixture, correlated, protocol, ranks)
        place.save(result)
    return result


def _annealing(question: LikelihoodQuestion) -> Annealing | None:
    return Annealing(steps=question.annealing, chains=question.chains) if question.annealing else None


@torch.no_grad()
def _measured(
    run: MeasuredRun,
    question: LikelihoodQuestion,
    mixture: MixtureDensity | None,
    correlated: CorrelatedNoise | None,
    protocol: LikelihoodProtocol,
    ranks: Ranks,
) -> LikelihoodResult:
    densities: dict[str, Prior] = {"prior": log_prior}
    if mixture:
        densities["q_hat"] = mixture.score_samples
    indices = subset_indices(run.manifest, question.split, question.images)
    of_samples = units(densities, discretised=correlated is None)
    annealing = _annealing(question)
    of_annealing = {f"{name}_{density}": text for density in densities for name, text in ANNEALED_UNITS.items()}
    named = of_samples | (of_annealing if annealing else {})
    table = torch.zeros(len(indices), len(named), dtype=torch.float64)
    posterior_means = torch.zeros(len(indices), run.model.latent_dim, dtype=torch.float64)
    mine = own_places(len(indices), ranks)
    with Progress(f"likelihood, {run.weights} weights", len(mine), show=ranks.is_main) as bar:
        bar.update(0)
        for places, index, images in subset_blocks(run.config.data.location, question.split, indices, ranks):
            samples = sample_many(
                run.model,
                images,
                list(densities.values()),
                seed=question.seed,
                indices=index.tolist(),
                num_samples=question.samples,
                correlated=correlated,
            )
            table[places, : len(of_samples)] = image_values(samples, run.model.pixels, densities).cpu()
            if annealing:
                joints = [joint_density(run.model.decode, images, prior, correlated) for prior in densities.values()]
                posterior, numbers = run.model.encode(images), index.tolist()
                values = annealed_values(posterior, joints, numbers, annealing, seed=question.seed)
                table[places, len(of_samples) :] = values.cpu()
            posterior_means[places] = samples.posterior_mean.cpu()
            bar.update(places.stop - mine.start)
    varies = gathered(posterior_means, ranks).var(0, correction=0) > ACTIVE_VARIANCE
    return LikelihoodResult(
        protocol=protocol,
        values=summary(gathered(table, ranks), named),
        active_dimensions=int(varies.sum()),
        latent_kl=divergence(mixture, question.seed, ranks) if mixture else None,
        cap=correlated.cap if correlated else cap(run.model.pixels, run.variance_floor, protocol.family),
        dataset_variance=run.model.dataset_variance,
    )
