"""Pictures normalised in a process of their own, which can hang, crash or run out of memory without harm.

What belongs here: the process, its limits and the two ends of its pipe. What does not: what is done to a picture
(``images``).

What goes over the pipe: a frame is a line of JSON with ``bytes``, then as many bytes. Nothing is pickled: a process
that a hostile picture has taken over can answer with wrong pixels, and with nothing worse.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any, Protocol

from .images import ImageLimits, NormalisedImage, Rejection, normalise

MAX_MEMORY_BYTES = 768 * 2**20  # of the process; a picture of 50 million pixels takes about 500 MiB
MAX_PICTURES = 20_000  # then a new process takes over, so that what libraries leak cannot add up
MAX_START_SECONDS = 120.0
MAX_ANSWER_BYTES = 2**30


class Normaliser(Protocol):
    """Normalises one picture at a time; between :meth:`submit` and :meth:`result` the caller may do other work."""

    def submit(self, data: bytes) -> None:
        """Hand over a picture; the last one's result must have been taken."""
        ...

    def result(self) -> NormalisedImage | Rejection:
        """What became of the picture that was handed over."""
        ...


class LocalNormaliser:
    """Normalises in this process: no time limit, for pictures that are trusted and for tests."""

    def __init__(self, limits: ImageLimits) -> None:
        self.limits = limits
        self._data = b""

    def submit(self, data: bytes) -> None:
        """Keep the picture until :meth:`result`."""
        self._data = data

    def result(self) -> NormalisedImage | Rejection:
        """Normalise it now."""
        return normalise(self._data, self.limits)


class PictureProcess:
    """Normalises in a child process with limits of time and memory (a context manager, which ends the child).

    Reasons beside those of :func:`components.data.images.normalise`: ``too_slow`` and ``crashed``. Both cost the
    picture alone: the next one finds a new child.
    """

    def __init__(self, limits: ImageLimits, max_seconds: float) -> None:
        self.limits, self.max_seconds = limits, max_seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._num_pictures = 0
        self._data = b""

    def __enter__(self) -> PictureProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def submit(self, data: bytes) -> None:
        """Hand a picture to the child, which begins at once."""
        self._data = data
        if len(data) > self.limits.max_bytes:
            return
        if self._child is None or self._num_pictures >= MAX_PICTURES or self._child.poll() is not None:
            self.close()
            self._start()
        self._num_pictures += 1
        with suppress(BrokenPipeError):  # result() sees that the child has ended
            _write_frame(self._pipe("stdin"), {}, data)

    def result(self) -> NormalisedImage | Rejection:
        """Wait for the child's answer, at most ``max_seconds``.

        A picture on which the child ends is tried once more, in case the child was ended for another reason.
        """
        if len(self._data) > self.limits.max_bytes:
            return normalise(self._data, self.limits)  # decided by its size
        ended = ""
        for _ in range(2):
            try:
                if self._child is None:
                    self.submit(self._data)
                head, stored = _read_frame(self._pipe("stdout"), time.monotonic() + self.max_seconds)
                return _answer_of(head, stored or self._data)
            except TimeoutError:
                self.close()
                return Rejection("too_slow", f"decoding took more than max_picture_seconds {self.max_seconds:g}")
            except (EOFError, BrokenPipeError):
                ended = f"the decoder ended twice, with status {self._child.wait() if self._child else None}"
                self.close()
        return Rejection("crashed", ended)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
        self._child, self._num_pictures = None, 0

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        environment["OPENBLAS_NUM_THREADS"] = "1"
        limits = self.limits.model_dump_json(include=set(ImageLimits.model_fields))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "components.data.picture_process", limits, str(self.max_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
        )
        try:
            _read_frame(self._pipe("stdout"), time.monotonic() + MAX_START_SECONDS)
        except (EOFError, TimeoutError) as error:
            self.close()
            raise RuntimeError("the decoding process does not start; its reason stands above") from error

    def _pipe(self, name: str) -> IO[bytes]:
        pipe = getattr(self._child, name)
        assert pipe is not None
        return pipe


def _answer_of(head: Mapping[str, Any], stored: bytes) -> NormalisedImage | Rejection:
    if "reason" in head:
        return Rejection(str(head["reason"]), str(head["detail"]))
    texts = {name: str(head[name]) for name in ("sha256", "source_sha256", "perceptual_hash")}
    colours = bytes.fromhex(head["colours"])
    return NormalisedImage(stored, int(head["width"]), int(head["height"]), colours=colours, **texts)


def _write_frame(pipe: IO[bytes], head: Mapping[str, Any], data: bytes) -> None:
    frame = memoryview(json.dumps({**head, "bytes": len(data)}).encode() + b"\n" + data)
    while frame:
        frame = frame[pipe.write(frame) :]


def _read_frame(pipe: IO[bytes], deadline: float | None) -> tuple[dict[str, Any], bytes]:
    """A frame's head and bytes; EOFError where the pipe ends before it, TimeoutError past the deadline."""
    found = bytearray()
    while b"\n" not in found:
        found += _read_some(pipe, 2**16, deadline)
    line, _, rest = found.partition(b"\n")
    head = json.loads(line)
    num_bytes = head["bytes"]
    if not 0 <= num_bytes <= MAX_ANSWER_BYTES:
        raise EOFError("an answer of a size that cannot be")
    while len(rest) < num_bytes:
        rest += _read_some(pipe, min(2**20, num_bytes - len(rest)), deadline)
    return head, bytes(rest)


def _read_some(pipe: IO[bytes], num_bytes: int, deadline: float | None) -> bytes:
    if deadline is not None and not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        raise TimeoutError
    data = os.read(pipe.fileno(), num_bytes)
    if not data:
        raise EOFError
    return data


def _serve(limits: ImageLimits, max_seconds: float) -> None:
    """The child: answer frame by frame until the parent closes the pipe."""
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # what a library prints must not stand between the frames
    _write_frame(sink, {"ready": True}, b"")
    while True:
        try:
            _, data = _read_frame(source, None)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, max_seconds + 5)  # ends a child whose parent was killed while it hung
        result = normalise(data, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if isinstance(result, Rejection):
            _write_frame(sink, asdict(result), b"")
            continue
        head = {**asdict(result), "colours": result.colours.hex()}
        stored = head.pop("data")
        _write_frame(sink, head, b"" if stored is data or stored == data else stored)


if __name__ == "__main__":
    _serve(ImageLimits.model_validate_json(sys.argv[1]), float(sys.argv[2]))
