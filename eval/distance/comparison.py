"""How far a set of images is from real ones: a question becomes features, their sums, and a result."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from data_shards.io.disk import free_bytes
from data_shards.io.errors import InputError
from data_shards.io.progress import duration
from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.extractors.extractor import Extractor
from eval.distance.extractors.operations import operations_of
from eval.distance.features import extract, reference_statistics
from eval.distance.measures import FRECHET, FURTHER, of_these_versions
from eval.distance.statistics import FeatureStatistics
from eval.images.blocks import BLOCK
from eval.images.densities import DENSITIES, SOURCES
from eval.images.files import ImageFolder
from eval.images.sources import ImageSource, from_shards, generated, reconstructed, unchanged
from eval.measured_once import ResultPlace, held_result
from eval.protocol import DistanceProtocol
from eval.questions import DistanceQuestion, sufficient
from eval.results import DistanceResult, measured_before, stored_at
from eval.run import MeasuredRun, main_process_result
from trainer.dry_run import SUSTAINED, forward_operations
from trainer.process_group import Ranks
from trainer.run_folder.holding import held_by_main

# Numbers of 8 bytes in the statistics that a process holds, at most: Inception's covariance.
_STATISTICS = 2048.0**2


def measure_distance(
    run: MeasuredRun,
    question: DistanceQuestion,
    ranks: Ranks,
    *,
    save_images: str | None = None,
    steal: bool = False,
) -> DistanceResult:
    """The answer to a question, the same on every process, which also lies in RUN/eval/fid-....json.

    Read from there where the same was measured before. save_images: one of IMAGE_FORMATS to write the compared images
    under RUN/samples as well. steal: takes the files from another job that measures the same. Raises InputError where
    there is one, or the run lacks what the question is about.
    """
    compared = dataclasses.replace(comparison(run, question, ranks.device), steal=steal)
    return compared.measure(ranks, save_images=save_images)


@dataclass(frozen=True, kw_only=True)
class ComparedImages:
    """A set of images, with what the protocol says of it."""

    images: ImageSource
    """Any block of the set."""
    n: int
    """Number of images in it."""
    latents: str = ""
    """How each was generated, in words; empty for real images."""
    mixture: str = ""
    """The density sampled, as COMPONENTS-COVARIANCE; empty where none is."""
    mixture_digest: str = ""
    """Digest of the parameters of the density, and of the transport for transported."""


def compared_images(run: MeasuredRun, question: DistanceQuestion, device: torch.device) -> ComparedImages:
    """The set that a question is about; `half` has half a split. Raises InputError where there are too few images."""
    model, n, seed = run.model, question.images_of(run.config.data.train_split), question.seed
    if question.source in DENSITIES:
        density = DENSITIES[question.source]
        loaded = density.load(run, question.mixture, question.covariance)
        finish = loaded.finish or unchanged
        return ComparedImages(
            images=generated(model, loaded.sampler, n=n, seed=seed, device=device, finish=finish),
            n=n,
            latents=density.latents,
            mixture=f"{question.mixture}-{question.covariance}" if density.of_mixture else "",
            mixture_digest=loaded.digest,
        )
    shards = run.config.data.location
    if question.source == "reconstruction":
        _require_images(run, question.split, n)
        images = reconstructed(model, from_shards(shards, question.split, n=n), device=device)
        return ComparedImages(images=images, n=n, latents="z = mean of q(z|x), image g(z)")
    if question.source == "train":
        split = run.config.data.train_split
        _require_images(run, split, n)
        return ComparedImages(images=from_shards(shards, split, n=n, shuffle=True, seed=seed), n=n)
    images, n = half_of(run, question.split, 0, seed=seed)
    return ComparedImages(images=images, n=n)


def half_of(run: MeasuredRun, split: str, half: int, *, seed: int) -> tuple[ImageSource, int]:
    """Half 0 or 1 of a seeded shuffle of a split, both of the same whole number of blocks, and its size."""
    n = run.manifest.num_samples(split) // (2 * BLOCK) * BLOCK
    if n == 0:
        raise InputError(f"{split} has fewer than {2 * BLOCK} images, too few for two halves", parameter="split")
    return from_shards(run.config.data.location, split, n=n, shuffle=True, seed=seed, offset=half * n), n


def _require_images(run: MeasuredRun, split: str, n: int) -> None:
    available = run.manifest.num_samples(split)
    if n > available:
        raise InputError(f"{n} images, but split {split} has {available}; use at most {available}", parameter="n")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A question with the images, the network and the protocol that it stands for."""

    run: MeasuredRun
    """The run whose shards, and perhaps samples, are compared."""
    question: DistanceQuestion
    """What is to be measured."""
    compared: ComparedImages
    """The set in question."""
    extractor: Extractor
    """How images become features."""
    protocol: DistanceProtocol
    """Everything the answer depends on."""
    steal: bool = False
    """Whether the answer and the compared images are taken from another job that writes them."""

    @property
    def name(self) -> str:
        """fid-SOURCE[-K-COVARIANCE]-N-SPLIT-EXTRACTOR[...]: one name for each question."""
        protocol, described = self.protocol, self.protocol.extractor
        network = "-".join(str(described[field]) for field in ("name", "mode", "size") if field in described)
        words = ["fid", protocol.source, protocol.mixture, str(protocol.n), protocol.split, network]
        words.append(f"seed{protocol.seed}" if protocol.seed else "")
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in "-".join(word for word in words if word))

    @property
    def path(self) -> Path:
        """RUN/eval/NAME-ADDRESS.json, where the answer is stored."""
        return self.run.result_path(self.name, self.protocol)

    def images_folder(self, file_format: str) -> Path:
        """Where the compared images are written: those of another mixture, or of other weights, lie beside them."""
        return self.run.folder / "samples" / f"{self.path.stem}-{file_format}"

    def stored(self) -> DistanceResult | None:
        """What was measured before, by measures as they are now."""
        found = measured_before(DistanceResult, self.path, self.protocol)
        return None if found is None else of_these_versions(found)

    def earlier(self, ranks: Ranks, *, save_images: str | None = None) -> DistanceResult | None:
        """The answer of an earlier measurement, None where there is none or the images are still to be written."""
        found = self.stored()
        answered = (
            found is not None
            and set(self.question.also) <= set(found.also)
            and (save_images is None or self.images_folder(save_images).exists())
        )
        # The first process alone decides, so that all take the same way even if the file appears meanwhile.
        if not ranks.any(ranks.is_main and answered):
            return None
        return found or DistanceResult.load(stored_at(self.path))

    def measure(self, ranks: Ranks, *, save_images: str | None = None) -> DistanceResult:
        """Measures, and writes the result together with what the same question was answered with before."""
        folder = self.images_folder(save_images) if save_images else None
        with self.held(ranks, save_images=save_images) as place:
            if place.found is not None:
                return place.found
            return self.scored(self.statistics(ranks, folder=folder, file_format=save_images), place)

    def held(
        self, ranks: Ranks, *, save_images: str | None = None
    ) -> contextlib.AbstractContextManager[ResultPlace[DistanceResult]]:
        """The block in which no other job writes the answer."""
        before = lambda: self.earlier(ranks, save_images=save_images)  # noqa: E731
        return held_result(self.path, ranks, before, question=self.protocol.record(), steal=self.steal)

    def statistics(
        self, ranks: Ranks, *, part: int = 0, parts: int = 1, folder: Path | None = None, file_format: str | None = None
    ) -> FeatureStatistics:
        """The features' statistics of a part of the compared set, the same on every process.

        folder, file_format: where and how the images are written on the way; nowhere without.
        """
        title = f"features of {self.protocol.source}, {self.run.weights} weights"

        def extracted(images: ImageSource) -> FeatureStatistics:
            return extract(
                images,
                self.extractor,
                ranks,
                n=self.compared.n,
                title=title if parts == 1 else f"{title}, part {part}/{parts}",
                protocol=self.protocol.record(),
                keep_features=self.keep_features,
                part=part,
                parts=parts,
            )

        if folder is None or file_format is None:
            return extracted(self.compared.images)
        with held_by_main(folder.parent, ranks, folder.name, steal=self.steal):
            written = ImageFolder(folder, file_format, ranks)
            found = extracted(written.saving(self.compared.images))
            written.finish()
        return found

    @property
    def keep_features(self) -> bool:
        """Whether the answer needs feature vectors and not only their sums."""
        return any(FURTHER[name].needs_features for name in self.question.also)

    def reference(self, ranks: Ranks) -> FeatureStatistics:
        """The statistics of the real images on the other side."""
        split = self.protocol.split
        if self.protocol.source != "half":
            shards, manifest = self.run.config.data.location, self.run.manifest
            return reference_statistics(
                shards, manifest, split, self.extractor, ranks, keep_features=self.keep_features
            )
        images, n = half_of(self.run, split, 1, seed=self.protocol.seed)
        return extract(
            images,
            self.extractor,
            ranks,
            n=n,
            title=f"features of the other half of split {split}",
            protocol=self.protocol.record(),
            keep_features=self.keep_features,
        )

    def scored(self, compared: FeatureStatistics, place: ResultPlace[DistanceResult]) -> DistanceResult:
        """The result of the compared set's statistics, the same on every process, written to its place."""
        reference = self.reference(place.ranks)
        made = main_process_result(
            DistanceResult, lambda: self._with_earlier(self._scores(compared, reference)), place.ranks
        )
        place.save(made)
        return made

    def _scores(self, compared: FeatureStatistics, reference: FeatureStatistics) -> DistanceResult:
        measures = (FRECHET, *(FURTHER[name] for name in self.question.also))
        values = {
            name: number
            for measure in measures
            for name, number in measure(compared, reference, self.protocol.seed).items()
        }
        smaller = min(compared.n, reference.n)
        return DistanceResult(
            label=self.extractor.label,
            values=values,
            also=tuple(sorted(self.question.also)),
            below_protocol=smaller < self._sufficient,
            remarks=tuple(self._remarks(smaller)),
            protocol=self.protocol,
            versions={measure.name: measure.version for measure in measures},
            extractor_weights=self.question.extractor_weights,
            extractor_file=self.question.extractor if Path(self.question.extractor).is_file() else "",
        )

    def _with_earlier(self, result: DistanceResult) -> DistanceResult:
        """`result` with the further measures that the same question was answered with before."""
        earlier = self.stored()
        if earlier is None:
            return result
        return dataclasses.replace(
            result,
            values={**earlier.values, **result.values},
            also=tuple(sorted({*earlier.also, *result.also})),
            versions={**earlier.versions, **result.versions},
        )

    @property
    def _sufficient(self) -> int:
        """Images that either side should have."""
        return sufficient(of_training=self.protocol.split == self.run.config.data.train_split)

    def _remarks(self, smaller: int) -> list[str]:
        """What a reader must know to read the numbers right. smaller: number of images on the smaller side."""
        remarks = [SOURCES[self.protocol.source].help]
        if self.run.manifest.image_shape[0] == 1:
            remarks.append(f"images are {self.protocol.channels}")
        if smaller < (least := self._sufficient):
            remarks.append(
                f"BELOW PROTOCOL: {smaller:,} images on the smaller side, fewer than {least:,}; "
                "the distance is too large by an unknown amount and compares only with others of the same n"
            )
        return remarks


def comparison(run: MeasuredRun, question: DistanceQuestion, device: torch.device) -> Comparison:
    """The comparison that a question stands for. Raises InputError where the run lacks what it is about."""
    if question.source not in SOURCES:
        raise InputError(f"{question.source!r} is unknown; use one of {', '.join(SOURCES)}", parameter="source")
    unknown = [name for name in question.also if name not in FURTHER]
    if unknown:
        raise InputError(f"{unknown[0]!r} is unknown; use some of {', '.join(FURTHER)}", parameter="also")
    extractor = extractor_by_name(
        question.extractor,
        device,
        size=question.extractor_size,
        mode=question.extractor_mode,
        weights=question.extractor_weights,
    )
    compared = compared_images(run, question, device)
    grey = run.manifest.image_shape[0] == 1
    protocol = run.protocol(
        DistanceProtocol,
        split=question.split,
        n=compared.n,
        seed=question.seed,
        source=question.source,
        latents=compared.latents,
        mixture=compared.mixture,
        mixture_digest=compared.mixture_digest,
        n_reference=compared.n if question.source == "half" else run.manifest.num_samples(question.split),
        extractor=extractor.description,
        channels="grey, repeated to three channels" if grey else "red, green, blue",
    )
    return Comparison(run=run, question=question, compared=compared, extractor=extractor, protocol=protocol)


@dataclass(frozen=True, kw_only=True)
class DistanceCost:
    """An estimate of time and disk."""

    run: MeasuredRun
    """What is measured."""
    images: int
    """Compared images."""
    reference: int
    """Real images on the other side."""
    split: str
    """Whose they are."""
    operations: float
    """Floating-point operations of the features of one image."""
    seconds: float
    """Time of the whole job."""
    disk: float
    """Bytes to be written."""
    processes: int
    """Processes of the whole job."""
    device: str
    """Where they run, cpu or cuda."""

    def lines(self) -> list[str]:
        """The estimate in words."""
        weights = sum(weight.numel() for weight in self.run.model.parameters())
        free = free_bytes(self.run.folder)
        rate = SUSTAINED[self.device] / 1e9
        return [
            f"run      {self.run.folder}: {weights:,} weights",
            f"shards   {self.run.config.data.shards}",
            f"images   {self.images:,} compared, {self.reference:,} real ones of split {self.split}",
            f"features {self.operations / 1e9:.3g} GFLOP an image",
            f"time     about {duration(self.seconds)} on {self.processes} {self.device} processes at {rate:g} GFLOP/s "
            "each",
            f"disk     {self.disk / 1e9:.2g} GB in {self.run.folder}; {free / 1e9:.4g} GB are free",
        ]

    def require_disk(self) -> None:
        """Raises InputError where the disk has too little room."""
        free = free_bytes(self.run.folder)
        if self.disk > free:
            raise InputError(f"{self.run.folder}: {self.disk / 1e9:.2g} GB are needed, {free / 1e9:.2g} GB are free")


def estimate_cost(run: MeasuredRun, question: DistanceQuestion, *, device: str, processes: int) -> DistanceCost:
    """The cost of an answer on that many processes. device: cpu or cuda, which need not be on this machine.

    Raises InputError where the split or the extractor does not exist.
    """
    reference = run.manifest.num_samples(question.split)
    features = operations_of(
        question.extractor,
        run.manifest.image_shape,
        size=question.extractor_size,
        weights=question.extractor_weights,
    )
    images = reference // 2 if question.source == "half" else question.images_of(run.config.data.train_split)
    total = images * (forward_operations(run.model) / 2 + features) + reference * features
    return DistanceCost(
        run=run,
        images=images,
        reference=reference,
        split=question.split,
        operations=features,
        seconds=total / (processes * SUSTAINED[device]),
        disk=processes * 8 * _STATISTICS,
        processes=processes,
        device=device,
    )
