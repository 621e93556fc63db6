"""A question about distance: which images, compared with which, seen by which extractor."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from eval.distance.extractors.extractor import Extractor
from eval.distance.feature_extraction import extract
from eval.distance.image_sets import ComparedImages, compared_images, half_of
from eval.distance.protocol import DistanceProtocol
from eval.distance.reference import reference_statistics
from eval.distance.statistics import FeatureStatistics
from eval.images.sources import ImageSource
from eval.run import MeasuredRun
from trainer.process_group import Ranks


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far is this set of images from those real ones, seen by this extractor?"""

    run: MeasuredRun
    """The run whose shards, and perhaps samples, are compared."""
    compared: ComparedImages
    """The set in question."""
    extractor: Extractor
    """How images become features."""
    protocol: DistanceProtocol
    """Everything the answer depends on."""
    keep_features: bool
    """Whether the answer needs feature vectors and not only their sums."""

    @property
    def name(self) -> str:
        """fid-SOURCE[-K-COVARIANCE]-N-SPLIT-EXTRACTOR[...]: one name for each set of options."""
        protocol, described = self.protocol, self.protocol.extractor
        network = "-".join(str(described[field]) for field in ("name", "mode", "size") if field in described)
        words = ["fid", protocol.source, protocol.mixture, str(protocol.n), protocol.split, network]
        words.append(f"seed{protocol.seed}" if protocol.seed else "")
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in "-".join(word for word in words if word))

    @property
    def result_path(self) -> Path:
        """Where the answer is stored, under RUN/eval."""
        return self.run.result_path(self.name)

    def statistics(
        self, ranks: Ranks, *, images: ImageSource | None = None, part: int = 0, parts: int = 1
    ) -> FeatureStatistics:
        """The features' statistics of a part of the compared set, the same on every process.

        images: the set wrapped in something that sees its images pass by; the set itself where none is given.
        """
        title = f"features of {self.protocol.source}, {self.run.weights} weights"
        return extract(
            images or self.compared.images,
            self.extractor,
            ranks,
            n=self.compared.n,
            title=title if parts == 1 else f"{title}, part {part}/{parts}",
            protocol=self.protocol.record(),
            keep_features=self.keep_features,
            part=part,
            parts=parts,
        )

    def reference(self, ranks: Ranks) -> FeatureStatistics:
        """The statistics of the real images on the other side."""
        split = self.protocol.split
        if self.protocol.source != "half":
            return reference_statistics(
                self.run.config.data.shards,
                self.run.manifest,
                split,
                self.extractor,
                ranks,
                keep_features=self.keep_features,
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


def comparison(run: MeasuredRun, args: argparse.Namespace, extractor: Extractor) -> Comparison:
    """The comparison that the options of `python -m eval fid` describe."""
    compared = compared_images(
        run,
        args.source,
        n=args.n,
        split=args.split,
        seed=args.seed,
        mixture=args.mixture,
        covariance=args.covariance,
        device=extractor.device,
    )
    grey = run.manifest.image_shape[0] == 1
    protocol = DistanceProtocol(
        **run.protocol_fields(args.split, compared.n, args.seed),
        **compared.fields,
        n_reference=compared.n if args.source == "half" else run.manifest.num_samples(args.split),
        extractor=extractor.description,
        channels="grey, repeated to three channels" if grey else "red, green, blue",
    )
    return Comparison(run=run, compared=compared, extractor=extractor, protocol=protocol, keep_features=bool(args.also))
