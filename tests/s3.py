"""An S3 endpoint over real HTTP, and a proxy before it that breaks requests in the ways in which networks do."""

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import s3fs

BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%s"
)
BUSY_BODY = b"<Error><Code>ServiceUnavailable</Code><Message>injected</Message></Error>"


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's server on a port of this process; its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request helps nobody
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def environment_for(endpoint: str) -> dict[str, str]:
    """What a user would set to work on this endpoint."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def file_system(endpoint: str) -> s3fs.S3FileSystem:
    """The store at an address as fsspec sees it; listings are not cached, because others write."""
    keys = environment_for(endpoint)
    return s3fs.S3FileSystem(
        endpoint_url=endpoint,
        key=keys["AWS_ACCESS_KEY_ID"],
        secret=keys["AWS_SECRET_ACCESS_KEY"],
        use_listings_cache=False,
    )


def use_environment(values: dict[str, str]) -> None:
    """Set the environment of this process, so that file systems opened from now on follow it."""
    os.environ.update(values)
    s3fs.S3FileSystem.clear_instance_cache()


@dataclass(frozen=True)
class Request:
    """One HTTP request as the proxy sees it: its number from 1, method, path with query, and all of its bytes."""

    number: int
    method: str
    path: str
    data: bytes


@dataclass
class Fault:
    """What is done to requests of a method whose path holds ``where``, after ``skip`` of them, ``times`` times.

    ``kind``: ``busy`` (503), ``reset`` before the server hears of it, ``reset_after`` the server has done it, ``stall``
    (half of the answer, then nothing until the client leaves), ``slow`` (the answer in pieces over ``seconds``),
    ``truncated`` (the connection ends in the middle of the body), ``cut`` (the request's body ends in its middle).
    """

    kind: str
    method: str = ""
    where: str = ""
    times: int = 1
    seconds: float = 0.0

    def takes(self, request: Request) -> bool:
        return self.times > 0 and request.method.startswith(self.method) and self.where in request.path


class FaultyProxy:
    """Stands between clients and a server on 127.0.0.1; ``faults`` are used up as requests come.

    ``watch`` is called with every request before it is forwarded; a kind of fault that it returns is done.
    """

    def __init__(self, server: str) -> None:
        host, port = server.removeprefix("http://").split(":")
        self.server = (host if host != "0.0.0.0" else "127.0.0.1", int(port))
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.watch: Callable[[Request], str | None] = lambda _: None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            data = _read_request(client)
            if data is None:
                return
            method, path = data.split(b" ", 2)[:2]
            with self._lock:
                request = Request(len(self.requests) + 1, method.decode(), path.decode(), data)
                self.requests.append(request)
                fault = next((fault for fault in self.faults if fault.takes(request)), None)
                if fault:
                    fault.times -= 1
            kind = self.watch(request) or (fault.kind if fault else None)
            self._answer(client, request, kind, fault.seconds if fault else 0.0)

    def _answer(self, client: socket.socket, request: Request, kind: str | None, seconds: float) -> None:
        if kind == "busy":
            client.sendall(BUSY % (len(BUSY_BODY), b"" if request.method == "HEAD" else BUSY_BODY))
            return
        if kind == "reset":
            _reset(client)
            return
        if kind == "cut":
            self._forward(request.data[: (len(request.data) + request.data.index(b"\r\n\r\n") + 4) // 2], is_cut=True)
            _reset(client)
            return
        answer = self._forward(request.data)
        head, _, body = answer.partition(b"\r\n\r\n")
        if kind == "reset_after":
            _reset(client)
        elif kind == "stall":
            client.sendall(head + b"\r\n\r\n" + body[: len(body) // 2])
            while client.recv(2**16):
                pass
        elif kind == "truncated":
            client.sendall(head + b"\r\n\r\n" + body[: len(body) // 2])
        elif kind == "slow":
            client.sendall(head + b"\r\n\r\n")
            for start in range(0, len(body), max(1, len(body) // 5)):
                time.sleep(seconds / 5)
                client.sendall(body[start : start + max(1, len(body) // 5)])
        else:
            client.sendall(answer)

    def _forward(self, data: bytes, *, is_cut: bool = False) -> bytes:
        """The server's answer; asked to close, so that its end is the end of the connection."""
        head, _, body = data.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"expect:"))]
        with socket.create_connection(self.server) as server:
            server.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body)
            if is_cut:
                return b""
            answer = b"".join(iter(lambda: server.recv(2**16), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return b"\r\n".join([*_without(head, b"connection:"), b"Connection: close"]) + b"\r\n\r\n" + body


def _without(head: bytes, name: bytes) -> list[bytes]:
    return [line for line in head.split(b"\r\n") if not line.lower().startswith(name)]


def _reset(client: socket.socket) -> None:
    """End the connection with RST rather than FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _read_request(client: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(2**16)
        if not piece:
            return None
        data += piece
    head = data.partition(b"\r\n\r\n")[0].lower()
    assert b"transfer-encoding: chunked" not in head, "the proxy reads requests with a Content-Length only"
    if b"expect: 100-continue" in head:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
    missing = length - (len(data) - len(head) - 4)
    pieces = [data]
    while missing > 0:
        pieces.append(client.recv(2**20))
        if not pieces[-1]:
            return None
        missing -= len(pieces[-1])
    return b"".join(pieces)
