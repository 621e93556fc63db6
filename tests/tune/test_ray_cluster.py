"""An address at which there is no Ray cluster is one line before anything is written."""

import socket
import sys

import pytest
from support.running import free_port
from support.sweep_cases import write_sweep

from data_shards.io.errors import InputError, command
from tune.__main__ import main
from tune.ray_cluster import require_cluster, start_ray


@pytest.mark.parametrize("address", ["here", "127.0.0.1", "127.0.0.1:", ":6379", "127.0.0.1:70000", "127.0.0.1:+1"])
def test_what_is_no_address_is_refused_with_one_that_would_be(address):
    with pytest.raises(InputError, match=r"^address: .*is no address of a Ray cluster; use HOST:PORT"):
        require_cluster(address)


def test_an_address_at_which_nobody_listens_is_refused_at_once_and_nothing_is_written(
    tmp_path, digits_shards, capsys, monkeypatch
):
    path = write_sweep(tmp_path, digits_shards)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["tune", "--config", str(path), "--address", f"127.0.0.1:{free_port()}"])
    code = command(main)
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.startswith("error: --address: no Ray cluster answers at 127.0.0.1:")
    assert len(said.err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_no_machine_is_refused():
    with pytest.raises(InputError, match=r"no Ray cluster answers at no\.such\.machine\.invalid:6379 \("):
        require_cluster("no.such.machine.invalid:6379")


def test_an_open_port_of_something_else_passes_the_first_look():
    with socket.create_server(("127.0.0.1", 0)) as other:
        require_cluster(f"127.0.0.1:{other.getsockname()[1]}")


def test_a_cluster_that_cannot_be_joined_is_one_line(monkeypatch):
    def init(**_):  # this machine may have a cluster, which `auto` would find
        raise ConnectionError("Could not find any running Ray instance.\nPlease specify the one to connect to")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(InputError, match=r"^address: no Ray cluster at auto can be joined \(Could not find"):
        start_ray("auto")
