"""Shards of few digits: what is shown on the pretended GPU does not rest on their number."""

from pathlib import Path

import pytest
from device.sessions import IMAGES
from support.running import write_digits

from data_shards import build_shards


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory) -> Path:
    """Shards of the digits with `IMAGES` of each split."""
    return _shards(tmp_path_factory.mktemp("few-digits"), **IMAGES)


@pytest.fixture(scope="session")
def fewest_digits(tmp_path_factory) -> Path:
    """Shards of 60 digits for training, 20 held out and 20 for testing."""
    return _shards(tmp_path_factory.mktemp("fewest-digits"), train=60, valid=20, test=20)


def _shards(folder: Path, *, train: int, valid: int, test: int) -> Path:
    source = write_digits(folder / "source", train + valid, test)
    build_shards("mnist", folder / "shards", source=source, valid=valid)
    return folder / "shards"
