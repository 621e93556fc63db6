"""A real HTTP/1.1 server that keeps connections open and fails, in one way, for some seconds from some request on."""

import contextlib
import http.server
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HOW = ("503", "500", "429", "404", "reset", "refused", "hang", "slow", "truncated", "short", "page", "half index")
"""hang: accepts and never answers; slow: answers after the outage; truncated: fewer bytes than promised; short: half of
the bytes, which it calls all; page: a proxy's own page instead of the file. Beside these, "trickle" never fails, but
takes 2.4 seconds for each body."""


class FailingServer:
    """Serves a folder, or what another server gives, and counts the requests it failed.

    how: as in HOW; after: requests for shards and indexes that are answered before the outage; seconds: of the outage;
    only: beginning of the names of the shards and indexes that it is about
    """

    def __init__(self, behind: Path | str, how: str, *, after: int = 4, seconds: float = 3.0, only: str = "") -> None:
        self.behind, self.how, self.seconds, self.only = behind, how, seconds, only
        self.failed = self.connections = 0
        self._left, self._ends = after, float("inf")
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._server: http.server.ThreadingHTTPServer | None = None
        self._place = socket.socket()  # keeps the port while nobody listens there
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port = self._place.getsockname()[1]
        self.listen()
        self.address = f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Begins to serve at its port."""
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def failing(self, name: str) -> bool:
        """Whether this request fails."""
        if not name.endswith((".tar", ".json")) or name == "manifest.json" or not name.startswith(self.only):
            return False
        with self._lock:
            self._left -= 1
            if self._left == -1:
                self._ends = time.monotonic() + self.seconds
                if self.how == "refused":
                    threading.Thread(target=self._vanish, daemon=True).start()
            fails = self._left < 0 and time.monotonic() < self._ends
            self.failed += fails
            return fails

    def _vanish(self) -> None:
        self.stop()
        time.sleep(self.seconds)
        self.listen()

    def stop(self) -> None:
        """Refuses connections from now on."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def close(self) -> None:
        """Ends the server and all it holds."""
        self._over.set()
        self.stop()
        self._place.close()

    def wait(self, seconds: float) -> None:
        """Sleeps, but not beyond the end of the test."""
        self._over.wait(seconds)

    def content(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the true answer."""
        if isinstance(self.behind, Path):
            file = self.behind / path.rpartition("/")[2]
            return (200, {}, file.read_bytes()) if file.is_file() else (404, {}, b"")
        request = urllib.request.Request(self.behind + path, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FailingServer

    def setup(self) -> None:
        self.owner.connections += 1
        super().setup()

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        fails = self.owner.failing(name)
        if fails and self.owner.how in ("503", "500", "429", "404"):
            self._answer(int(self.owner.how), {}, b"not now")
            return
        if fails and self.owner.how in ("reset", "refused"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        if fails and self.owner.how == "hang":
            self.owner.wait(120)
            self.close_connection = True
            return
        if fails and self.owner.how == "slow":
            self.owner.wait(self.owner.seconds)
        status, headers, body = self.owner.content(self.path, dict(self.headers))
        if fails and self.owner.how == "page":
            body = b"<html>please log in</html>"
        if fails and (self.owner.how == "short" or (self.owner.how == "half index" and name.endswith(".json"))):
            body = body[: len(body) // 2]
        self._answer(status, headers, body, part=fails and self.owner.how == "truncated")

    do_HEAD = do_GET

    def _answer(self, status: int, headers: dict[str, str], body: bytes, *, part: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() in ("content-type", "etag", "last-modified", "x-amz-request-id"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and self.owner.how == "trickle" and body:
            for start in range(0, len(body), step := -(-len(body) // 6)):
                self.owner.wait(0.4)
                self.wfile.write(body[start : start + step])
        elif self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if part else body)
        if part:
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, *words: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def failing(behind: Path | str, how: str, **options) -> Iterator[FailingServer]:
    """A server for the block."""
    server = FailingServer(behind, how, **options)
    try:
        yield server
    finally:
        server.close()
