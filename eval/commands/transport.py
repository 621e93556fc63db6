"""`python -m eval transport`: the maps that transport samples to the distribution of real images."""

import argparse

from data_shards.io.errors import InputError, OneLineParser, at_least
from data_shards.io.options import add_lock_option, seed
from eval.commands.options import add_mixture_options, add_run_options


def add_arguments(parser: OneLineParser) -> None:
    """The options of `python -m eval transport`."""
    add_run_options(parser, weights_help="whose mean images are transported")
    add_mixture_options(parser, "components of the fitted mixture; each gets a map")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the latents")
    parser.add_argument(
        "--rounds",
        type=int,
        default=0,
        help="rounds of monotone maps of wavelet coefficients and pixels after the linear maps, at most 30; 3 bring "
        "samples nearer to real images",
    )
    add_lock_option(parser, "the transport")


def run(args: argparse.Namespace) -> None:
    """Writes RUN/transports/K-COVARIANCE[-WEIGHTS], for `python -m eval fid --from transported`."""
    from eval.images.marginals import MOST_ROUNDS
    from eval.images.stored_transport import fitted_before, make_transport, transport_folder
    from eval.run import load_shared_run
    from trainer.process_group import process_group

    at_least(1, mixture=args.mixture)
    at_least(0, seed=args.seed, rounds=args.rounds)
    if args.rounds > MOST_ROUNDS:
        raise InputError(f"{args.rounds} is above {MOST_ROUNDS}", parameter="rounds")
    with process_group(args.device, options=vars(args)) as ranks:
        measured = load_shared_run(args.run, args.weights, ranks)
        folder = transport_folder(measured, args.mixture, args.covariance)
        before = fitted_before(measured, args.mixture, args.covariance, seed=args.seed, rounds=args.rounds)
        fitted = make_transport(
            measured,
            args.mixture,
            args.covariance,
            ranks,
            seed=args.seed,
            rounds=args.rounds,
            steal=args.steal_lock,
        )
        if not ranks.is_main:
            return
        if before is not None:
            print(f"{folder}: fitted before to these weights and this mixture")
            return
        fewest, most = fitted.images
        shared = f", one of them of {fitted.shared} components" if fitted.shared else ""
        rounds = f", then {args.rounds} rounds of monotone maps" if args.rounds else ""
        print(
            f"{folder}: {fitted.maps} maps{shared}{rounds}; components have {fewest:,} to {most:,} images; "
            f"square error a pixel {fitted.square_error:.5f}"
        )
