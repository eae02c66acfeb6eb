"""A real HTTP server on loopback that serves one content and misbehaves by a script, one step a request."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Step = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Runs the next step of the script; when it is used up, serves properly."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        step = self.server.script.pop(0) if self.server.script else well
        self.close_connection = True
        with suppress(BrokenPipeError, ConnectionResetError):
            step(self)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def start(self) -> int:
        """First byte that the request asks for."""
        asked = self.headers.get("Range", "")
        return int(asked[len("bytes=") :].rstrip("-")) if asked else 0

    def answer(self, code: int, body: bytes, length: int | None = None, **headers: str) -> None:
        """Send it; `length` is what the header says where it is not the truth, -1 for no such header."""
        self.send_response(code)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def cut(self) -> None:
        """Break the connection off."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    """Serves `content` under every path, or what `pages` has for it."""

    daemon_threads = True

    def __init__(self, content: bytes, etag: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = content, etag
        self.pages: dict[str, bytes] = {}
        self.script: list[Step] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/file.bin"


@contextmanager
def serving(content: bytes, etag: str = '"one"') -> Iterator[Server]:
    """A running server."""
    with Server(content, etag) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def well(handler: Handler) -> None:
    """As HTTP wants it: 206 for a range of the same file, else 200."""
    server = handler.server
    content = server.pages.get(handler.path, server.content)
    headers = {"ETag": server.etag} if server.etag else {}
    start = handler.start()
    if start and handler.headers.get("If-Range", server.etag) == server.etag:
        if start >= len(content):
            handler.answer(416, b"", Content_Range=f"bytes */{len(content)}")
            return
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.answer(206, content[start:], Content_Range=span, **headers)
    else:
        handler.answer(200, content, **headers)


def drop(share: float) -> Step:
    """Break off after that share of what was asked for."""

    def step(handler: Handler) -> None:
        content, start = handler.server.content, handler.start()
        rest = content[start:]
        headers = {"ETag": handler.server.etag} if handler.server.etag else {}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.answer(206 if start else 200, rest[: int(share * len(rest))], len(rest), **headers)
        handler.cut()

    return step


def stall(handler: Handler) -> None:
    """Send half and then nothing."""
    content, start = handler.server.content, handler.start()
    rest = content[start:]
    headers = {"ETag": handler.server.etag}
    if start:
        headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.answer(206 if start else 200, rest[: len(rest) // 2], len(rest), **headers)
    handler.wfile.flush()
    time.sleep(1.0)


def status(code: int, **headers: str) -> Step:
    """Answer so, with a short body."""
    return lambda handler: handler.answer(code, b"no", **headers)


def ignore_range(handler: Handler) -> None:
    """200 and the whole, whatever was asked for."""
    handler.answer(200, handler.server.content, ETag=handler.server.etag)


def wrong_range(handler: Handler) -> None:
    """206 with the file's beginning."""
    content = handler.server.content
    handler.answer(206, content, Content_Range=f"bytes 0-{len(content) - 1}/{len(content)}")


def piece(handler: Handler) -> None:
    """206 as asked for, but only the next thousand bytes, and no word that this is less."""
    content, start = handler.server.content, handler.start()
    span = f"bytes {start}-{start + 999}/{len(content)}"
    handler.answer(206, content[start : start + 1000], Content_Range=span, ETag=handler.server.etag)


def wrong_start(handler: Handler) -> None:
    """206 from a few bytes after the one asked for."""
    content, start = handler.server.content, handler.start() + 5
    handler.answer(206, content[start:], Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")


def says(length: int) -> Step:
    """The whole file, but another length in the header."""
    return lambda handler: handler.answer(200, handler.server.content, length, ETag=handler.server.etag)


def page(handler: Handler) -> None:
    """An error page with status 200 that does not say that it is one."""
    handler.answer(200, b"\n<!DOCTYPE html><html>Sorry</html>", Content_Type="application/zip")


def redirect(path: str) -> Step:
    """Somewhere else on the same server."""
    return lambda handler: handler.answer(302, b"", Location=path)


def change(content: bytes, etag: str) -> Callable[[Step], Step]:
    """The file becomes another one, then the step is taken."""

    def wrap(step: Step) -> Step:
        def changed(handler: Handler) -> None:
            handler.server.content, handler.server.etag = content, etag
            step(handler)

        return changed

    return wrap


def endless(handler: Handler) -> None:
    """A body without an announced length that does not end by itself."""
    handler.answer(200, b"", -1, ETag=handler.server.etag)
    for _ in range(10_000):
        handler.wfile.write(bytes(1 << 16))


def says_of_itself(code: int, reason: str) -> Step:
    """That status with words of the server's own."""

    def step(handler: Handler) -> None:
        handler.wfile.write(f"HTTP/1.1 {code} {reason}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    return step


def raw_length(length: str) -> Step:
    """The whole file, with that text as its length."""

    def step(handler: Handler) -> None:
        head = f'HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: "one"\r\nConnection: close\r\n\r\n'
        handler.wfile.write(head.encode("latin-1") + handler.server.content)

    return step
