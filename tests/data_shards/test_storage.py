"""Shards behind a real HTTP server and a real S3-compatible one, through the cache that ranks of a node share."""

import collections
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from support.shard_cases import ArraySource, build_arrays

from data_shards.inspect.verify import verify
from data_shards.io.address import Address, Location, Unreachable
from data_shards.io.disk import locked
from data_shards.io.errors import InputError, MachineFault
from data_shards.manifest import Manifest
from data_shards.storage import shard_files
from data_shards.stream.reader import Reader
from data_shards.stream.stream import ShardStream


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SIGMA_VAE_CACHE", str(folder))
    return folder / "shards"


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; counts requests, and answers with damage to files in `spoiled`."""

    requests: collections.Counter
    spoiled: dict[str, int]

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.requests[name] += 1
        if self.spoiled.get(name, 0) > 0:
            self.spoiled[name] -= 1
            body = bytes(len((Path(self.directory) / name).read_bytes()))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        super().do_GET()

    def log_message(self, *words):
        """Says nothing."""


@pytest.fixture
def served(uneven_shards):
    """Address, counter of requests by file name, and how often which file is to be spoiled."""
    handler = type("Handler", (Server,), {"requests": collections.Counter(), "spoiled": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=uneven_shards))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.requests, handler.spoiled
    server.shutdown()
    server.server_close()
    thread.join()


def epoch(address, **options):
    stream = ShardStream(address, **{"split": "train", "global_batch": 32, **options})
    batches = list(stream)
    stream.close()
    return torch.cat([b.index for b in batches]), torch.cat([b.image for b in batches])


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_http_gives_the_local_stream(served, uneven_shards, workers):
    address, requests, _ = served
    assert same(epoch(address, workers=workers), epoch(uneven_shards))
    assert all(requests[shard.name] == 1 for shard in Manifest.load(uneven_shards).shards_of("train"))


def test_a_second_epoch_comes_from_the_cache(served):
    address, requests, _ = served
    epoch(address)
    before = requests.copy()
    epoch(address)
    assert {name for name in requests if requests[name] != before[name]} == {"manifest.json"}


def test_the_ranks_of_a_node_fetch_each_shard_once(served, uneven_shards):
    address, requests, _ = served
    script = Path(__file__).parents[1] / "support" / "remote_reader.py"
    ranks = [
        subprocess.Popen([sys.executable, script, address, str(rank), "3"], stdout=subprocess.PIPE, text=True)
        for rank in range(3)
    ]
    output = [rank.communicate(timeout=600)[0] for rank in ranks]
    assert sorted(int(word) for text in output for word in text.split()) == list(range(211))
    assert all(requests[shard.name] == 1 for shard in Manifest.load(uneven_shards).shards_of("train"))


def test_the_cache_never_exceeds_its_limit(served, uneven_shards, cache):
    address, requests, _ = served
    shards = Manifest.load(uneven_shards).shards_of("train")
    limit = sum(sorted(shard.bytes for shard in shards)[-3:])  # one window of three
    stream = ShardStream(Location(address=address, cache_bytes=limit), split="train", global_batch=8)
    local = ShardStream(uneven_shards, split="train", global_batch=8)
    for _ in range(2):
        for batch, expected in zip(stream, local, strict=True):
            assert torch.equal(batch.image, expected.image)
            with locked(cache / "room"):  # nothing is removed while it is counted
                assert sum(path.stat().st_size for path in cache.glob("*/*.tar")) <= limit
    stream.close()
    assert max(requests[shard.name] for shard in shards) > 1


def test_a_cache_too_small_for_one_window_is_refused(served):
    with pytest.raises(InputError, match="cache_bytes: 1000 is less than"):
        ShardStream(Location(address=served[0], cache_bytes=1000), split="train", global_batch=8)


def test_a_download_with_a_wrong_checksum_is_tried_again(served, uneven_shards):
    address, requests, spoiled = served
    spoiled["train-000002.tar"] = 1
    assert same(epoch(address), epoch(uneven_shards))
    assert requests["train-000002.tar"] == 2


def test_a_shard_that_stays_wrong_stops_the_stream_and_is_named(served, cache):
    address, _, spoiled = served
    spoiled["train-000002.tar"] = 1000
    with pytest.raises(InputError, match=r"train-000002\.tar: does not have the sha256"):
        epoch(Location(address=address, patience_seconds=1))
    assert not list(cache.glob("*/train-000002.tar"))


def test_a_damaged_copy_in_the_cache_is_fetched_anew(served, uneven_shards, cache):
    address, requests, _ = served
    epoch(address)
    (damaged,) = cache.glob("*/train-000002.tar")
    damaged.write_bytes(bytes(damaged.stat().st_size))
    (short,) = cache.glob("*/train-000004.tar")
    short.write_bytes(short.read_bytes()[:3000])
    assert same(epoch(address), epoch(uneven_shards))
    assert (requests["train-000002.tar"], requests["train-000004.tar"]) == (2, 2)


@pytest.mark.parametrize("removed", ["shards", "shards/*"])
def test_a_cache_that_is_removed_meanwhile_is_made_again(served, uneven_shards, cache, removed):
    address, _, _ = served
    manifest = Manifest.load(address)
    reader = Reader(manifest, "train", shard_files(Address(address), manifest, split="train"))
    assert reader.read(np.arange(20)).faults == ()
    for path in cache.parent.glob(removed):
        shutil.rmtree(path, ignore_errors=True)
    assert reader.read(np.arange(20, 211)).faults == ()
    reader.close()


def test_verify_checks_what_the_server_has_and_not_the_copies_of_it(served, uneven_shards, cache):
    address, _, spoiled = served
    epoch(address)
    (damaged,) = cache.glob("*/train-000002.tar")
    damaged.write_bytes(bytes(damaged.stat().st_size))
    place, manifest = Address(Location(address=address, patience_seconds=0)), Manifest.load(uneven_shards)
    assert not any(faults for _, faults in verify(manifest, place, processes=1))
    spoiled |= {"train-000004.tar": 1, "train-000006.json": 1}
    found = {shard.name: faults for shard, faults in verify(manifest, place, processes=1) if faults}
    assert found.keys() == {"train-000004.tar", "train-000006.tar"}
    assert all("does not have the sha256 of the manifest" in faults[0] for faults in found.values())
    assert same(epoch(address), epoch(uneven_shards))


def test_what_a_killed_process_left_of_a_download_is_removed(served, cache):
    address, _, _ = served
    epoch(address)
    (folder,) = cache.glob("*/")
    partial = folder / ".train-000000.tar.99999.partial"
    partial.write_bytes(bytes(99999))
    (folder / "train-000002.tar").unlink()
    epoch(address)
    assert not partial.exists()


def test_what_else_lies_in_the_folder_of_the_cache_is_left_alone(served, uneven_shards, tmp_path):
    mine = [tmp_path / "photos/holiday.tar", tmp_path / "photos/.album.tar.gz.partial", tmp_path / "archive.tar"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10**6))
        os.utime(path, (0, 0))  # of all tars there the one that was used longest ago
    limit = sum(sorted(shard.bytes for shard in Manifest.load(uneven_shards).shards_of("train"))[-3:])
    location = Location(address=served[0], cache_dir=str(tmp_path), cache_bytes=limit)
    assert same(epoch(location), epoch(uneven_shards))
    assert [path.stat().st_size for path in mine] == [10**6] * 3
    assert not list((tmp_path / "photos").glob("*.lock"))


def test_a_server_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(MachineFault, match=r"http://127\.0\.0\.1:9/manifest\.json: cannot be read"):
        Manifest.load(Location(address="http://127.0.0.1:9", patience_seconds=0))


def test_a_full_disk_under_the_cache_is_a_clear_stop(served, tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    monkeypatch.setenv("SIGMA_VAE_CACHE", str(small))
    try:
        with pytest.raises(MachineFault, match=r"the disk is full.*data\.cache_bytes.*data\.cache_dir"):
            epoch(served[0])
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize("name", ["data:v2", "my:shards", "2026:11/shards", "file:///data/shards"])
def test_a_colon_alone_makes_no_address_of_a_folder(name):
    assert Address(name).local == Path(name.removeprefix("file://"))


@pytest.mark.parametrize("address", ["s3://bucket/shards", "https://host/shards", "simplecache::s3://bucket/shards"])
def test_an_address_is_no_folder(address):
    assert Address(address).local is None


def test_a_shell_command_is_refused_unless_allowed(uneven_shards):
    address = f"pipe:cat {uneven_shards}/{{}}"
    with pytest.raises(InputError, match="runs a shell command"):
        ShardStream(address, split="train", global_batch=32)
    assert same(epoch(Location(address=address, allow_pipe=True)), epoch(uneven_shards))


def test_a_shell_command_without_a_place_for_the_name_is_refused():
    with pytest.raises(InputError, match="where the file name goes"):
        Manifest.load(Location(address="pipe:cat shards/manifest.json", allow_pipe=True))


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_answer_after_it_was_given_up_is_dropped_in_silence(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    address = Address(Location(address=f"pipe:sleep 1; touch {tmp_path}/late; cat {tmp_path}/{{}}", allow_pipe=True))
    others = set(threading.enumerate())
    with pytest.raises(Unreachable, match="nothing arrived for 0 s"):
        address.read_bytes("manifest.json", quiet_seconds=0.1)
    for thread in set(threading.enumerate()) - others:
        thread.join()
    assert (tmp_path / "late").exists()


def test_s3_gives_the_local_stream(uneven_shards, monkeypatch):
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # another test's, of another endpoint
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="images")
        for path in uneven_shards.glob("[!.]*"):
            client.upload_file(str(path), "images", f"uneven/{path.name}")
        assert same(epoch("s3://images/uneven"), epoch(uneven_shards))
        with pytest.raises(InputError, match=r"no manifest\.json there"):
            Manifest.load("s3://images/nothing")
    finally:
        server.stop()


def test_shards_of_different_content_do_not_mix_in_one_cache(served, tmp_path, uneven_shards):
    other = tmp_path / "other"
    build_arrays(other, ArraySource({"train": 40}), shard_images=20, window=3)
    epoch(served[0])
    address = f"pipe:cat {other}/{{}}"
    assert same(epoch(Location(address=address, allow_pipe=True)), epoch(other))
