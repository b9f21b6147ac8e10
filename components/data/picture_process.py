"""Pictures normalised in a process of their own, which can hang, crash or run out of memory without harm.

What belongs here: the process, its limits and the two ends of its pipe. What does not: what is done to a picture
(``images``).

What goes over the pipe: a frame is a line of JSON with ``bytes``, then as many bytes. Nothing is pickled: a process
that a hostile picture has taken over can answer with wrong pixels, and with nothing worse.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any, Protocol

from .images import ImageLimits, NormalisedImage, Rejection, normalise

MAX_MEMORY_BYTES = 768 * 2**20  # of the process; a picture of 50 million pixels takes about 500 MiB
MAX_PICTURES = 20_000  # then a new process takes over, so that what libraries leak cannot add up
MAX_START_SECONDS = 120.0
MAX_ANSWER_BYTES = 2**30


class Normaliser(Protocol):
    """Normalises pictures, a batch at a time."""

    def normalise_all(self, pictures: Sequence[bytes]) -> Iterator[NormalisedImage | Rejection]:
        """What becomes of each encoded picture, in order."""
        ...


class LocalNormaliser:
    """Normalises in this process: no time limit, for pictures that are trusted and for tests."""

    def __init__(self, limits: ImageLimits) -> None:
        self.limits = limits

    def normalise_all(self, pictures: Sequence[bytes]) -> Iterator[NormalisedImage | Rejection]:
        """Normalise one after the other."""
        return (normalise(data, self.limits) for data in pictures)


class PictureProcess:
    """Normalises in a child process with limits of time and memory (a context manager, which ends the child).

    Reasons beside those of :func:`components.data.images.normalise`: ``too_slow`` and ``crashed``. Both cost the
    picture alone: the next one finds a new child.
    """

    def __init__(self, limits: ImageLimits, max_seconds: float) -> None:
        self.limits, self.max_seconds = limits, max_seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._answers: _Frames | None = None
        self._num_pictures = 0

    def __enter__(self) -> PictureProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def normalise_all(self, pictures: Sequence[bytes]) -> Iterator[NormalisedImage | Rejection]:
        """What becomes of each picture, in order; each has ``max_seconds``.

        The child gets the batch whole before it answers, so neither side waits for the other between pictures. A
        picture on which the child ends is tried once more, in case the child was ended for another reason.
        """
        done = num_tries = 0
        try:
            while done < len(pictures):
                self._send([data for data in pictures[done:] if self._fits(data)])
                for data in pictures[done:]:
                    answer = self._answer(data, is_last_try=num_tries > 0)
                    if answer is None:
                        num_tries += 1
                        break
                    done, num_tries = done + 1, 0
                    yield answer
                    if self._child is None and done < len(pictures) and any(map(self._fits, pictures[done:])):
                        break
        finally:
            if done < len(pictures):  # nobody will read the other answers
                self.close()

    def _fits(self, data: bytes) -> bool:
        return len(data) <= self.limits.max_bytes

    def _answer(self, data: bytes, *, is_last_try: bool) -> NormalisedImage | Rejection | None:
        """The child's answer to the next picture; None where the picture must be sent once more."""
        if not self._fits(data):
            return normalise(data, self.limits)  # decided by its size
        try:
            assert self._answers is not None
            head, stored = self._answers.read(time.monotonic() + self.max_seconds)
            return _answer_of(head, stored or data)
        except TimeoutError:
            self.close()
            return Rejection("too_slow", f"decoding took more than max_picture_seconds {self.max_seconds:g}")
        except EOFError:
            status = self._child.wait() if self._child else None
            self.close()
            return Rejection("crashed", f"the decoder ended twice, with status {status}") if is_last_try else None

    def _send(self, pictures: Sequence[bytes]) -> None:
        """Hand a batch to the child, a new one where there is none."""
        if not pictures:
            return
        if self._child is None or self._num_pictures >= MAX_PICTURES or self._child.poll() is not None:
            self.close()
            self._start()
        self._num_pictures += len(pictures)
        with suppress(BrokenPipeError):  # its answer shows that the child has ended
            _write_frame(self._pipe("stdin"), {"sizes": list(map(len, pictures))}, b"".join(pictures))

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
        self._child, self._answers, self._num_pictures = None, None, 0

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
        self._answers = _Frames(self._pipe("stdout"))
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # on Linux; answers then wait in the pipe, not the child for their reader
            with suppress(OSError):
                fcntl.fcntl(self._pipe("stdout"), fcntl.F_SETPIPE_SZ, 2**20)
        try:
            self._answers.read(time.monotonic() + MAX_START_SECONDS)
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


class _Frames:
    """Reads frames from a pipe; what has come of the next one already is kept for it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._ready = pipe, bytearray()

    def read(self, deadline: float | None) -> tuple[dict[str, Any], bytes]:
        """A frame's head and bytes; EOFError where the pipe ends before it, TimeoutError past the deadline."""
        while (end := self._ready.find(b"\n")) < 0:
            self._ready += _read_some(self._pipe, 2**16, deadline)
        head = json.loads(self._ready[:end])
        del self._ready[: end + 1]
        num_bytes = head["bytes"]
        if not 0 <= num_bytes <= MAX_ANSWER_BYTES:
            raise EOFError("a frame of a size that cannot be")
        while len(self._ready) < num_bytes:
            self._ready += _read_some(self._pipe, 2**20, deadline)
        data = bytes(self._ready[:num_bytes])
        del self._ready[:num_bytes]
        return head, data


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
    frames, sink = _Frames(os.fdopen(os.dup(0), "rb", 0)), os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # what a library prints must not stand between the frames
    _write_frame(sink, {"ready": True}, b"")
    while True:
        try:
            head, batch = frames.read(None)
        except EOFError:
            return
        start = 0
        for num_bytes in head["sizes"]:
            _answer_one(sink, batch[start : start + num_bytes], limits, max_seconds)
            start += num_bytes


def _answer_one(sink: IO[bytes], data: bytes, limits: ImageLimits, max_seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, max_seconds + 5)  # ends a child whose parent was killed while it hung
    result = normalise(data, limits)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if isinstance(result, Rejection):
        _write_frame(sink, asdict(result), b"")
        return
    head = {**asdict(result), "colours": result.colours.hex()}
    stored = head.pop("data")
    _write_frame(sink, head, b"" if stored == data else stored)


if __name__ == "__main__":
    _serve(ImageLimits.model_validate_json(sys.argv[1]), float(sys.argv[2]))
