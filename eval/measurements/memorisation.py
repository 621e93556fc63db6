"""Whether samples are nearer to training images than new images are.

Samples from q_hat are compared with reconstructions of held-out images, which are as smooth as samples are and come
from images that the model was not trained on. With very many components q_hat could repeat its training codes, so the
latents themselves are compared too.
"""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from data_shards.io.address import Location
from data_shards.io.errors import InputError, raise_machine_fault
from data_shards.io.progress import Progress
from data_shards.io.regular_files import read_regular
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream
from eval.images.blocks import BLOCK, gathered, image_noise, subset_blocks, subset_indices
from eval.images.densities import DENSITIES
from eval.images.sources import Finish, to_8_bits, unchanged
from eval.images.stored_transport import load_transport
from eval.measured_once import held_result
from eval.protocol import MemorisationProtocol
from eval.questions import MemorisationQuestion
from eval.results import Centre, Measured, MemorisationResult, NearestComparison, measured_before, stored_at
from eval.run import MeasuredRun
from trainer.full_precision import full_precision
from trainer.mixture.density import MixtureDensity
from trainer.noise import seeded_generator
from trainer.process_group import Ranks

NEAREST = 3
"""Training images that are kept beside each sample."""
_BATCH = 512


class Nearest(NamedTuple):
    """The k nearest training images of Q images, nearest first, equal distances in the order of the split."""

    distance: Tensor
    """Euclidean, over all pixels on the [0, 1] scale, (Q, k) float32."""
    place: Tensor
    """Index within the training split, (Q, k) int64."""
    image: Tensor
    """(Q, k, C, H, W) uint8."""


def _best(candidates: Nearest, k: int) -> Nearest:
    """The k nearest among candidates (Q, more)."""
    order = candidates.distance.argsort(dim=1, stable=True)[:, :k]  # (Q, k)
    rows = torch.arange(len(order), device=order.device)[:, None]
    return Nearest(candidates.distance[rows, order], candidates.place[rows, order], candidates.image[rows, order])


def nearest_images(queries: Tensor, shards: str | Path | Location, split: str, *, k: int, ranks: Ranks) -> Nearest:
    """Searches a whole split, which is divided among the processes. queries: (Q, C, H, W) float32 in [0, 1].

    The result is the same on every process.
    """
    total = Manifest.load(shards).num_samples(split)
    mine = ranks.partition(-(-total // _BATCH))
    start, stop = mine.start * _BATCH, min(mine.stop * _BATCH, total)
    count, shape = len(queries), queries.shape[1:]
    flat = queries.flatten(1).to(ranks.device)
    # Places that no image takes stay infinitely far.
    best = Nearest(
        torch.full((count, k), torch.inf, device=ranks.device),
        torch.zeros(count, k, dtype=torch.int64, device=ranks.device),
        torch.zeros(count, k, *shape, dtype=torch.uint8, device=ranks.device),
    )
    stream = ShardStream(shards, split=split, global_batch=_BATCH, position=start, shuffle=False)
    with Progress("nearest training images", stop - start, show=ranks.is_main) as bar:
        for batch in stream if start < stop else ():
            images = batch.image.to(ranks.device)
            with full_precision():
                distance = torch.cdist(flat, images.flatten(1).float() / 255)  # (Q, B)
            place = batch.index.to(ranks.device).expand(count, -1)
            near = distance.argsort(dim=1, stable=True)[:, :k]  # (Q, k or fewer)
            found = Nearest(distance.gather(1, near), place.gather(1, near), images[near])
            best = _best(Nearest(*(torch.cat(pair, dim=1) for pair in zip(best, found, strict=True))), k)
            bar.update(batch.start + batch.count - start)
            if batch.start + batch.count >= stop:
                break
    return _best(_all_ranks(best, ranks), k)


def _all_ranks(best: Nearest, ranks: Ranks) -> Nearest:
    """The candidates of all processes side by side, (Q, world_size * k)."""

    def together(mine: Tensor) -> Tensor:
        table = torch.zeros(ranks.world_size, *mine.shape, dtype=mine.dtype)
        table[ranks.rank] = mine.cpu()
        return torch.cat(list(gathered(table, ranks)), dim=1)

    return Nearest(*(together(part) for part in best))


@full_precision()
def nearest_code_distance(z: Tensor, codes: Tensor) -> Tensor:
    """Euclidean distance from latents z, (N, D), to the nearest of the codes, (M, D). Returns (N,)."""
    return torch.cat([torch.cdist(part, codes).amin(1) for part in z.split(256)])


def chance_nearer(ours: Tensor, others: Tensor) -> float:
    """Probability that one of `ours`, (N,), is smaller than one of `others`, (M,); ties count half. 0.5: no difference.

    The Mann-Whitney statistic over its largest value; on nearest distances it detects copies (Meehan et al. 2020).
    """
    ours, ordered = ours.contiguous(), others.sort().values  # columns of a table are not, of which torch would warn
    below = torch.searchsorted(ordered, ours)  # others that are smaller, and with `right` those that are equal too
    up_to = torch.searchsorted(ordered, ours, right=True)
    return 1 - (below + up_to).double().mean().item() / (2 * len(others))


def measure_memorisation(
    run: MeasuredRun, question: MemorisationQuestion, ranks: Ranks, *, steal: bool = False
) -> MemorisationResult:
    """The answer to a question, the same on every process.

    Written to RUN/eval/[transported-]memorisation-ADDRESS.json, with the images beside it as .safetensors (`sample`,
    (N, C, H, W), and `nearest`, (N, 3, C, H, W), uint8), and read from there where the same was measured before and its
    images are there.
    steal: takes the files from another job that measures them. Raises InputError where there is one, codes, mixture or
    transport are missing, or the split is too small.
    """
    mixture = run.mixture(question.mixture, question.covariance)
    protocol = run.protocol(
        MemorisationProtocol,
        split=question.split,
        n=question.images,
        seed=question.seed,
        measure=MemorisationResult.MEASURE
        if question.source == "q_hat"
        else f"{MemorisationResult.MEASURE}, {question.source}",
        mixture=f"{question.mixture}-{question.covariance}",
        mixture_digest=DENSITIES[question.source].load(run, question.mixture, question.covariance).digest,
        train_split=run.config.data.train_split,
    )
    path = memorisation_path(run, protocol)

    def before() -> MemorisationResult | None:
        found = measured_before(MemorisationResult, path, protocol)
        return None if ranks.any(found is None or stored_pictures(path) is None) else found

    with held_result(path, ranks, before, question=protocol.record(), steal=steal) as place:
        if place.found is not None:
            return place.found
        result, pictures = _measured(run, question, mixture, protocol, ranks)
        place.save(result, beside=save(pictures))
    return result


def memorisation_path(run: MeasuredRun, protocol: MemorisationProtocol) -> Path:
    """Where an answer is stored; its pictures are beside it, as .safetensors."""
    return run.result_path(
        "memorisation" if protocol.source == "q_hat" else f"{protocol.source}-memorisation", protocol
    )


def stored_pictures(path: Path) -> dict[str, Tensor] | None:
    """The images beside the result that is stored at `path`; None where they are missing or damaged."""
    beside = stored_at(path).with_suffix(".safetensors")
    try:
        found = load(read_regular(beside))
    except (OSError, InputError, SafetensorError) as error:
        raise_machine_fault(error, beside)
        return None
    return found if found.keys() >= {"sample", "nearest"} else None


@torch.inference_mode()
def _measured(
    run: MeasuredRun,
    question: MemorisationQuestion,
    mixture: MixtureDensity,
    protocol: MemorisationProtocol,
    ranks: Ranks,
) -> tuple[MemorisationResult, dict[str, Tensor]]:
    """The comparison, and the pictures that belong to it; the same on every process."""
    shards, train_split, count = run.config.data.location, run.config.data.train_split, question.images
    train_codes = run.codes(train_split).mean
    z = mixture.sample(count, seeded_generator(question.seed, "memorisation", 0)).float()  # (N, D)
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
    for places, index, x in subset_blocks(run.config.data.location, question.split, indices, ranks):
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
