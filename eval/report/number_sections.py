"""The report's sections of numbers: nearest training images, distances, likelihood, calibration; with protocols."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.distance.extractors.unloaded import compare_unloaded
from eval.distance.measures import command_of
from eval.images.densities import SOURCES
from eval.measurements.calibration_numbers import calibration_verdict
from eval.measurements.memorisation import stored_pictures
from eval.report import gallery, printed_results
from eval.report.document import Details, Missing, Picture, Section
from eval.report.figures import (
    coverage_figure,
    region_figure,
    reliability_figure,
    residual_figure,
    sparsification_figure,
)
from eval.report.known import RunResults, final, is_plain
from eval.report.tables import (
    column_title,
    completion_table,
    distance_table,
    further_measures_table,
    image_set,
    likelihood_table,
    memorisation_table,
    paper_components_table,
    paper_distance_table,
    paper_divergence_table,
    region_table,
    uncertainty_table,
    weights_title,
)
from eval.results import DistanceResult, VarianceResult, result_path, stored_at


def protocols(results: Sequence[DistanceResult | VarianceResult], kind: str) -> list[Details]:
    """The protocols of results, shown on demand: what all of them share, and what each has of its own."""
    records = [result.protocol.record() for result in results]
    shared = {name: value for name, value in records[0].items() if all(r.get(name) == value for r in records)}
    parts = [_lines("All of them:" if len(records) > 1 else "", shared)]
    for result, record in zip(results, records, strict=True):
        own = {name: value for name, value in record.items() if name not in shared}
        own["address"] = result.protocol.address()
        title = f"{image_set(result)}, {weights_title(result)}" if isinstance(result, DistanceResult) else ""
        parts += [_lines(f"{title or weights_title(result).capitalize()}:", own)]
    return [Details(title=f"How {kind} measured", text="\n\n".join(parts))]


def _lines(title: str, record: dict[str, Any]) -> str:
    """A field a line; what has fields of its own, such as an extractor, is one line too."""
    lines = [f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in record.items()]
    return "\n".join([*([title] if title else []), *lines])


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the sections say of a run beside its results."""

    folder: Path
    """The run folder, as the user named it."""
    dataset: str | None
    """The paper's name of the data set; None for one that is not in the paper."""
    mixture: str
    """The options of a command that choose the run's mixture."""
    objective: str
    """The method, see `trainer.config.methods`."""
    two_stages: bool
    """Whether a stage with per-pixel variances follows the first."""
    latent_dim: int
    """D."""

    @property
    def run(self) -> str:
        """The run folder as a word of a shell command."""
        return shlex.quote(str(self.folder))


def _missing_likelihoods(results: RunResults, facts: RunFacts) -> list[Missing]:
    wanted = [("final", "the final weights", "")]
    wanted += [("stage1", "the end of stage 1", " --weights stage1")] if facts.two_stages else []
    there = {result.protocol.weights for result in results.likelihoods if is_plain(result)}
    return [
        Missing(
            what=f"The likelihood of {name} has not been measured.",
            command=f"python -m eval likelihood --run {facts.run}{option} {facts.mixture}",
        )
        for weights, name, option in wanted
        if weights not in there
    ]


def likelihood_section(results: RunResults, facts: RunFacts) -> Section:
    """Likelihoods beside the paper's Tables 1 and 3."""
    measured, missing = results.likelihoods, _missing_likelihoods(results, facts)
    dataset = facts.dataset
    if not measured:
        return Section(key="likelihood", title="Likelihood", missing=missing)
    first = (final(measured) or measured[-1]).protocol
    text = [
        f"Nats per image unless said otherwise, of the density of pixels on the {first.pixel_scale} scale: "
        f"{first.n:,} images of split {first.split}, {first.importance_samples} importance samples, ± one "
        "standard error over the images. q̂ is the mixture fitted to the training codes"
        + (f" ({first.mixture})." if first.mixture else ", not measured here."),
        "Bits per dimension are of the 8-bit pixels (bins of 1/255) and do not depend on the pixel scale.",
        "Where few importance samples are effective, more of them would raise the bound further, and "
        f"`python -m eval likelihood --run {facts.run} --annealing 100 {facts.mixture}` more than that.",
    ]
    if any(r.latent_kl for r in measured):
        text.append(
            "E[log q̂(z) - log p(z)] is taken over codes of these images, KL(q̂ || p) over q̂'s own samples; a KL far "
            "above the other would mean that q̂ remembers its training codes."
        )
    if dataset in printed_results.LOG_LIKELIHOOD and facts.latent_dim != printed_results.LATENTS:
        text.append(f"The paper's numbers are of {printed_results.LATENTS} latents; this run has {facts.latent_dim}.")
    tables = [likelihood_table(measured, dataset, facts.objective), paper_divergence_table()]
    remarks = [printed_results.REMARKS["scale"]]
    if dataset in printed_results.LOG_LIKELIHOOD:
        remarks += [printed_results.REMARKS["one_variance"]]
        remarks += [printed_results.REMARKS["cap"]] if any(r.protocol.variance == "per pixel" for r in measured) else []
    return Section(
        key="likelihood",
        title="Likelihood",
        text=text,
        tables=tables,
        remarks=remarks,
        missing=missing,
        details=protocols(measured, "likelihoods were"),
    )


def distance_section(results: RunResults, facts: RunFacts) -> Section:
    """Frechet distances beside the paper's Table 2 (and 4 for CelebA)."""
    measured, dataset = results.distances, facts.dataset
    there = {r.protocol.source for r in measured}
    missing = [
        Missing(
            what=f"The distance of {SOURCES[source].title} has not been measured.",
            command=f"python -m eval fid --run {facts.run} --from {source}{option}",
        )
        for source, option in (("q_hat", f" {facts.mixture}"), ("prior", ""))
        if source not in there
    ]
    text = []
    tables = [distance_table(measured)] if measured else []
    if further := further_measures_table(measured):
        tables.append(further)
    if measured:
        text.append(
            "A Frechet distance compares the mean and covariance of image features; smaller is closer. Only rows with "
            "the same measure, number and real images may be compared with each other."
        )
        if any(r.below_protocol for r in measured):
            text.append(
                "* Fewer than 10,000 images on the smaller side (50,000 against the training split): too large by an "
                "unknown amount."
            )
        text += _by_networks_of_the_user(measured, str(facts.folder))
    remarks = [printed_results.REMARKS["protocol"]] if dataset else []
    if dataset:
        tables.append(paper_distance_table(dataset, facts.objective))
    if dataset == "celeba":
        tables.append(paper_components_table())
        remarks.append(printed_results.REMARKS["components"])
    if facts.two_stages:
        remarks.append(printed_results.REMARKS["two_scores"])
    return Section(
        key="distance",
        title="Quality of samples",
        text=text,
        tables=tables,
        remarks=remarks,
        missing=missing,
        details=protocols(measured, "distances were") if measured else (),
    )


def _by_networks_of_the_user(measured: Sequence[DistanceResult], run: str) -> list[str]:
    """What is known of extractors that a page does not load, and the commands that do."""
    lines: dict[str, list[str]] = {}
    for result in measured:
        found = compare_unloaded(result.protocol.extractor, result.extractor_file)
        if found is not None:
            said = f"This page does not load `{result.protocol.extractor['name']}`: {found.compared}. To look, and to "
            said += "measure again where it has changed:"
            what = f"{image_set(result)}, {weights_title(result)}, address `{result.protocol.address()}`"
            lines.setdefault(said, []).append(f"{what}: `{command_of(result, run, ())}`")
    return [line for said, several in lines.items() for line in (said, *several)]


def uncertainty_section(results: RunResults, facts: RunFacts) -> Section:
    """Whether the predicted variance may be trusted."""
    measured = results.uncertainties
    of_final = final(measured)
    missing = []
    if of_final is None:
        command = f"python -m eval uncertainty --run {facts.run}"
        missing.append(Missing(what="The calibration of the final weights has not been measured.", command=command))
    if not measured:
        return Section(key="uncertainty", title="Can the uncertainty be trusted?", missing=missing)
    shown = of_final or measured[-1]
    pictures = [
        Picture(
            data=coverage_figure(shown), caption="Part of the pixels that the central intervals of N(g, sigma²) hold."
        ),
        Picture(data=residual_figure(shown), caption="Errors in units of their predicted deviation."),
        Picture(
            data=reliability_figure(shown),
            caption="Pixels in 20 groups of equal size by predicted variance, and the error made in each.",
        ),
        Picture(
            data=sparsification_figure(shown),
            caption="Error of the pixels that are kept as those of largest predicted variance are left out; the shaded "
            "area is 0 for a perfect order.",
        ),
    ]
    tables = [uncertainty_table(measured)]
    for of_regions in [one for one in measured if one.regions][-1:]:
        tables.append(region_table(of_regions))
        caption = f"Means over regions, {column_title(of_regions)}: with independent pixels they are too narrow."
        pictures.append(Picture(data=region_figure(of_regions), caption=caption))
    return Section(
        key="uncertainty",
        title="Can the uncertainty be trusted?",
        text=[
            calibration_verdict(shown),
            f"Figures: {column_title(shown)}, {shown.protocol.n:,} images, all pixels together.",
        ],
        tables=tables,
        pictures=pictures,
        missing=missing,
        details=protocols(measured, "calibration was"),
    )


def completion_section(results: RunResults, run: Path) -> Section | None:
    """How well hidden pixels are predicted; None where that was not measured."""
    measured = results.completions
    if not measured:
        return None
    pictures = []
    for result in measured:
        path = stored_at(result_path(run / "eval", "complete", result.protocol)).with_suffix(".png")
        if path.exists():
            methods = ", ".join(result.methods)
            caption = (
                f"Hidden: {result.protocol.hide}, {weights_title(result)}. In rows: images, what was shown of them, "
            )
            caption += f"and by each method ({methods}) the completed images and the deviation of what was hidden."
            pictures.append(Picture(data=path.read_bytes(), caption=caption, pixels=True))
    images = ", ".join(sorted({f"{one.protocol.n:,} images of split {one.protocol.split}" for one in measured}))
    return Section(
        key="completion",
        title="Can it predict what is hidden?",
        text=[f"{images}: mean and intervals of hidden pixels given the visible ones, over the latents that fit them."],
        tables=[completion_table(measured)],
        pictures=pictures,
        details=protocols(measured, "hidden pixels were"),
    )


def memorisation_section(results: RunResults, facts: RunFacts) -> Section:
    """Samples above their nearest training images, and whether they are nearer than new images are."""
    title = "Does it repeat its training images?"
    measured = final(results.memorisations)
    shown = None
    if measured is not None:
        shown = stored_pictures(result_path(facts.folder / "eval", "memorisation", measured.protocol))
    if measured is None or shown is None:
        command = f"python -m eval memorisation --run {facts.run} {facts.mixture}"
        missing = [Missing(what="Nearest training images have not been looked for.", command=command)]
        return Section(key="memorisation", title=title, missing=missing)
    count = gallery.COLUMNS
    nearest = shown["nearest"][:count].transpose(0, 1)  # (k, n, C, H, W)
    drawn = gallery.neighbours(shown["sample"][:count], list(nearest))
    protocol = measured.protocol
    return Section(
        key="memorisation",
        title=title,
        text=[
            f"{protocol.n:,} samples from q̂ ({protocol.mixture}) are compared with reconstructions of as many "
            f"images of split {protocol.split}: how far is each from its nearest training image? A chance well "
            "above 50% of the sample being nearer would mean that training images are repeated. The same is measured "
            "for the latents and the nearest training code, where a mixture of many components would show it first."
        ],
        tables=[memorisation_table(measured)],
        pictures=[
            Picture(
                data=drawn,
                caption="Samples in the first row; below each its three nearest training images, by Euclidean distance "
                "over all pixels.",
                pixels=True,
            )
        ],
        details=protocols([measured], "nearest images were"),
    )
