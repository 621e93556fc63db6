"""What the jobs of a plan that are not done would cost: time and disk, for --dry-run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data_shards.io.disk import free_bytes
from data_shards.io.errors import InputError
from data_shards.io.progress import duration
from data_shards.io.tables import Table
from data_shards.manifest import FILE, Manifest
from data_shards.sources.celeba import CelebASource
from eval.distance.extractors.operations import operations_of
from eval.paper.jobs import Job
from eval.paper.plan import Measurements, MixtureForm, Plan, resolved
from eval.paper.record import BEST, Question, Record
from eval.paper.schedule import Place
from trainer.dry_run import SUSTAINED, RunCost, estimate, this_gpu
from trainer.mixture.cost import fit_operations


def estimated_cost(plan: Plan, waiting: Sequence[Job], known: Mapping[str, Record], place: Place) -> Table:
    """The cost of jobs that are not done: what is trained and measured of them is not counted again.

    known: records by the name of their training. Raises InputError where the disk has too little room.
    """
    shape, images = _images(plan, place)
    features = operations_of(plan.measure.extractor, shape)
    unseen, training, measuring, asked, disk = 0, 0.0, 0.0, 0, 0
    for job in waiting:
        name = job.training.name
        config = replace(resolved(plan, job.training), device=place.device, runs=str(place.runs), name=name)
        cost = estimate(config, shape, images, 1)
        questions = known[name].missing(job.questions) if name in known else list(job.questions)
        unseen += max(0, sum(cost.stage_images) - cost.done)
        training += cost.seconds
        measuring += _measuring_operations(questions, cost, config.model.latent_dim, images, features, plan.measure)
        asked += len(questions)
        disk += cost.checkpoint_bytes
    free = free_bytes(place.runs)
    if disk > free:
        raise InputError(f"{place.runs}: {disk / 1e9:.2g} GB are needed, {free / 1e9:.2g} GB are free")
    kind = f"of {this_gpu() or 'A100'}" if place.device == "cuda" else f"at {SUSTAINED['cpu'] / 1e9:g} GFLOP/s each"
    seconds = (training + measuring / SUSTAINED[place.device]) / place.processes
    rows = [
        ("jobs", f"{len(waiting)} trainings, {asked} measurements of them"),
        ("images", f"{unseen:,} in all trainings together"),
        ("time", f"about {duration(seconds)} on {place.processes} {place.device} processes {kind}"),
        ("disk", f"{disk / 1e9:.2g} GB in {place.runs}; {free / 1e9:.4g} GB are free"),
    ]
    return Table(head=("", ""), rows=rows)


def _images(plan: Plan, place: Place) -> tuple[tuple[int, int, int], int]:
    """Shape (C, H, W) and number of the training images."""
    if (Path(plan.shards) / FILE).exists():
        manifest = Manifest.load(plan.shards)
        return manifest.image_shape, manifest.num_samples("train")
    if plan.dataset == "celeba" and place.source:
        return (3, 64, 64), len(CelebASource(Path(place.source)).keys["train"])
    raise InputError(f"{plan.shards}: no shards there; build them with `python -m data_shards build`")


def _measuring_operations(
    questions: Sequence[Question], cost: RunCost, latent_dim: int, images: int, features: float, measure: Measurements
) -> float:
    """Floating-point operations of the answers about one training.

    cost: of the training; images: of split train, which are encoded once for each set of weights; features: operations
    of the features of one image.
    """
    forward = cost.operations / 3  # the backward pass costs two forward ones
    answers = {
        # Half of a forward pass is the decoder; the real images may have been measured before.
        "fid": measure.distance_images * (forward / 2 + 2 * features),
        "likelihood": measure.likelihood_images * (1 + measure.importance_samples) * forward / 2,
        "uncertainty": measure.likelihood_images * forward,
        "memorisation": (measure.memorisation_images + images) * forward / 2,
        "mixture": 0.0,
    }
    mixtures = {(question.weights, question.mixture) for question in questions if question.mixture}
    fits = 0.0
    for _, label in mixtures:
        sizes = measure.candidates if label == BEST else (MixtureForm.of_label(label).components,)
        fits += sum(fit_operations(images, latent_dim, size) for size in sizes)
    encoded = len({weights for weights, _ in mixtures}) * images * forward / 2
    return sum(answers[question.kind] for question in questions) + fits + encoded
