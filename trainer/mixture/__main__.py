"""python -m trainer.mixture: fits mixtures to the latent codes of a run."""

from data_shards.io.interruption import one_line_when_interrupted
from data_shards.io.working_folder import end_where_it_is_gone

if __name__ == "__main__":
    one_line_when_interrupted()  # the other imports take seconds
    end_where_it_is_gone()

import sys
from pathlib import Path

from data_shards.io.disk import free_bytes
from data_shards.io.errors import InputError, OneLineParser, at_least
from data_shards.io.options import add_lock_option, seed
from data_shards.io.progress import duration
from trainer.device import DEVICES, planned_device
from trainer.dry_run import FLOAT32_PRODUCTS
from trainer.group_command import group_command
from trainer.mixture.comparison_figure import draw_comparison
from trainer.mixture.cost import estimate_cost
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import COVARIANCE_TYPES, FORMS, SEEDINGS, Settings
from trainer.mixture.summary import summary_line
from trainer.process_group import process_group
from trainer.run_folder.agreement import require_shared_folder
from trainer.run_folder.configurations import trained_configuration
from trainer.run_folder.latents import WEIGHTS


def parser() -> OneLineParser:
    """The command line; an option that is a field of `Settings` is stored under the field's name."""
    parser = OneLineParser(
        prog="python -m trainer.mixture",
        description="Fits q_hat(z), a Gaussian mixture, to the latent codes of a run (see python -m eval encode) "
        "and writes RUN/mixtures/K-COVARIANCE with a summary.json. The same command again returns at once. "
        "Runs on any number of processes: torchrun --nproc-per-node N -m -- trainer.mixture --run RUN.",
    )
    add = parser.add_argument
    add("--run", required=True, help="run folder")
    add(
        "--components",
        dest="n_components",
        type=int,
        nargs="+",
        default=[32],
        metavar="K",
        help="components (default: 32)",
    )
    add("--covariance", dest="covariance_type", choices=COVARIANCE_TYPES, default="full", help="covariance type")
    add("--weights", choices=WEIGHTS, default="final", help="whose codes")
    add(
        "--encodings",
        choices=FORMS,
        default="posterior",
        help="a code is fitted as the Gaussian q(z|x), as its mean, or as one sample",
    )
    add("--iterations", dest="max_iter", type=int, default=50, metavar="N", help="most EM iterations")
    add("--starts", dest="n_init", type=int, default=1, metavar="N", help="fits, of which the best is kept")
    add("--tolerance", dest="tol", type=float, default=1e-4, metavar="X", help="relative gain that ends EM")
    add("--ridge", dest="reg_covar", type=float, default=1e-6, metavar="X", help="added to every variance")
    add("--prior-strength", type=float, metavar="X", help="nu (default: chosen on held-out codes)")
    add("--inflation", type=float, metavar="X", help="factor on covariances (default: chosen on held-out codes)")
    add("--annealing", dest="annealing_iter", type=int, default=10, metavar="N", help="annealed EM iterations")
    add("--seeding", dest="init_params", choices=SEEDINGS, default="auto", help="how k-means is seeded")
    add(
        "--candidates",
        type=int,
        metavar="C",
        help="candidate components evaluated per code in the truncated E-step, 0 for all (default: 32 of many)",
    )
    add(
        "--start-from",
        type=int,
        metavar="K",
        help="start from the fitted mixture of K components of this run, split, instead of from k-means",
    )
    add("--seed", dest="random_state", type=seed, default=0, metavar="N", help="seed of the start and of the samples")
    add("--device", choices=DEVICES, default="auto", help="where the fit runs; auto is cuda where there is a GPU")
    add_lock_option(parser, "the fit")
    add("--dry-run", action="store_true", help="only estimate time and disk, of encoding and all fits")
    add("--processes", type=int, default=1, metavar="N", help="processes of the whole job, for --dry-run")
    parser.acts_only(lambda args: args.dry_run, "processes", otherwise="is for --dry-run; add it or leave this out")
    parser.acts_only(
        lambda args: args.start_from is None,
        *("init_params", "n_init"),
        otherwise="is of starts by k-means, and --start-from gives one; leave it out",
    )
    return parser


def dry_run(run: str, components: list[int], device: str, processes: int) -> None:
    """Prints what encoding and the fits will cost. Raises InputError where the disk has too little room."""
    at_least(1, processes=processes)
    cost, free, rate = estimate_cost(run, components), free_bytes(Path(run)), FLOAT32_PRODUCTS[device]
    time = duration(cost.operations / (processes * rate))
    print(f"run      {run}: {cost.weights:,} weights")
    print(f"shards   {cost.shards}")
    print(f"codes    {cost.codes:,} of {cost.dim} dimensions")
    print(f"time     about {time} on {processes} {device} processes at {rate / 1e9:g} GFLOP/s each")
    print(f"disk     {cost.disk / 1e9:.2g} GB in {run}; {free / 1e9:.4g} GB are free")
    if cost.disk > free:
        raise InputError(f"{run}: {cost.disk / 1e9:.2g} GB are needed, {free / 1e9:.2g} GB are free")


def main() -> None:
    """Reads the command line, fits, prints."""
    args = vars(parser().parse_args())
    options = dict(args)
    run, device, weights, form, start_from = (
        args.pop(name) for name in ("run", "device", "weights", "encodings", "start_from")
    )
    only_estimate, processes, steal_lock = (args.pop(name) for name in ("dry_run", "processes", "steal_lock"))
    fits = [Settings(**args | {"n_components": components}) for components in args.pop("n_components")]
    if only_estimate:
        device = planned_device(device)
        dry_run(run, [settings.n_components for settings in fits], device, processes)
        return
    with process_group(device, options=options) as ranks:
        ranks.agree(lambda: trained_configuration(run))
        require_shared_folder(Path(run), ranks)
        folders = []
        for settings in fits:
            fitted = fit_run_mixture(
                run,
                settings,
                weights=weights,
                form=form,
                start_from=start_from,
                ranks=ranks,
                show_progress=True,
                steal_lock=steal_lock,
            )
            folders.append(fitted.folder)
            if ranks.is_main:
                done = f"{fitted.folder}: already fitted with these settings"
                print(summary_line(fitted.folder, fitted.summary) if fitted.is_new else done, flush=True)
                for remark in fitted.summary.get("remarks", ()):
                    print(f"warning: {remark}", file=sys.stderr, flush=True)
        if ranks.is_main and len(folders) > 1:
            print(draw_comparison(folders), flush=True)


if __name__ == "__main__":
    sys.exit(group_command(main))
