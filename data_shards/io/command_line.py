"""A command line whose mistakes are told in one line."""

import argparse

from data_shards.io.errors import InputError


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError instead of printing its usage."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"{message}; see {self.prog} --help")
