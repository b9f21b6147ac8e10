"""The decoding process: what goes wrong in it costs one picture."""

import io
import os
import signal

import pytest
from PIL import Image

from components.data import picture_process
from components.data.images import ImageLimits, NormalisedImage, Rejection, normalise
from components.data.picture_process import PictureProcess


def png(side: int = 32, colour: str = "red", format: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(sink, format)
    return sink.getvalue()


def ask(process: PictureProcess, data: bytes) -> NormalisedImage | Rejection:
    (answer,) = process.normalise_all([data])
    return answer


@pytest.fixture(scope="module")
def process():
    with PictureProcess(ImageLimits(), 60.0) as one:
        yield one


@pytest.mark.parametrize("data", [png(), png(format="JPEG"), png()[:50], b"", b"no picture", png(4)], ids=range(6))
def test_it_answers_as_the_function_does(process: PictureProcess, data: bytes) -> None:
    assert ask(process, data) == normalise(data, ImageLimits())


def test_a_batch_is_answered_in_order_whatever_is_in_it(process: PictureProcess) -> None:
    batch = [png(), b"", png(colour="blue"), png()[:70], png(300, "green"), b"x" * (33 * 2**20), png(4)] * 5
    assert list(process.normalise_all(batch)) == [normalise(data, ImageLimits()) for data in batch]
    assert list(process.normalise_all([])) == []


def test_a_batch_of_which_nobody_reads_the_rest_does_not_disturb_the_next(process: PictureProcess) -> None:
    answers = process.normalise_all([png(), png(), png()])
    next(answers)
    answers.close()
    assert ask(process, png(colour="blue")) == normalise(png(colour="blue"), ImageLimits())


def test_what_is_too_large_is_not_sent(process: PictureProcess) -> None:
    small = PictureProcess(ImageLimits(max_bytes=10), 60.0)
    found = ask(small, png())
    assert isinstance(found, Rejection)
    assert (found.reason, small._child) == ("too_many_bytes", None)


def test_a_decoder_that_hangs_costs_its_picture_and_is_ended() -> None:
    with PictureProcess(ImageLimits(), 60.0) as hanging:
        ask(hanging, png())  # the first one waits for Pillow to be loaded
        hanging.max_seconds = 0.5
        assert hanging._child is not None
        stopped = hanging._child.pid
        os.kill(stopped, signal.SIGSTOP)
        answers = hanging.normalise_all([png(), png(colour="blue")])
        found = next(answers)
        assert isinstance(found, Rejection)
        assert found.reason == "too_slow"
        with pytest.raises(ProcessLookupError):
            os.kill(stopped, 0)
        hanging.max_seconds = 60.0
        assert list(answers) == [normalise(png(colour="blue"), ImageLimits())]


def test_a_decoder_that_was_ended_from_outside_costs_nothing() -> None:
    with PictureProcess(ImageLimits(), 60.0) as process:
        ask(process, png())
        assert process._child is not None
        os.kill(process._child.pid, signal.SIGKILL)
        assert isinstance(ask(process, png()), NormalisedImage)


def test_a_picture_on_which_the_decoder_ends_twice_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    with PictureProcess(ImageLimits(), 60.0) as process:
        write = picture_process._write_frame

        def write_and_kill(pipe, head, data) -> None:
            assert process._child is not None
            process._child.kill()
            process._child.wait()
            write(pipe, head, data)

        monkeypatch.setattr(picture_process, "_write_frame", write_and_kill)
        answers = process.normalise_all([png(), png(colour="blue")])
        assert next(answers) == Rejection("crashed", "the decoder ended twice, with status -9")
        monkeypatch.undo()
        assert list(answers) == [normalise(png(colour="blue"), ImageLimits())]


def test_memory_has_a_limit() -> None:
    limits = ImageLimits(max_pixels=170_000_000)
    sink = io.BytesIO()
    Image.new("L", (13_000, 13_000)).save(sink, "PNG")
    with PictureProcess(limits, 60.0) as process:
        found = ask(process, sink.getvalue())
        assert isinstance(found, Rejection)
        assert found.reason == "out_of_memory"
        assert isinstance(ask(process, png()), NormalisedImage)


def test_a_new_process_takes_over_after_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_process, "MAX_PICTURES", 2)
    with PictureProcess(ImageLimits(), 60.0) as process:
        pids = []
        for _ in range(3):
            ask(process, png())
            assert process._child is not None
            pids.append(process._child.pid)
    assert pids[0] == pids[1] != pids[2]


def test_an_absurd_answer_is_not_believed() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb", 0) as pipe, os.fdopen(write, "wb", 0) as sink:
        sink.write(b'{"bytes": 99999999999}\n')
        with pytest.raises(EOFError):
            picture_process._Frames(pipe).read(None)
