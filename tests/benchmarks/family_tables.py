"""A table of what the family of the per-pixel stage does (`variance.family`), over runs of several seeds.

    python tests/benchmarks/family_tables.py --runs runs/demo-0 runs/demo-0-laplace runs/demo-0-student_t ...

Reads config.yaml, metrics.jsonl and what was measured before of the final weights: `eval likelihood` and, where it is
there, `eval uncertainty`. A number is the mean over the runs of a family, ± its standard error, (runs) behind it.
Prints Markdown; with `--keep results/measured` the table is shown in RESULTS.md, too.
"""

from pathlib import Path

from tables_of_runs import Made, Numbers, results, show, table_arguments

from data_shards.io.errors import command
from data_shards.io.tables import Table
from trainer.run_folder.configurations import trained_configuration
from trainer.run_folder.log import read_events

FAMILIES = {"gaussian": "Gaussian", "laplace": "Laplace", "student_t": "Student, 4 degrees of freedom"}


def families(runs: list[Path]) -> Table:
    """Held-out ELBO and test likelihood with independent pixels, by family."""
    found = Numbers()
    family_of = {run: trained_configuration(run).variance.family for run in runs}
    for run, family in family_of.items():
        ends = [event for event in read_events(run) if event["event"] == "stage_end" and event["stage"] == 2]
        if ends:
            found.add(run, ends[-1]["elbo"], family, "elbo")
    for run, result in results(runs, "likelihood"):
        protocol = result["protocol"]
        if protocol["weights"] == "final" and protocol.get("noise", "independent") == "independent":
            found.add(run, result["values"]["iwae_prior"]["value"], family_of[run], "iwae")
            found.add(run, result["values"]["mean_square_error"]["value"], family_of[run], "error")
            found.add(run, result["cap"], family_of[run], "cap")
    for run, result in results(runs, "uncertainty"):
        if result["protocol"].get("noise", "independent") != "independent":
            continue
        for point in result["coverage"]:
            found.add(run, point["value"], family_of[run], point["level"])
    rows = [
        (
            title,
            found.shown(family, "elbo", digits=1),
            found.shown(family, "iwae", digits=1),
            found.shown(family, "cap", digits=0),
            found.shown(family, "error", digits=5),
            *(found.shown(family, level, digits=1, scale=100) for level in (0.5, 0.9, 0.99)),
        )
        for family, title in FAMILIES.items()
        if family in family_of.values()
    ]
    head = ("family", "held-out ELBO, nats", "test images, IWAE, prior, nats", "cap", "square error a pixel")
    return Table(head=(*head, "50 % hold, %", "90 % hold, %", "99 % hold, %"), rows=rows)


def main() -> None:
    args = table_arguments(__doc__.splitlines()[0]).parse_args()
    made = Made(
        name="families",
        title="Heavier tails in the per-pixel likelihood",
        text=(
            "Stage 2 of the demo, from the end of stage 1 of the same seed, with another density of a pixel of the "
            "same variance and the same floor. The floor bounds variances, and a Laplace of the same variance has a "
            "higher peak, so its cap is higher: a part of the difference is that. Stage 1 does not depend on the "
            "family and was trained once a seed.",
        ),
        table=families(args.runs),
        commands=(
            "python -m trainer --config trainer/configs/fashion_mnist_demo.yaml --name demo-SEED-FAMILY --seed SEED "
            "--variance.family FAMILY",
            "python -m eval likelihood --run RUN --mixture 0",
            "python -m eval uncertainty --run RUN --images 10000",
        ),
    )
    show([made], args, "family_tables.py")


if __name__ == "__main__":
    command(main)
