"""python -m trainer --config trainer/configs/celeba.yaml [--any.field value] [--dry-run]

torchrun --standalone --nproc-per-node 2 -m trainer --config ...    two processes on one machine
deepspeed --num_gpus 2 --module trainer --config ...                the same by DeepSpeed's launcher, also without GPUs
srun python -m trainer --config ...                                 one task a rank
python -m trainer --launch slurm --nodes 2 --config ...             a batch job of Slurm, by slurm/train_celeba.sh

Several files may be given, the later ones over the earlier ones, and every field of the configuration is an option.
"""

from trainer.stop_signals import exit_code, ignore_signals, one_line_for_signals

if __name__ == "__main__":
    one_line_for_signals()  # the other imports take a second, and torch's some more

import argparse
import contextlib
import os
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo

from data_shards.io.configuration import described, fields_of, is_configuration, leaf_fields, meanings, shown
from data_shards.io.errors import InputError, OneLineParser, at_least
from data_shards.io.likeness import nearest
from data_shards.io.options import add_lock_option
from data_shards.io.strict_yaml import parse_yaml
from trainer.config.config import Config, from_files
from trainer.group_command import group_command
from trainer.launch import Launch, batch_job, submit
from trainer.peers.launcher import require_address

# Keeps a field's name apart from the names of options, so that messages name the field as a YAML file does.
_FIELD = "field "


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """What was asked for on the command line."""

    config: Config
    """The run."""
    dry_run: bool
    """Estimate and check, and start nothing."""
    processes: int
    """Processes of the whole job that is estimated."""
    print_folder: bool
    """Print the run folder alone on stdout, and the estimate on stderr."""
    allow_change: bool
    """Go on with a trained run under other values of fields that do not alter what was learnt."""
    steal_lock: bool
    """Take the run folder over from a process that works in it."""
    launch: Launch | None
    """The batch job that is submitted instead of training here."""


def read_command_line(words: Sequence[str]) -> CommandLine:
    """Reads the words after `python -m trainer`. Raises InputError in one line."""
    parser = command_line_parser()
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        option = unknown[0].partition("=")[0]
        known = [name for action in parser._actions for name in action.option_strings]
        near = nearest(option, known) if option.startswith("--") else None
        raise InputError(f"{option} is not an option; {f'use {near}' if near else 'write --field value, see --help'}")
    if not arguments.launch and (options := _sbatch_options(arguments)):
        raise InputError(f"{options[0]}: options of a batch job go with --launch slurm; add that or leave it out")
    processes = 1 if arguments.processes is None else arguments.processes
    at_least(1, processes=processes)
    known_fields = leaf_fields(Config)
    given = {name.removeprefix(_FIELD): word for name, word in vars(arguments).items() if name.startswith(_FIELD)}
    try:
        asked = {name: value_of(word, known_fields[name], name) for name, word in given.items()}
        config = from_files(arguments.config, _where_the_run_lies(arguments.config) | asked)
    except InputError as error:
        if error.parameter not in given:
            raise
        raise InputError(error.named(None), parameter=f"--{error.parameter}") from None
    launch = None
    if arguments.launch:
        flags = [f"--{name.replace('_', '-')}" for name in ("allow_change", "steal_lock") if getattr(arguments, name)]
        launch = batch_job(config, arguments.config, given, flags, _sbatch_options(arguments))
    return CommandLine(
        config=config,
        dry_run=arguments.dry_run,
        processes=processes,
        print_folder=arguments.print_folder,
        allow_change=arguments.allow_change,
        steal_lock=arguments.steal_lock,
        launch=launch,
    )


def _sbatch_options(arguments: argparse.Namespace) -> list[str]:
    numbers = {name: getattr(arguments, name) for name in ("nodes", "gpus_per_node")}
    numbers = {name: number for name, number in numbers.items() if number is not None}
    at_least(1, **numbers)
    return [f"--{name.replace('_', '-')}={number}" for name, number in numbers.items()] + arguments.sbatch


def _where_the_run_lies(files: Sequence[str]) -> dict[str, str]:
    """Name and place of the run whose own config.yaml was given last: its folder may have been renamed or moved."""
    folder = Path(os.path.abspath(files[-1])).parent if files else Path()
    if not files or Path(files[-1]).name != "config.yaml" or not (folder / "checkpoints").is_dir():
        return {}
    return {"name": folder.name, "runs": str(folder.parent)}


def command_line_parser() -> OneLineParser:
    """The parser, with an option for every field."""
    parser = OneLineParser(
        prog="python -m trainer",
        description="Trains a two-stage sigma-VAE. The same command again goes on from the last checkpoint. "
        "Start it on several processes with torchrun, deepspeed or srun.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="YAML file with any of the fields below; of several, the later ones go over the earlier ones",
    )
    parser.add_argument("--dry-run", action="store_true", help="check the run and estimate its cost; start nothing")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="with --dry-run: processes of the whole job (default: 1)"
    )
    parser.add_argument(
        "--print-folder",
        action="store_true",
        help="with --dry-run: the run folder alone on stdout, the estimate on stderr",
    )
    parser.add_argument(
        "--allow-change",
        action="store_true",
        help="go on with a trained run under another learning rate, clipping, schedule or end of a stage",
    )
    add_lock_option(parser, "the run folder")
    parser.add_argument("--launch", choices=["slurm"], help="submit a batch job that trains, instead of training here")
    parser.add_argument("--nodes", type=int, metavar="N", help="with --launch: machines of the job")
    parser.add_argument("--gpus-per-node", type=int, metavar="N", help="with --launch: GPUs of each machine")
    parser.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="with --launch: any option of sbatch, such as --sbatch=--time=2-0; may be given several times",
    )
    parser.acts_only(
        lambda args: args.dry_run,
        *("processes", "print_folder"),
        otherwise="goes with --dry-run alone; add it or leave this out",
    )
    parser.acts_only(
        lambda args: args.launch is None,
        *("processes", "print_folder"),
        otherwise="does not go with --launch, whose script counts the job's processes",
    )
    parser.acts_only(
        lambda args: not args.dry_run, "steal_lock", otherwise="takes nothing over with --dry-run; leave it out"
    )
    _add_fields(parser, Config, "")
    return parser


def _add_fields(parser: OneLineParser, kind: type, prefix: str) -> None:
    group = parser.add_argument_group((kind.__doc__ or "").rstrip("."))
    texts = meanings(kind)
    for name, info in fields_of(kind).items():
        if is_configuration(info.annotation):
            continue
        group.add_argument(
            f"--{prefix}{name}",
            dest=f"{_FIELD}{prefix}{name}",
            default=argparse.SUPPRESS,
            metavar=_placeholder(name, info),
            help=f"{texts[name]} ({described(info)}; default: {shown(info.default)})".replace("%", "%%"),
        )
    for name, info in fields_of(kind).items():
        if is_configuration(info.annotation):
            _add_fields(parser, typing.cast(type, info.annotation), f"{prefix}{name}.")


def _placeholder(name: str, info: FieldInfo) -> str:
    if typing.get_origin(info.annotation) is Literal:
        return "{" + ",".join(map(str, typing.get_args(info.annotation))) + "}"
    return "{true,false}" if info.annotation is bool else name.upper()


def value_of(word: str, info: FieldInfo, name: str) -> Any:
    """The value that a word of the command line stands for: a text as it is, anything else as YAML has it."""
    if info.annotation is str or typing.get_origin(info.annotation) is Literal or not word.strip():
        return word
    try:
        return parse_yaml(word)
    except InputError:
        raise InputError(f"{shown(word)} is not {described(info)}", parameter=name) from None


def main() -> None:
    """Reads the command line, then trains or estimates."""
    asked = read_command_line(sys.argv[1:])
    if asked.launch is not None:
        sys.exit(submit(asked.launch, dry_run=asked.dry_run))
    # torch takes seconds to import: --help and mistakes come before.
    if not asked.dry_run:
        require_address()
        from trainer.loop import train

        try:
            train(asked.config, steal_lock=asked.steal_lock, allow_change=asked.allow_change)
        except KeyboardInterrupt:  # Ctrl-C; the checkpoint is written
            sys.exit(exit_code("SIGINT"))
        return
    from trainer.dry_run import dry_run

    with contextlib.redirect_stdout(sys.stderr if asked.print_folder else sys.stdout):
        dry_run(asked.config, asked.processes, allow_change=asked.allow_change)
    if asked.print_folder:
        print(asked.config.folder)


def run() -> int:
    """`main` as a command. Returns the exit code: 0 too where a signal stopped the training and its work is kept."""
    try:
        return group_command(main)
    finally:
        ignore_signals()


if __name__ == "__main__":
    sys.exit(run())
