"""Servers that fail for a while in the middle of an epoch: the batches are those of the local shards, bit for bit."""

import contextlib
import errno
import os
import re
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from support.failing_server import HOW, failing

from data_shards.io.address import Address, Location
from data_shards.io.errors import InputError, MachineFault
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream



def epochs(place, **options):
    """Indices and images of two epochs, and how many were substituted."""
    stream = ShardStream(place, **{"split": "train", "global_batch": 8, **options})
    batches = [*stream, *stream]
    stream.close()
    return torch.cat([b.index for b in batches]), torch.cat([b.image for b in batches]), stream.substituted


def same(one, other):
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1]) and one[2] == other[2]


def compared(behind, shards: Path, folder: Path, ways, workers: int, path: str = "", **options) -> dict[str, object]:
    """What went wrong in each way of failing, all ways at once, each with a server and a cache of its own."""
    local = epochs(shards)

    def differs(how: str) -> object:
        with failing(behind, how, **options) as server:
            with contextlib.ExitStack() as stack:
                address = server.address if not path else path
                if path:
                    stack.enter_context(_endpoint(server.address))
                place = Location(address=address, cache_dir=str(folder / how), patience_seconds=60)
                # Substitutes are allowed, and none must be used.
                got = epochs(place, workers=workers, max_substitutes=1000)
            if server.failed == 0:
                return "no request failed"
            return None if same(got, local) else f"other batches, {got[2]} substituted"

    with ThreadPoolExecutor(len(ways)) as threads:
        found = dict(zip(ways, threads.map(differs, ways), strict=True))
    return {how: fault for how, fault in found.items() if fault is not None}


@contextlib.contextmanager
def _endpoint(url: str):
    os.environ["AWS_ENDPOINT_URL"] = url
    yield


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_server_that_fails_for_three_seconds_in_any_way_changes_no_batch(uneven_shards, tmp_path, workers):
    assert compared(uneven_shards, uneven_shards, tmp_path, HOW, workers) == {}
