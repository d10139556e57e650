"""A proxy in front of an S3 server that answers some requests as a store in trouble does.

Requests are passed on with the Host header they came with, because their signature covers it. Which
request meets which fault follows from the seed and the request's number alone.
"""

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ANSWERS = {
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "internal": (500, "InternalError", "We encountered an internal error. Please try again."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "refused": (403, "AccessDenied", "Access Denied."),
}
# `reset` comes before the request takes effect, `lost` after it, `cut` in the middle of the answer.
PASSING = ("slow_down", "internal", "reset", "lost", "cut", "silent")
_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "expect")


@dataclass
class Trouble:
    """What the proxy does to requests, and how often it did it.

    A share of the requests meets one of `kinds`; from request number `last_after` on all meet
    `last`. A share `slow` of the other answers comes in `pieces`, `pause` seconds apart.
    """

    seed: int = 0
    share: float = 0.0
    kinds: tuple[str, ...] = PASSING
    last: str = "expired"
    last_after: int | None = None
    slow: float = 0.0
    pieces: int = 5
    pause: float = 0.05
    met: Counter[str] = field(default_factory=Counter)
    number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> str:
        """What the next request meets; empty if it is passed on in peace."""
        with self._lock:
            number, self.number = self.number, self.number + 1
            kind = self._kind(number)
            self.met[kind] += 1
            return kind

    def _kind(self, number: int) -> str:
        if self.last_after is not None and number >= self.last_after:
            return self.last
        drawn = random.Random(f"{self.seed}/{number}")
        if drawn.random() < self.share:
            return drawn.choice(self.kinds)
        return "slow" if drawn.random() < self.slow else ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str, trouble: Trouble) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.trouble = urlsplit(upstream).netloc, trouble

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.server.trouble.next()
        if kind in ANSWERS:
            self._refuse(*ANSWERS[kind])
        elif kind == "reset":
            self._hang_up()
        elif kind == "silent":
            self._wait()
        else:
            self._pass_on(body, kind)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def _refuse(self, status: int, code: str, message: str) -> None:
        content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self._send(status, [("Content-Type", "application/xml")], content, "")

    def _hang_up(self) -> None:
        # Closed with a linger of 0 s, a connection is reset instead of ended.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _wait(self) -> None:
        """No answer until the client gives up."""
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        self.close_connection = True

    def _pass_on(self, body: bytes, kind: str) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        with contextlib.closing(upstream):
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    upstream.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
        if kind == "lost":
            self._hang_up()
            return
        size = answer.getheader("Content-Length") if self.command == "HEAD" else None
        headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in _HOP]
        self._send(answer.status, headers, content, kind, size)

    def _send(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        kind: str,
        size: str | None = None,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", size or str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "cut":
            self.wfile.write(content[: len(content) // 2])
            self._hang_up()
        elif kind == "slow":
            trouble = self.server.trouble
            step = max(1, -(-len(content) // trouble.pieces))
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                time.sleep(trouble.pause)
        else:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def proxy(upstream: str, trouble: Trouble) -> Iterator[str]:
    """A running proxy in front of a server; its URL. It ends with the block."""
    server = _Server(upstream, trouble)
    thread = threading.Thread(target=server.serve_forever, name="faulty-proxy", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
