"""A MASTER_ADDR that leads nowhere, or not to rank 0, ends each process in one line after a time that was told."""

import contextlib
import errno
import re
import socket
import threading

import pytest
from support.running import free_port

from data_shards.io.errors import InputError
from trainer.peers import store
from trainer.peers.launcher import MasterAddress, PlaceInJob

_OPEN: list[socket.socket] = []  # to the end: torch prints where one is closed on it


def address(host: str) -> MasterAddress:
    return MasterAddress(host=host, port=int(free_port()), of_launcher=False, attempt="0")


def test_a_machine_that_does_not_answer_is_given_up_sooner_than_a_rank_0_that_has_not_come(monkeypatch, capfd):
    def unreachable(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr(store, "_UNREACHABLE_SECONDS", 0.5)
    monkeypatch.setattr(store, "_SECONDS_UNTIL_NOTICE", 0.1)
    with pytest.raises(InputError, match=r"MASTER_ADDR: no machine answers at 203\.0\.113\.9:\d+ for 0 s \(No route"):
        store.open_store(PlaceInJob(rank=1, world_size=2), address("203.0.113.9"), 300.0)
    assert re.fullmatch(r"rank 1 of 2 waits for rank 0 at \S+, at most 0 s\n", capfd.readouterr().err)


def test_rank_0_says_at_once_that_the_address_is_not_its_own_and_then_ends(monkeypatch, capfd):
    monkeypatch.setattr(store, "_HANDSHAKE_SECONDS", 1.0)
    with pytest.raises(InputError, match=r"MASTER_ADDR: 203\.0\.113\.9 is no address of .*, on which rank 0 runs"):
        store.open_store(PlaceInJob(rank=0, world_size=2), address("203.0.113.9"), 300.0)
    first = capfd.readouterr().err.splitlines()[0]
    assert re.match(
        r"MASTER_ADDR 203\.0\.113\.9 is no address of \S+, on which rank 0 runs; it is tried for 1 s", first
    )


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10, b""])
def test_a_program_that_answers_otherwise_or_not_at_all_is_told_without_torchs_page(says, monkeypatch, capfd):
    monkeypatch.setattr(store, "_HANDSHAKE_SECONDS", 1.0)
    monkeypatch.setattr(store, "_SPARE_SECONDS", 1.0)

    def serve() -> None:
        with contextlib.suppress(OSError):  # closed below
            while True:
                _OPEN.append(server.accept()[0])
                _OPEN[-1].sendall(says)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        place = MasterAddress(host="127.0.0.1", port=server.getsockname()[1], of_launcher=False, attempt="0")
        with pytest.raises(InputError, match="MASTER_PORT: not rank 0 but another program answers at"):
            store.open_store(PlaceInJob(rank=1, world_size=2), place, 300.0)
    assert "frame #" not in capfd.readouterr().err
