"""Whether samples are nearer to training images than new images are.

Samples from q_hat are compared with reconstructions of held-out images, which are as smooth as samples are and come
from images that the model was not trained on. With very many components q_hat could repeat its training codes, so the
latents themselves are compared too.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from data_shards.io.atomic import write_bytes
from eval.images.blocks import BLOCK
from eval.images.sources import Finish, to_8_bits, unchanged
from eval.images.subset import gathered, image_noise, subset_blocks, subset_indices
from eval.memorisation.nearest_training import chance_nearer, nearest_code_distance, nearest_images
from eval.protocol import MemorisationProtocol
from eval.questions import MemorisationQuestion
from eval.results import Centre, Measured, MemorisationResult, NearestComparison, measured_before
from eval.run import MeasuredRun, mixture_digest
from eval.transport.storage import load_transport
from trainer.mixture.density import MixtureDensity
from trainer.noise import seeded_generator
from trainer.process_group import Ranks
from trainer.run_folder import latents

NEAREST = 3
"""Training images that are kept beside each sample."""


def measure_memorisation(run: MeasuredRun, question: MemorisationQuestion, ranks: Ranks) -> MemorisationResult:
    """The answer to a question, the same on every process.

    Written to RUN/eval/[transported-]memorisation.json, with the images beside it as .safetensors (`sample`,
    (N, C, H, W), and `nearest`, (N, 3, C, H, W), uint8), and read from there where the same was measured before. Raises
    InputError where codes, mixture or transport are missing, or the split is too small.
    """
    mixture = run.mixture(question.mixture, question.covariance)
    protocol = run.protocol(
        MemorisationProtocol,
        split=question.split,
        n=question.images,
        seed=question.seed,
        measure="memorisation 1" if question.source == "q_hat" else f"memorisation 1, {question.source}",
        mixture=f"{question.mixture}-{question.covariance}",
        mixture_digest=mixture_digest(mixture),
        train_split=run.config.data.train_split,
    )
    path = memorisation_path(run, question)
    found = measured_before(MemorisationResult, path, protocol)
    if not ranks.any(found is None) and found is not None:
        return found
    result, pictures = _measured(run, question, mixture, protocol, ranks)
    if ranks.is_main:
        write_bytes(path.with_suffix(".safetensors"), save(pictures))
        result.save(path)
    return result


def memorisation_path(run: MeasuredRun, question: MemorisationQuestion) -> Path:
    """Where the answer is stored."""
    return run.result_path("memorisation" if question.source == "q_hat" else f"{question.source}-memorisation")


@torch.inference_mode()
def _measured(
    run: MeasuredRun,
    question: MemorisationQuestion,
    mixture: MixtureDensity,
    protocol: MemorisationProtocol,
    ranks: Ranks,
) -> tuple[MemorisationResult, dict[str, Tensor]]:
    """The comparison, and the pictures that belong to it; the same on every process."""
    shards, train_split, count = run.config.data.shards, run.config.data.train_split, question.images
    train_codes = latents.read(run.folder, train_split, weights=run.weights).mean
    z = mixture.sample(count, seeded_generator(question.seed, "memorisation", 0))  # (N, D)
    transported = question.source == "transported"
    finish = load_transport(run, question.mixture, question.covariance).apply if transported else unchanged
    parts = [part.to(ranks.device) for part in z.split(BLOCK)]
    samples = torch.cat([finish(part, run.model.decode(part).mean).cpu() for part in parts])
    reconstructed, codes = _held_out(run, question, ranks, finish)
    near = nearest_images(torch.cat([samples, reconstructed]), shards, train_split, k=NEAREST, ranks=ranks)
    of_samples, of_others = near.distance[:, 0].split(count)
    result = MemorisationResult(
        protocol=protocol,
        pixel_distance=_compared(of_samples, of_others),
        code_distance=_compared(nearest_code_distance(z, train_codes), nearest_code_distance(codes, train_codes)),
    )
    return result, {"sample": to_8_bits(samples), "nearest": near.image[:count].contiguous()}


def _held_out(run: MeasuredRun, question: MemorisationQuestion, ranks: Ranks, finish: Finish) -> tuple[Tensor, Tensor]:
    """Reconstructions (N, C, H, W) and sampled codes (N, D) of held-out images, on every process."""
    indices = subset_indices(run.manifest, question.split, question.images)
    images = torch.zeros(question.images, *run.model.image_shape)
    codes = torch.zeros(question.images, run.model.latent_dim)
    for places, index, x in subset_blocks(run.config.data.shards, question.split, indices, ranks):
        posterior = run.model.encode(x)
        noise = image_noise(question.seed, index.tolist(), 1, run.model.latent_dim)[0].to(ranks.device)
        z = posterior.mean + posterior.std * noise
        images[places], codes[places] = finish(z, run.model.decode(z).mean).cpu(), z.cpu()
    return gathered(images, ranks), gathered(codes, ranks)


def _compared(ours: Tensor, others: Tensor) -> NearestComparison:
    """Nearest distances of samples, (N,), and of held-out images, (M,), in numbers."""
    return NearestComparison(
        samples=Centre(median=ours.median().item(), mean=ours.mean().item()),
        held_out=Centre(median=others.median().item(), mean=others.mean().item()),
        chance_nearer=Measured(
            value=chance_nearer(ours, others),
            # of the Mann-Whitney statistic where both come from one distribution
            standard_error=math.sqrt((len(ours) + len(others) + 1) / (12 * len(ours) * len(others))),
            unit="probability that a sample is nearer than a held-out image; 0.5 where it makes no difference",
        ),
    )
