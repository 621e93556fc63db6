"""A process that reads batches for a stream. It imports no torch, so that it starts in a fraction of a second.

It ignores the signals that stop a job: the stream's process decides what happens then, and this one ends with it.
"""

import contextlib
import os
import select
import signal
import socket
import threading
import traceback
from typing import Any

import numpy as np

from data_shards.io.address import Address, Location
from data_shards.io.errors import InputError, MachineFault
from data_shards.io.patience import Patience
from data_shards.manifest import Manifest
from data_shards.storage import shard_files
from data_shards.stream import frames
from data_shards.stream.loader import BatchLoader, RankReading
from data_shards.stream.reader import Reader

STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(file: int, parent: int) -> None:
    """Serves the stream at the other end of the socket `file` until process `parent` ends or closes it."""
    for number in STOPPING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=file)
    threading.Thread(target=_end_with, args=(connection, parent), daemon=True).start()
    with contextlib.suppress(frames.Lost):
        _serve(connection)
    os._exit(0)


def _end_with(connection: socket.socket, parent: int) -> None:
    """Ends this process when its parent has ended, also in the middle of a long wait for a server.

    The socket shows it at once; where a third process has inherited the other end, the parent's number does.
    """
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLHUP)
    while not poll.poll(1000) and os.getppid() == parent:
        pass
    os._exit(0)


def _serve(connection: socket.socket) -> None:
    setup = frames.receive(connection)
    loader: BatchLoader | None = None
    while True:
        epoch, start = frames.receive(connection)
        try:
            loader = loader or _loader(setup, connection)
            loaded = loader.load(epoch, start)
        except frames.Lost:
            raise
        except MachineFault as error:
            frames.send(connection, {"machine_fault": str(error)})
        except InputError as error:
            frames.send(connection, {"input_error": str(error)})
        except Exception:
            frames.send(connection, {"defect": traceback.format_exc()})
        else:
            if loaded.images is None:
                frames.send(connection, {"faults": loaded.faults, "shape": None})
                continue
            pixels = loaded.images.pixels  # (B, C, H, W); decoders put the colours of a pixel side by side
            side_by_side = not pixels.flags.c_contiguous
            sent = pixels.transpose(0, 2, 3, 1) if side_by_side else pixels
            header = {"faults": loaded.faults, "shape": sent.shape, "side_by_side": side_by_side}
            frames.send(connection, header, [loaded.images.samples, np.ascontiguousarray(sent)])


def _loader(setup: dict[str, Any], connection: socket.socket) -> BatchLoader:
    manifest, reading = Manifest.from_json(setup["manifest"]), RankReading(**setup["reading"])
    location = Location(**setup["location"])
    patience = Patience(location.patience_seconds, lambda line: frames.send(connection, {"waiting": line}))
    files = shard_files(Address(location), manifest, split=reading.split, patience=patience)
    return BatchLoader(manifest, Reader(manifest, reading.split, files), reading)
