"""A command line whose mistakes are reported in one line."""

import argparse
from typing import Any

from data_shards.io.errors import InputError, name_options


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError instead of printing its usage.

    `errors.command` names the option whose `dest` is the parameter of an InputError.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # the parsers of subcommands too
        options = {action.dest: action.option_strings for action in self._actions if action.option_strings}
        name_options({dest: max(strings, key=len) for dest, strings in options.items()})
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"{message}; see {self.prog} --help")
