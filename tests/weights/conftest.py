"""A publisher on this machine that serves one small file, well or badly, and a table of weights that points to it."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from medtool import weights
from medtool.weights import delivery, download, published

CONTENT = random.Random(905).randbytes(300_000)


@dataclass
class Publisher:
    """What the server does with a request; tests change it while it runs."""

    content: bytes = CONTENT
    etag: str = '"first"'
    does_ranges: bool = True
    drop_after: int | None = None
    """Close the connection after this many bytes of a body."""
    resets: bool = False
    """Close with a reset, which may cost bytes that are on their way."""
    claims_bytes: int | None = None
    """A Content-Length other than the truth."""
    says_length: bool = True
    content_type: str = "application/octet-stream"
    answers: list[int] = field(default_factory=list)
    """Status codes to answer the next requests with, instead of the file."""
    shifts_ranges: bool = False
    """Answer a range with another one."""
    redirect_to: str = ""
    address: str = ""
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of each request so far."""
    on_request: Callable[[], None] | None = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    publisher: Publisher

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        publisher = self.publisher
        wanted = self.headers.get("Range")
        publisher.ranges.append(wanted)
        self.close_connection = True
        if publisher.on_request:
            publisher.on_request()
        if publisher.answers:
            self._end(publisher.answers.pop(0))
            return
        if publisher.redirect_to and self.path != "/moved":
            self.send_response(302)
            self.send_header("Location", publisher.redirect_to)
            self.end_headers()
            return
        start = 0
        if wanted and publisher.does_ranges and self.headers.get("If-Range", publisher.etag) == publisher.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(publisher.content):
                self._end(416)
                return
            total = publisher.claims_bytes or len(publisher.content)
            first = start + 1 if publisher.shifts_ranges else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        else:
            self.send_response(200)
        body = publisher.content[start:]
        if publisher.says_length:
            self.send_header("Content-Length", str((publisher.claims_bytes or len(publisher.content)) - start))
        self.send_header("Content-Type", publisher.content_type)
        self.send_header("ETag", publisher.etag)
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body[: publisher.drop_after])
        if publisher.resets and publisher.drop_after is not None and publisher.drop_after < len(body):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def _end(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        with contextlib.suppress(OSError):
            super().shutdown_request(request)


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """Return a running publisher; the machine's proxies, if any, are out of the way."""
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    publisher = Publisher()
    handler = type("Handler", (_Handler,), {"publisher": publisher})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    publisher.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield publisher
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def info(publisher: Publisher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> weights.WeightsInfo:
    """Return the only weights that medtool knows in this test; they go to ``tmp_path / "weights"``."""
    info = weights.WeightsInfo(
        name="tiny",
        title="Tiny",
        url=f"{publisher.address}/tiny_0001.pth",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
        file_name="tiny_0001.pth",
        licence="CC0-1.0",
        citation="nobody",
    )
    monkeypatch.setattr(published, "KNOWN", (info,))
    monkeypatch.setenv("MEDTOOL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setattr(delivery, "POLL_S", 0.01)
    return info
