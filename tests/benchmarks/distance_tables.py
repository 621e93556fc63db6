"""Tables of distances of samples over runs of several seeds: by components, beside pythae's RAE-L2, and of ideas.

    python tests/benchmarks/distance_tables.py --runs runs/demo-0 runs/demo-1 runs/demo-2

Reads what was measured before: `trainer.mixture` and `eval fid` with each number of components and extractor, what
pythae_samples.py wrote with `--choose` beside one of the runs, and what transport_ideas.py and lowered_variance.py did.
`--variants` are runs that were trained otherwise than `--runs`; each is compared with the run of its seed. A number is
the mean over the runs, or over the seeds of pythae's model, ± its standard error, (how many) behind it. Prints
Markdown; with `--keep results/measured` the tables are shown in RESULTS.md, too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tables_of_runs import Made, Numbers, results, show, table_arguments

from data_shards.io.errors import command
from data_shards.io.tables import Table
from trainer.config.config import FREE_TO_CHANGE, Config, to_dict
from trainer.run_folder.configurations import trained_configuration

EXTRACTORS = {"efficientnet-lite0": "EfficientNet-Lite0", "efficientnet-lite2": "EfficientNet-Lite2"}
CHOSEN = 1000
"""The number of components under which held-out codes are most likely, of RAE-L2's and of ours."""
SOURCES = {"q_hat": "frechet_distance", "transported": "carried_frechet_distance"}
"""Of our samples, and the name of the same number in what pythae_samples.py writes."""
OF_VARIANTS = 500
"""Components of the mixtures of trainings that are compared."""
FINAL_AND_FULL = ("final", 10_000, "test")


def distances(runs: list[Path]) -> Numbers:
    """By (source, components, extractor): of final weights, 10,000 images to the test images."""
    found = Numbers()
    for run, result in results(runs, "fid"):
        protocol = result["protocol"]
        if (protocol["weights"], protocol["n"], protocol["split"]) == FINAL_AND_FULL and protocol.get("mixture"):
            components = int(protocol["mixture"].partition("-")[0])
            value = result["values"]["frechet_distance"]["value"]
            found.add(run, value, protocol["source"], components, protocol["extractor"]["name"])
    return found


def by_components(runs: list[Path]) -> Table:
    """Table 4 of the paper: more and more components."""
    made, fits = distances(runs), Numbers()
    for run in runs:
        for folder in sorted((run / "mixtures").glob("*-full")):
            fit = json.loads((folder / "summary.json").read_text())
            components = fit["settings"]["n_components"]
            for name in ("train", "held_out"):
                fits.add(run, fit[name]["nats"], components, name)
            fits.add(run, fit["alive"], components, "alive")
            fits.add(run, fit["effective_components"], components, "effective")
    rows = [
        (
            f"{components:,}",
            fits.shown(components, "alive", digits=0),
            fits.shown(components, "effective", digits=0),
            fits.shown(components, "train", digits=2),
            fits.shown(components, "held_out", digits=2),
            *(made.shown("q_hat", components, extractor, digits=1) for extractor in EXTRACTORS),
        )
        for components in sorted({key[0] for key in fits.known})
    ]
    head = ("components", "alive", "effective", "training codes, nats", "held-out codes, nats", *EXTRACTORS.values())
    return Table(head=head, rows=rows)


def beside_rae(runs: list[Path]) -> Table:
    """Ours and RAE-L2's, each with the mixture that held-out codes choose, and both transported."""
    made, theirs = distances(runs), Numbers()
    for run in runs:
        for path in sorted((run / "eval").glob("chosen-pythae-RAE_L2-*.json")):
            result = json.loads(path.read_text())
            seed = Path(f"seed {result['seed']}")
            for name in SOURCES.values():
                theirs.add(seed, result[name], name, result["extractor"]["name"])
    rows = [
        (
            "sigma-VAE, final weights",
            *(made.shown(source, CHOSEN, extractor, digits=1) for extractor in EXTRACTORS for source in SOURCES),
        ),
        (
            "RAE-L2",
            *(theirs.shown(name, extractor, digits=1) for extractor in EXTRACTORS for name in SOURCES.values()),
        ),
    ]
    head = tuple(f"{title}{moved}" for title in EXTRACTORS.values() for moved in ("", ", transported"))
    return Table(head=("samples of", *head), rows=rows if theirs.known else [])


def differences(config: Config, reference: Config) -> str:
    """The fields by which what was learnt differs, such as `data.flip true`."""
    flat, other = (as_flat(to_dict(one)) for one in (config, reference))
    free = tuple(f"{name}." for name in FREE_TO_CHANGE)
    names = [name for name in flat if flat[name] != other[name] and not f"{name}.".startswith((*free, "seed."))]
    return ", ".join(f"{name} {json.dumps(flat[name])}" for name in names)


def as_flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= as_flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def of_variants(runs: list[Path], variants: list[Path]) -> Table:
    """Trainings that differ in a field, beside those that do not, with a mixture of OF_VARIANTS components."""
    by_seed = {trained_configuration(run).seed: run for run in runs}
    made, found = distances([*runs, *variants]), Numbers()
    for run in variants:
        config = trained_configuration(run)
        reference = by_seed[config.seed]
        what = differences(config, trained_configuration(reference))
        for extractor in EXTRACTORS:
            key = "q_hat", OF_VARIANTS, extractor
            ours, theirs = (made.value(one, *key) for one in (run, reference))
            if ours is not None and theirs is not None:
                found.add(run, ours, what, extractor)
                found.add(run, theirs, what, extractor, "reference")
                found.add(run, ours - theirs, what, extractor, "difference")
    rows = [
        (
            what,
            *(
                found.shown(what, extractor, *kind, digits=1)
                for extractor in EXTRACTORS
                for kind in ((), ("reference",), ("difference",))
            ),
        )
        for what in dict.fromkeys(key[0] for key in found.known)
    ]
    head = [f"{title}{kind}" for title in EXTRACTORS.values() for kind in ("", ", without", ", difference")]
    return Table(head=("trained with", *head), rows=rows)


def of_ideas(runs: list[Path]) -> Table:
    """Other maps from mean images to real ones, see transport_ideas.py."""
    found = Numbers()
    for run, result in results(runs, "idea"):
        for extractor in EXTRACTORS:
            found.add(run, result[extractor], result["idea"], result["components"], extractor)
    rows = [
        (idea, str(components), *(found.shown(idea, components, extractor, digits=1) for extractor in EXTRACTORS))
        for idea, components in dict.fromkeys(key[:2] for key in found.known)
    ]
    return Table(head=("map", "components", *EXTRACTORS.values()), rows=rows)


def of_lowered_variance(runs: list[Path]) -> Table:
    """Stage 1 trained on with sigma^2 below its optimum, see lowered_variance.py."""
    found = Numbers()
    columns = ["elbo", "square_error", "kl"]
    columns += [f"{kind}, {extractor}" for extractor in EXTRACTORS for kind in ("samples", "reconstructions")]
    for run, result in results(runs, "lowered"):
        for column in columns:
            found.add(run, result[column], result["factor"], column)
    digits = {"square_error": 5}
    rows = [
        (f"{factor:g}", *(found.shown(factor, column, digits=digits.get(column, 1)) for column in columns))
        for factor in sorted({key[0] for key in found.known}, reverse=True)
    ]
    titles = ["held-out ELBO, nats", "square error a pixel", "KL, nats"]
    titles += [f"{kind}, {title}" for title in EXTRACTORS.values() for kind in ("samples", "reconstructions")]
    return Table(head=("sigma² over its optimum", *titles), rows=rows)


def main() -> None:
    parser = table_arguments(__doc__.splitlines()[0])
    parser.add_argument("--variants", type=Path, nargs="+", default=[], help="runs that were trained otherwise")
    args = parser.parse_args()
    fid = "python -m eval fid --run RUN --from {source} --mixture {mixture} --extractor {{{names}}}"
    names = ",".join(EXTRACTORS)
    protocol = "Frechet distances of 10,000 samples to the 10,000 test images."
    made = [
        Made(
            name="rae-on-equal-terms",
            title="A regularised autoencoder on equal terms",
            text=(
                "The demo's networks, images and 10 epochs on both sides, Adam at the same learning rate and schedule. "
                "Both are drawn from a mixture that this package fits to their codes, of as many components as make "
                f"held-out codes most likely: {CHOSEN:,} in each training, among 32 to {CHOSEN:,}. {protocol}",
                "Transported samples want fewer and larger components; these have the number that plain samples want.",
            ),
            table=beside_rae(args.runs),
            commands=(
                "python -m trainer --config trainer/configs/fashion_mnist_demo.yaml --name demo-SEED --seed SEED",
                f"python -m trainer.mixture --run RUN --components {CHOSEN}",
                f"python -m eval transport --run RUN --mixture {CHOSEN}",
                fid.format(source="{q_hat,transported}", mixture=CHOSEN, names=names),
                "python tests/benchmarks/pythae_samples.py --run runs/demo-0 --model RAE_L2 --components --choose 32 "
                f"100 200 500 1000 --extractors {' '.join(EXTRACTORS)} --seed SEED",
            ),
        ),
        Made(
            name="components",
            title="Table 4's question on three seeds: more components",
            text=(
                f"Mixtures of the codes of the demo's final weights. {protocol} Alive: components that hold at least "
                "one point; effective: the exponential of the entropy of the weights.",
            ),
            table=by_components(args.runs),
            commands=(
                "python -m trainer.mixture --run RUN --components K",
                fid.format(source="q_hat", mixture="K", names=names),
            ),
        ),
        Made(
            name="variants-of-the-demo",
            title="Ideas for sharper samples: trainings",
            text=(
                f"The demo with one field changed, beside the demo of the same seed. {protocol} z from mixtures of "
                f"{OF_VARIANTS} components.",
            ),
            table=of_variants(args.runs, args.variants),
            commands=(
                "python -m trainer --config trainer/configs/fashion_mnist_demo.yaml --name RUN --seed SEED "
                "--FIELD VALUE",
                f"python -m trainer.mixture --run RUN --components {OF_VARIANTS}",
                fid.format(source="q_hat", mixture=OF_VARIANTS, names=names),
            ),
        ),
        Made(
            name="maps-of-mean-images",
            title="Ideas for sharper samples: maps of mean images",
            text=(
                "Each is fitted to the training images alone and is a function of the 16 latents: component is the "
                "transport as it is; responsibilities weighs the maps of all components; haar and patches have a map "
                "for each band of a wavelet basis or each patch of 7 x 7 pixels; marginals-R adds R rounds of monotone "
                f"maps of single coefficients. {protocol}",
            ),
            table=of_ideas(args.runs),
            commands=("python tests/benchmarks/transport_ideas.py --run RUN --mixture K --ideas IDEA ...",),
        ),
        Made(
            name="lowered-variance",
            title="Ideas for sharper samples: sigma² below its optimum",
            text=(
                "One epoch more of stage 1 with sigma² fixed at a factor of its optimum; 1 is the same training a "
                f"little longer. {protocol} z from mixtures of 500 components.",
            ),
            table=of_lowered_variance(args.runs),
            commands=("python tests/benchmarks/lowered_variance.py --run RUN --factors F ...",),
        ),
    ]
    show(made, args, "distance_tables.py")


if __name__ == "__main__":
    command(main)
