"""Sets of images on other machines and in compressed tars: the images of the plain local file, fetched once."""

import collections
import functools
import http.server
import os
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import torch
from support.picture_folders import pictures, write_pictures

from data_shards.io.errors import InputError
from eval.image_sets.by_name import open_set
from trainer.process_group import single

ALONE = single(torch.device("cpu"))


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and counts the files that it sends."""

    sent: collections.Counter

    def do_GET(self):
        self.sent[self.path.rpartition("/")[2].partition("?")[0]] += 1
        self.path = self.path.partition("?")[0]
        super().do_GET()

    def log_message(self, *words):
        """Says nothing."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the same images as plain and compressed tars, a zip and an array; an empty cache."""
    monkeypatch.setenv("SIGMA_VAE_CACHE", str(tmp_path / "cache"))
    images, root = list(pictures(9, 1, side=(32, 32))), tmp_path / "sets"
    write_pictures(root / "folder", images)
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz"), ("odd", "w:bz2")):
        with tarfile.open(root / name, mode) as tar:
            for path in sorted((root / "folder").iterdir()):
                tar.add(path, path.name)
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        for path in sorted((root / "folder").iterdir()):
            archive.write(path, path.name)
    np.savez(root / "a.npz", images=np.stack(images), more=np.stack(images[:3]))
    return root


@pytest.fixture
def served(place):
    """The address of the folder, and how often each file was sent."""
    handler = type("Handler", (Server,), {"sent": collections.Counter()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=place))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.sent
    server.shutdown()
    server.server_close()
    thread.join()


def identity(word):
    return open_set(str(word), ALONE).identity


def pixels(word):
    return [image for _, found in open_set(str(word), ALONE).images(range(1)) for image in found]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.xz", "odd", "a-{0..0}.tar.gz", "a*.gz"])
def test_a_compressed_tar_is_read_as_the_plain_one(place, name):
    (place / "a-0.tar.gz").write_bytes((place / "a.tar.gz").read_bytes())
    if name == "a*.gz":
        (place / "a-0.tar.gz").unlink()
        name = "a*.tar.gz"
    assert identity(place / name) == identity(place / "a.tar")
    for ours, theirs in zip(pixels(place / name), pixels(place / "a.tar"), strict=True):
        assert torch.equal(ours, theirs)


def test_a_compressed_tar_that_is_cut_short_is_one_line(place):
    content = (place / "a.tar.gz").read_bytes()
    (place / "cut.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.tar\.gz: cut short or damaged"):
        open_set(str(place / "cut.tar.gz"), ALONE)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip", "a.npz:images", "a.tar?signature=x/y"])
def test_a_file_at_an_address_is_read_as_the_local_one_and_fetched_once(place, served, name):
    address, sent = served
    assert identity(f"{address}/{name}") == identity(place / name.partition("?")[0])
    again = open_set(f"{address}/{name}", ALONE)
    assert again.n == 9
    assert list(sent.values()) == [1]


def test_a_range_of_tars_at_an_address_is_one_set(place, served):
    address, _ = served
    for number in range(2):
        (place / f"b-{number}.tar").write_bytes((place / "a.tar").read_bytes())
    assert open_set(f"{address}/b-{{0..1}}.tar", ALONE).n == 18


def test_only_copies_make_room_for_others(place, monkeypatch):
    folder = place.parent / "cache" / "images"
    (folder / "album").mkdir(parents=True)
    mine, copy = folder / "holiday.jpg", folder / f"{'0' * 32}.tar"
    for path in (mine, copy, folder / "album"):
        path.touch()
        os.utime(path, (0, 0))
    monkeypatch.setattr("eval.image_sets.copies.DEFAULT_CACHE_BYTES", 0)
    assert identity(place / "a.tar.gz") == identity(place / "a.tar")
    assert mine.exists()
    assert not copy.exists()


def test_a_newer_file_at_an_address_is_fetched_anew(place, served):
    address, sent = served
    first = identity(f"{address}/a.tar")
    with tarfile.open(place / "a.tar", "w") as tar:
        tar.add(place / "folder" / "003.png", "other.png")
    assert identity(f"{address}/a.tar") == identity(place / "a.tar") != first
    assert sent["a.tar"] == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "of other machines tars, zips and arrays are read, and shards as shards:ADDRESS/SPLIT"),
        ("a-*.tar", "names on other machines are not searched; give a range"),
    ],
)
def test_what_cannot_be_read_from_an_address_is_one_line(served, name, message):
    with pytest.raises(InputError, match=message):
        open_set(f"{served[0]}/{name}", ALONE)


def test_a_file_that_an_address_does_not_have_is_missing(served, monkeypatch):
    monkeypatch.setattr("eval.image_sets.copies._PATIENCE_SECONDS", 0.0)
    with pytest.raises(FileNotFoundError, match=r"nothing\.tar"):
        open_set(f"{served[0]}/nothing.tar", ALONE)


@pytest.mark.slow
def test_a_tar_in_a_bucket_is_read_as_the_local_one(place, monkeypatch):
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (("ACCESS_KEY_ID", "nobody"), ("SECRET_ACCESS_KEY", "nothing"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="images")
    client.upload_file(str(place / "a.tar.gz"), "images", "sets/a.tar.gz")
    try:
        assert identity("s3://images/sets/a.tar.gz") == identity(place / "a.tar")
    finally:
        server.stop()
        S3FileSystem.clear_instance_cache()
