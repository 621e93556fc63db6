"""How far a set of images is from real ones: a question becomes features, their sums, and a result."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from data_shards.io.errors import InputError
from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.extractors.extractor import Extractor
from eval.distance.features import extract, reference_statistics
from eval.distance.image_sets import ComparedImages, compared_images, half_of
from eval.distance.measures import FRECHET, FURTHER
from eval.distance.statistics import FeatureStatistics
from eval.images.files import ImageFolder
from eval.protocol import DistanceProtocol
from eval.questions import SOURCES, DistanceQuestion, sufficient
from eval.results import DistanceResult, measured_before
from eval.run import MeasuredRun, main_process_result
from trainer.process_group import Ranks


def measure_distance(
    run: MeasuredRun, question: DistanceQuestion, ranks: Ranks, *, save_images: str | None = None
) -> DistanceResult:
    """The answer to a question, the same on every process, which also lies in RUN/eval/fid-....json.

    Read from there where the same was measured before. save_images: one of IMAGE_FORMATS to write the compared images
    under RUN/samples as well. Raises InputError where the run lacks what the question is about.
    """
    compared = comparison(run, question, ranks.device)
    return compared.earlier(ranks, save_images=save_images) or compared.measure(ranks, save_images=save_images)


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
        """RUN/eval/NAME.json, where the answer is stored."""
        return self.run.result_path(self.name)

    def images_folder(self, file_format: str) -> Path:
        """Where the compared images are written."""
        return self.run.folder / "samples" / f"{self.path.stem}-{file_format}"

    def earlier(self, ranks: Ranks, *, save_images: str | None = None) -> DistanceResult | None:
        """The answer of an earlier measurement, None where there is none or the images are still to be written."""
        found = measured_before(DistanceResult, self.path, self.protocol)
        answered = (
            found is not None
            and set(self.question.also) <= set(found.also)
            and (save_images is None or self.images_folder(save_images).exists())
        )
        # The first process alone decides, so that all take the same way even if the file appears meanwhile.
        if not ranks.any(ranks.is_main and answered):
            return None
        return found or DistanceResult.load(self.path)

    def measure(self, ranks: Ranks, *, save_images: str | None = None) -> DistanceResult:
        """Measures, and writes the result together with what the same question was answered with before."""
        folder = self.images_folder(save_images) if save_images else None
        return self.scored(self.statistics(ranks, folder=folder, file_format=save_images), ranks)

    def statistics(
        self, ranks: Ranks, *, part: int = 0, parts: int = 1, folder: Path | None = None, file_format: str | None = None
    ) -> FeatureStatistics:
        """The features' statistics of a part of the compared set, the same on every process.

        folder, file_format: where and how the images are written on the way; nowhere without.
        """
        title = f"features of {self.protocol.source}, {self.run.weights} weights"
        written = ImageFolder(folder, file_format, ranks) if folder and file_format else None
        images = self.compared.images if written is None else written.saving(self.compared.images)
        found = extract(
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
        if written is not None:
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
            shards, manifest = self.run.config.data.shards, self.run.manifest
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

    def scored(self, compared: FeatureStatistics, ranks: Ranks) -> DistanceResult:
        """The result of the compared set's statistics, written to `path`, the same on every process."""
        reference = self.reference(ranks)

        def result() -> DistanceResult:
            made = self._with_earlier(self._scores(compared, reference))
            made.save(self.path)
            return made

        return main_process_result(DistanceResult, result, ranks)

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
            below_protocol=smaller < sufficient(self.protocol.split),
            remarks=tuple(self._remarks(smaller)),
            protocol=self.protocol,
        )

    def _with_earlier(self, result: DistanceResult) -> DistanceResult:
        """`result` with the further measures that the same question was answered with before."""
        earlier = measured_before(DistanceResult, self.path, self.protocol)
        if earlier is None:
            return result
        values = {**earlier.values, **result.values}
        return dataclasses.replace(result, values=values, also=tuple(sorted({*earlier.also, *result.also})))

    def _remarks(self, smaller: int) -> list[str]:
        """What a reader must know to read the numbers right. smaller: number of images on the smaller side."""
        remarks = [SOURCES[self.protocol.source]]
        if self.run.manifest.image_shape[0] == 1:
            remarks.append(f"images are {self.protocol.channels}")
        if smaller < (least := sufficient(self.protocol.split)):
            remarks.append(
                f"BELOW PROTOCOL: {smaller:,} images on the smaller side, fewer than {least:,}; "
                "the distance is too large by an unknown amount and compares only with others of the same n"
            )
        return remarks


def comparison(run: MeasuredRun, question: DistanceQuestion, device: torch.device) -> Comparison:
    """The comparison that a question stands for. Raises InputError where the run lacks what it is about."""
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
