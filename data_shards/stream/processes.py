"""Reader processes beside the stream's own: started anew rather than forked, and started again where one is lost.

A forked process would inherit event loops and locks in whatever state they were. A fresh one costs about half a second
and shares nothing. What it reads is a function of the place in the stream, so that a new one simply reads it again.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from data_shards.io.address import Location
from data_shards.io.errors import InputError, MachineFault, machine_faults
from data_shards.manifest import Manifest
from data_shards.stream import frames
from data_shards.stream.loader import Loaded, RankReading
from data_shards.stream.reader import Images
from data_shards.stream.reader_process import STOPPING_SIGNALS

_STARTS_FOR_ONE_BATCH = 3
_BUFFER_BYTES = 1 << 20
_END_SECONDS = 5.0
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from data_shards.stream.reader_process import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)


class ReaderProcess:
    """Loads batches like a `BatchLoader`, in a process that starts with the first batch.

    say: called with a line where the process was lost, or on what it waits for
    """

    def __init__(
        self, manifest: Manifest, reading: RankReading, location: Location, say: Callable[[str], None]
    ) -> None:
        self._setup = {"manifest": manifest.to_json(), "reading": asdict(reading), "location": asdict(location)}
        self._address, self._say = location.address, say
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._loading = threading.Lock()
        self._stopped = False
        self._owner = os.getpid()

    @property
    def pid(self) -> int | None:
        """Of the process; None where none is running."""
        return None if self._process is None else self._process.pid

    def load(self, epoch: int, start: int) -> Loaded:
        """As `BatchLoader.load`. A process that is lost meanwhile is replaced by another, which reads it again."""
        with self._loading:
            return self._load(epoch, start)

    def _load(self, epoch: int, start: int) -> Loaded:
        ended = ""
        for _ in range(_STARTS_FOR_ONE_BATCH):
            if ended:
                self._say(f"{self._address}: a reader process {ended}; started again at the same batch")
            try:
                if self._connection is None:
                    self._start()
                if self._stopped or self._connection is None:
                    raise frames.Lost
                frames.send(self._connection, [epoch, start])
                return self._answer(self._connection)
            except frames.Lost:
                ended = self._reap()
                if self._stopped:
                    raise
        raise MachineFault(
            f"{self._address}: a reader process {ended}, {_STARTS_FOR_ONE_BATCH} times in a row at the same batch; "
            "free some memory, or use fewer (data.workers)"
        )

    def close(self) -> None:
        """Ends the process for good, also while another thread waits in `load`, which then raises Lost."""
        if os.getpid() != self._owner:  # a fork shares the socket
            return
        self._stopped = True
        if (connection := self._connection) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with self._loading:
            self._reap()

    def _reap(self) -> str:
        """Waits for the end of the process; says how it ended."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        process, self._process = self._process, None
        if process is None:
            return "did not start"
        try:
            code = process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def _start(self) -> None:
        with machine_faults("reader process"):
            ours, theirs = socket.socketpair()
            with theirs:
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
                file = theirs.fileno()
                words = [sys.executable, "-c", _PROGRAM, str(file), str(os.getpid()), json.dumps(sys.path)]
                # Blocked signals stay blocked in what is started, until it can ignore them itself.
                before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING_SIGNALS)
                try:
                    self._process = subprocess.Popen(words, pass_fds=[file], stdin=subprocess.DEVNULL)
                except OSError:
                    ours.close()
                    raise
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._connection = ours
        frames.send(ours, self._setup)

    def _answer(self, connection: socket.socket) -> Loaded:
        while "waiting" in (header := frames.receive(connection)):
            self._say(header["waiting"])
        if "machine_fault" in header:
            raise MachineFault(header["machine_fault"])
        if "input_error" in header:
            raise InputError(header["input_error"])
        if "defect" in header:
            raise RuntimeError(f"in a reader process:\n{header['defect']}")
        faults = tuple(header["faults"])
        if header["shape"] is None:
            return Loaded(images=None, faults=faults)
        samples = np.empty(header["shape"][0], np.int64)
        pixels = np.empty(header["shape"], np.uint8)
        frames.receive_array(connection, samples)
        frames.receive_array(connection, pixels)
        if header["side_by_side"]:
            pixels = pixels.transpose(0, 3, 1, 2)
        return Loaded(images=Images(pixels=pixels, samples=samples, faults=faults), faults=faults)
