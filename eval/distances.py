"""From a set of images to its distance from real ones, in one go or in parts."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.compared_images import SOURCES, ComparedImages, compared_images, half_of
from eval.distance_protocol import SUFFICIENT, DistanceProtocol, run_fields
from eval.extractors.extractor import Extractor
from eval.feature_extraction import extract
from eval.frechet import frechet_distance
from eval.measured_run import MeasuredRun
from eval.reference import reference_statistics
from eval.statistics import FeatureStatistics
from trainer.process_group import Ranks


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question: how far is this set of images from those real ones, seen by this extractor?"""

    run: MeasuredRun
    """The run whose shards, and perhaps samples, are compared."""
    compared: ComparedImages
    """The set in question."""
    extractor: Extractor
    """How images become features."""
    protocol: DistanceProtocol
    """Everything the answer depends on."""

    def statistics(self, ranks: Ranks, *, part: int = 0, parts: int = 1) -> FeatureStatistics:
        """The features' statistics of a part of the compared set, the same on every process."""
        source = self.protocol.source
        title = f"features of {source}, {self.run.weights} weights"
        if parts > 1:
            title += f", part {part}/{parts}"
        return extract(
            self.compared.images,
            self.extractor,
            ranks,
            n=self.compared.n,
            title=title,
            protocol=self.protocol.record(),
            part=part,
            parts=parts,
        )

    def reference(self, ranks: Ranks) -> FeatureStatistics:
        """The statistics of the real images on the other side."""
        split = self.protocol.split
        if self.protocol.source != "half":
            return reference_statistics(self.run.config.data.shards, self.run.manifest, split, self.extractor, ranks)
        images, n = half_of(self.run, split, 1, seed=self.protocol.seed)
        title = f"features of the other half of split {split}"
        return extract(images, self.extractor, ranks, n=n, title=title, protocol=self.protocol.record())


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
    grey = run.model.image_shape[0] == 1
    protocol = DistanceProtocol(
        **run_fields(run, split=args.split, n=compared.n, seed=args.seed),
        **compared.fields,
        n_reference=compared.n if args.source == "half" else run.manifest.num_samples(args.split),
        extractor=extractor.description,
        channels="grey, repeated to three channels" if grey else "red, green, blue",
    )
    return Comparison(run=run, compared=compared, extractor=extractor, protocol=protocol)


def scores(compared: FeatureStatistics, reference: FeatureStatistics, question: Comparison) -> dict[str, Any]:
    """The result as it is stored: label, values, remarks, protocol."""
    distance = frechet_distance(compared.mean(), compared.covariance(), reference.mean(), reference.covariance())
    protocol = question.protocol
    remarks = [SOURCES[protocol.source]]
    if protocol.channels.startswith("grey"):
        remarks.append(f"images are {protocol.channels}")
    smaller = min(compared.n, reference.n)
    if smaller < SUFFICIENT:
        remarks.append(
            f"BELOW PROTOCOL: {smaller:,} images on the smaller side, fewer than {SUFFICIENT:,}; "
            "the distance is too large by an unknown amount and compares only with others of the same n"
        )
    return {
        "label": question.extractor.label,
        "values": {"frechet_distance": {"value": distance, "standard_error": None, "unit": "squared feature units"}},
        "below_protocol": smaller < SUFFICIENT,
        "remarks": remarks,
        "protocol": protocol.record(),
    }


def result_path(question: Comparison) -> Path:
    """RUN/eval/fid-SOURCE[-K-COVARIANCE]-N-SPLIT-EXTRACTOR[...].json; one file for each set of options."""
    protocol = question.protocol
    network = "-".join(str(protocol.extractor[name]) for name in ("name", "mode", "size") if name in protocol.extractor)
    words = ["fid", protocol.source, protocol.mixture, str(protocol.n), protocol.split, network]
    if protocol.seed:
        words.append(f"seed{protocol.seed}")
    name = "-".join(word for word in words if word)
    return question.run.result_path("".join(c if c.isalnum() or c in "._-" else "_" for c in name))
