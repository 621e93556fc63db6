"""The option that allows shell commands as addresses, which the commands on shards have in common."""

from data_shards.io.errors import OneLineParser


def add_pipe_option(parser: OneLineParser) -> None:
    """Adds --allow-pipe, for the positional `shards`."""
    parser.add_argument("--allow-pipe", action="store_true", help="let a pipe: address run its shell command")
    parser.acts_only(
        lambda args: args.shards.startswith("pipe:"), "allow_pipe", otherwise="{shards} is no pipe:; leave it out"
    )
