"""Shards that several tests read."""

from pathlib import Path

import pytest
from support.celeba_tree import write_celeba
from support.shard_cases import ArraySource, build_arrays


@pytest.fixture(scope="session")
def uneven_source() -> ArraySource:
    """211 readable images of 250: shards of 20 hold 20, 1, 20, 0, 20, 9, ..."""
    bad = {("train", index) for index in [*range(21, 40), *range(60, 80)]}
    return ArraySource({"train": 250, "valid": 7}, bad=bad)


@pytest.fixture(scope="session")
def uneven_shards(tmp_path_factory: pytest.TempPathFactory, uneven_source: ArraySource) -> Path:
    out = tmp_path_factory.mktemp("uneven")
    build_arrays(out, uneven_source, shard_images=20, window=3)
    return out


@pytest.fixture(scope="session")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_celeba(tmp_path_factory.mktemp("celeba"))
