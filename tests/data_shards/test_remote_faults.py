"""Servers that fail for a while in the middle of an epoch: the batches are those of the local shards, bit for bit."""

import os
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
import torch
from s3fs import S3FileSystem
from support.failing_server import HOW, failing

from data_shards.io.address import Address, Location, Unreachable
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


def compared(shards: Path, folder: Path, workers: int) -> dict[str, object]:
    """What went wrong in each way of failing, all ways at once, each with a server and a cache of its own."""
    local = epochs(shards)

    def differs(how: str) -> object:
        with failing(shards, how) as server:
            place = Location(address=server.address, cache_dir=str(folder / how), patience_seconds=300)
            # Substitutes are allowed, and none must be used.
            got = epochs(place, workers=workers, max_substitutes=1000)
        if server.failed == 0:
            return "no request failed"
        return None if same(got, local) else f"other batches, {got[2]} substituted"

    with ThreadPoolExecutor(len(HOW)) as threads:
        found = dict(zip(HOW, threads.map(differs, HOW), strict=True))
    return {how: fault for how, fault in found.items() if fault is not None}


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_server_that_fails_for_three_seconds_in_any_way_changes_no_batch(uneven_shards, tmp_path, workers):
    assert compared(uneven_shards, tmp_path, workers) == {}


@pytest.fixture(scope="module")
def bucket(uneven_shards):
    """Endpoint of an S3 server with the shards at s3://images/uneven."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    names = {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        host, port = server.get_host_and_port()
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="images")
        for path in (file for file in uneven_shards.iterdir() if file.is_file()):
            client.upload_file(str(path), "images", f"uneven/{path.name}")
        yield f"http://{host}:{port}"
        server.stop()


def s3_compared(bucket, shards, folder, how, workers, monkeypatch):
    """As `compared`, one way of failing: s3fs takes its endpoint from the environment."""
    local = epochs(shards)
    with failing(bucket, how) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        S3FileSystem.clear_instance_cache()  # another test's, of another endpoint
        place = Location(address="s3://images/uneven", cache_dir=str(folder), patience_seconds=300)
        got = epochs(place, workers=workers, max_substitutes=1000)
        return server.failed > 0 and same(got, local)


def test_an_s3_server_that_fails_for_three_seconds_changes_no_batch(bucket, uneven_shards, tmp_path, monkeypatch):
    assert s3_compared(bucket, uneven_shards, tmp_path, "503", 2, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("how", HOW)
def test_an_s3_server_that_fails_in_any_way_changes_no_batch(
    bucket, uneven_shards, tmp_path, how, workers, monkeypatch
):
    assert s3_compared(bucket, uneven_shards, tmp_path, how, workers, monkeypatch)


def test_a_manifest_is_waited_for_and_what_is_waited_for_is_said(uneven_shards, capfd):
    with failing(uneven_shards, "refused") as server:
        server.stop()
        threading.Timer(1.0, server.listen).start()
        assert Manifest.load(server.address) == Manifest.load(uneven_shards)
    # A thread of an earlier test may still be waiting for a server of its own.
    lines = [line for line in capfd.readouterr().err.splitlines() if server.address in line]
    assert len(lines) == 1
    assert re.match(r"waiting: http://.*/manifest\.json: cannot be read \(.*\); tried again for up to 10m00s", lines[0])


def test_a_manifest_that_is_not_there_is_said_at_once(tmp_path):
    began = time.monotonic()
    with failing(tmp_path, "503") as server, pytest.raises(InputError, match=r"no manifest\.json there"):
        Manifest.load(server.address)
    assert time.monotonic() - began < 60  # of ten minutes' patience


@pytest.mark.parametrize("workers", [0, 1])
def test_a_server_that_stays_away_is_one_line_and_no_bad_image(uneven_shards, tmp_path, workers):
    with failing(uneven_shards, "503", seconds=100) as server:
        place = Location(address=server.address, cache_dir=str(tmp_path), patience_seconds=1)
        with pytest.raises(MachineFault, match=r"503.*tried for \d+s; start the same command again when it is back"):
            epochs(place, workers=workers, max_substitutes=1000)


def test_a_closed_stream_waits_for_its_server_no_longer(uneven_shards, tmp_path):
    with failing(uneven_shards, "503", after=0, seconds=100) as server:
        stream = ShardStream(Location(address=server.address, cache_dir=str(tmp_path)), split="train", global_batch=8)
        with ThreadPoolExecutor(1) as thread:
            first = thread.submit(next, iter(stream))
            while server.failed == 0:
                time.sleep(0.01)
            stream.close()
            with pytest.raises(MachineFault, match="503"):
                first.result(timeout=120)  # of ten minutes' patience


def test_a_call_that_brings_nothing_is_ended_by_its_own_timeout(uneven_shards, tmp_path):
    began = time.monotonic()
    with (
        failing(uneven_shards, "hang", after=0, seconds=100) as server,
        pytest.raises(Unreachable, match="nothing arrived for 1 s"),
    ):
        Address(server.address).download("train-000000.tar", tmp_path / "a.tar", quiet_seconds=1)
    assert time.monotonic() - began < 60  # of the 100 s for which the server is silent


@pytest.mark.parametrize("protocol", ["http", "s3"])
def test_a_file_that_arrives_slowly_is_not_given_up(bucket, uneven_shards, tmp_path, monkeypatch, protocol):
    monkeypatch.setitem(fsspec.config.conf, "s3", {"default_block_size": 4096})  # S3's large files in parts
    with failing(bucket if protocol == "s3" else uneven_shards, "trickle") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        S3FileSystem.clear_instance_cache()
        address = server.address if protocol == "http" else "s3://images/uneven"
        Address(address).download("train-000000.tar", tmp_path / "a.tar", quiet_seconds=2)  # of 2.4 and more
    S3FileSystem.clear_instance_cache()
    assert (tmp_path / "a.tar").read_bytes() == (uneven_shards / "train-000000.tar").read_bytes()


def test_a_lost_shard_is_tried_again_later(uneven_shards, tmp_path, monkeypatch):
    import shutil

    from data_shards.stream import reader

    monkeypatch.setattr(reader, "_LOST_SECONDS", 0.0)
    shards = shutil.copytree(uneven_shards, tmp_path / "shards")
    (shards / "train-000004.tar").rename(tmp_path / "away.tar")
    stream = ShardStream(shards, split="train", global_batch=211, max_substitutes=1000)
    (first,) = list(stream)
    (tmp_path / "away.tar").rename(shards / "train-000004.tar")
    (second,) = list(stream)
    assert (first.substituted, second.substituted) == (20, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_open_files_are_a_fault_of_the_machine(uneven_shards, tmp_path, workers):
    from support.running import run_module

    code = (
        "import resource, sys; from data_shards import ShardStream; from data_shards.io.errors import command; "
        f"stream = ShardStream({str(uneven_shards)!r}, split='train', global_batch=8, max_substitutes=1000, "
        f"workers={workers}); "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (len(__import__('os').listdir('/proc/self/fd')) + 1,) * 2); "
        "sys.exit(command(lambda: list(stream)))"
    )
    (tmp_path / "few_files.py").write_text(code)
    done = run_module("few_files", env={"PYTHONPATH": f"{tmp_path}:{os.getcwd()}"})
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(r"error: .*too many open files in this process: raise `ulimit -n`\n", done.stderr)


def test_a_cache_folder_that_is_a_file_is_named(uneven_shards, tmp_path):
    (tmp_path / "file").write_text("")
    with failing(uneven_shards, "503") as server, pytest.raises(InputError, match=r"cache_dir: .*file is not a folder"):
        ShardStream(Location(address=server.address, cache_dir=str(tmp_path / "file")), split="train", global_batch=8)


def test_a_read_only_cache_is_a_fault_of_the_machine(uneven_shards, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk can only be mounted by root")
    try:
        with failing(uneven_shards, "503", after=10**6) as server:
            place = Location(address=server.address, cache_dir=str(disk))
            stream = ShardStream(place, split="train", global_batch=8, max_substitutes=1000)
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            with pytest.raises(MachineFault, match=r"the file system is read-only.*data\.cache_dir"):
                list(stream)
            stream.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
