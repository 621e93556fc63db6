"""A table of ideas for nearer samples, each alone at the same 16 latents, networks and images, over several seeds.

    python tests/benchmarks/idea_tables.py --runs runs/demo-{0,1,2} runs/demo-0-{flip,residual,student_t}

Reads what transport_ideas.py, flow_decoder.py and lowered_variance.py wrote, and `eval fid` beside them. A number is
the mean over the runs, ± its standard error, (runs) behind it. An idea is compared, seed by seed, with what it
changes; a run that was trained otherwise (TRAINED) is an idea, too.
Prints Markdown; with `--keep results/measured` the table is shown in RESULTS.md, too.
"""

import json
from collections.abc import Callable
from pathlib import Path

from distance_tables import EXTRACTORS, distances
from tables_of_runs import Made, Numbers, show, table_arguments

from data_shards.io.errors import command
from data_shards.io.tables import Table
from eval.paper.tables import effect
from trainer.config.config import Config
from trainer.run_folder.configurations import trained_configuration

PLAIN, TRANSPORTED = "q_hat", "transported"
TRAINED: dict[str, Callable[[Config], bool]] = {
    "flip": lambda config: config.data.flip,
    "residual": lambda config: config.model.residual_blocks > 0,
    "student": lambda config: config.variance.family == "student_t",
}
"""By the name of an idea: whether a run was trained that way."""
IDEAS = {
    PLAIN: ("mean images", ""),
    "flip": ("mean images, trained with horizontal flips", PLAIN),
    "residual": ("mean images, networks with residual blocks", PLAIN),
    "student": ("mean images, Student's t in stage 2", PLAIN),
    "lowered-1": ("one epoch more of stage 1", ""),
    "lowered-0.5": ("one epoch more, sigma^2 at 1/2 of its optimum", "lowered-1"),
    "lowered-0.25": ("one epoch more, sigma^2 at 1/4 of its optimum", "lowered-1"),
    TRANSPORTED: ("mean images, transported", PLAIN),
    "responsibilities": ("transport by responsibilities", TRANSPORTED),
    "haar": ("transport in bands of a Haar basis", TRANSPORTED),
    "patches": ("transport in patches of 7 x 7", TRANSPORTED),
    "marginals-3": ("transport, then 3 rounds of marginals", TRANSPORTED),
    "marginals-9": ("transport, then 9 rounds of marginals", TRANSPORTED),
    "flow-smooth": ("flow matching, noise a function of z", TRANSPORTED),
    "flow-own": ("flow matching, noise of each image", TRANSPORTED),
    "flow-none": ("flow matching, no noise", TRANSPORTED),
}
"""By its name in results: what it is, and the name of what it is compared with."""

DECODERS = {"gaussian": "a variance a pixel, independent pixels", "flow": "the same, carried by flow matching"}


def ideas(runs: list[Path]) -> Table:
    """Distances by idea, and by the number of components that latents are drawn from."""
    configurations = {run: trained_configuration(run) for run in runs}
    idea_of = {
        run: next((idea for idea in TRAINED if TRAINED[idea](config)), "") for run, config in configurations.items()
    }
    of_seed = {configurations[run].seed: run for run, idea in idea_of.items() if not idea}
    found = distances(list(of_seed.values()))
    for run, trained in idea_of.items():
        own = distances([run]) if trained else Numbers()
        for source, *key in own.known:
            if source == PLAIN:
                found.add(of_seed[configurations[run].seed], own.of_runs(source, *key)[run], trained, *key)
    for run in runs:
        for path in sorted((run / "eval").glob("idea-*.json")):
            result = json.loads(path.read_text())
            for extractor in EXTRACTORS:
                found.add(run, result[extractor], result["idea"], result["components"], extractor)
    first, *_ = EXTRACTORS
    keys = {key[:2] for key in found.known}
    changed = {components for idea, components in keys if idea != PLAIN}
    rows = []
    for idea, (title, other) in IDEAS.items():
        for components in sorted(number for name, number in keys if name == idea and number in changed):
            change = found.difference((idea, components, first), (other, components, first)) if other else None
            rows.append(
                (
                    title,
                    f"{components:,}",
                    *(found.shown(idea, components, extractor, digits=1) for extractor in EXTRACTORS),
                    f"{IDEAS[other][0]}: {change.plain(1)}" if change else "",
                    effect(change) if change else "",
                )
            )
    return Table(head=("samples", "components", *EXTRACTORS.values(), "against", "verdict"), rows=rows)


def flow_likelihoods(runs: list[Path]) -> Table:
    """The ELBO of the decoder by flow matching, and of the one that it starts from."""
    found = Numbers()
    for run in runs:
        for path in sorted((run / "eval").glob("flow-likelihood-*.json")):
            result = json.loads(path.read_text())
            for decoder in DECODERS:
                for name in ("elbo", "bits_per_dimension"):
                    found.add(run, result[f"{decoder}_{name}"], decoder, name)
    rows = [
        (title, found.shown(decoder, "elbo", digits=1), found.shown(decoder, "bits_per_dimension", digits=3))
        for decoder, title in DECODERS.items()
    ]
    return Table(head=("decoder", "ELBO, nats per image", "bits per dimension"), rows=rows if found.known else [])


def main() -> None:
    args = table_arguments(__doc__.splitlines()[0]).parse_args()
    script = "python tests/benchmarks/{} --run RUN {}"
    demo = "python -m trainer --config trainer/configs/fashion_mnist_demo.yaml --seed SEED --name"
    trained = script.format("flow_decoder.py", "--epochs 4 --mixtures K --noises smooth")
    samples = Made(
        name="sample-ideas",
        title="Nearer samples: what was tried",
        text=(
            "Frechet distances of 10,000 samples to the 10,000 test images, latents from a mixture of the demo's "
            "codes, final weights (end of stage 1 where sigma^2 is lowered). All but the flow with noise of its own "
            "make an image that is a function of the 16 latents. Differences are by the first representation, seed by "
            "seed. The aim was at most 300 for an image that is a function of the latents, 480 for plain mean images.",
        ),
        table=ideas(args.runs),
        commands=(
            f"{demo} demo-SEED-flip --data.flip true",
            f"{demo} demo-SEED-residual --model.residual_blocks 1 --model.encoder_channels '[14,24]' "
            "--model.decoder_channels '[24,14,8]'",
            f"{demo} demo-SEED-student_t --variance.family student_t",
            "python -m eval fid --run RUN --from {q_hat,transported} --mixture K --extractor "
            f"{{{','.join(EXTRACTORS)}}}",
            script.format("transport_ideas.py", "--mixture K --ideas IDEA"),
            trained,
            script.format("lowered_variance.py", "--factors 1 0.5 0.25"),
        ),
    )
    likelihoods = Made(
        name="flow-likelihood",
        title="A third decoder by flow matching: likelihood",
        text=(
            "500 test images, dequantised by uniform noise, one z ~ q(z|x) each. The flow's divergence is estimated "
            "along 12 steps of Heun's method.",
        ),
        table=flow_likelihoods(args.runs),
        commands=(trained, script.format("flow_likelihood.py", "--epochs 4")),
    )
    show([samples, likelihoods], args, "idea_tables.py")


if __name__ == "__main__":
    command(main)
