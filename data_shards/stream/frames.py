"""Messages between a stream and its reader processes: a JSON header, then the bytes of arrays, through a socket."""

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = struct.Struct("<Q")  # of the JSON, in bytes


class Lost(Exception):
    """The process at the other end has ended."""


def send(connection: socket.socket, header: Any, arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Sends a header and the bytes of contiguous arrays. Raises Lost."""
    text = json.dumps(header).encode()
    try:
        connection.sendall(_LENGTH.pack(len(text)) + text)
        for array in arrays:
            connection.sendall(array.reshape(-1).view(np.uint8).data)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Lost from error


def receive(connection: socket.socket) -> Any:
    """The next header. Raises Lost."""
    length = bytearray(_LENGTH.size)
    _fill(connection, memoryview(length))
    text = bytearray(_LENGTH.unpack(length)[0])
    _fill(connection, memoryview(text))
    return json.loads(text)


def receive_array(connection: socket.socket, array: NDArray[Any]) -> None:
    """Fills a contiguous array with the bytes that follow a header. Raises Lost."""
    _fill(connection, array.reshape(-1).view(np.uint8).data)


def _fill(connection: socket.socket, memory: memoryview) -> None:
    done = 0
    while done < len(memory):
        try:
            count = connection.recv_into(memory[done:], 0, socket.MSG_WAITALL)
        except ConnectionResetError as error:
            raise Lost from error
        if count == 0:
            raise Lost
        done += count
