"""The worker is run with captioners and a scorer of known behaviour: what they say can be read off the picture."""

import io
import pickle
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.captioning.quality import QualityConfig
from components.captioning.recaption import CaptionWorker, measure_quality, shard_quality
from components.schemas import RAW_PAIRS, RECAPTIONED

NAMES = {"ssc": "scenes-tiny-ssc_captioner/7", "dsc": "scenes-tiny-dsc_captioner/5"}


@dataclass(frozen=True)
class BrightnessCaptioner:
    """Says how bright the picture is; says nothing of black pictures."""

    form: str

    def caption(self, pixels, keys):
        values = pixels.reshape(len(pixels), -1).mean(axis=1).round().astype(int)
        return [self.form.format(value) if value else "" for value in values]


class BrightnessScorer:
    """Embeds brightness as an angle, in pictures and in the number that a text ends with."""

    def image_embeds(self, pixels):
        return self._embeds(pixels.reshape(len(pixels), -1).mean(axis=1).round())

    def text_embeds(self, texts):
        return self._embeds(np.array([float(text.split()[-1]) if text else 0.0 for text in texts]))

    @staticmethod
    def _embeds(values):
        angles = np.asarray(values, np.float32) / 255 * np.pi / 2
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def png(value: int, side: int = 24) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def part(tmp_path):
    """A part of raw_pairs with two row groups of four rows; row 5 is black."""
    values = [10, 200, 60, 120, 250, 0, 90, 30]
    rows = [
        {
            "key": f"{n:03d}",
            "image": png(value),
            "width": 24,
            "height": 24,
            "sha256": f"{n:064d}",
            "source_sha256": f"{n:064d}",
            "perceptual_hash": f"{n:016d}",
            "colours": bytes(48),
            "caption": f"raw {n}",
            "source": f"test#{n}",
            "license": "CC0-1.0",
        }
        for n, value in enumerate(values)
    ]
    path = tmp_path / "part.parquet"
    pq.write_table(pa.Table.from_pylist(rows, RAW_PAIRS.schema), path, row_group_size=4)
    return str(path)


@pytest.fixture
def worker():
    return CaptionWorker(
        captioners={
            "ssc": partial(BrightnessCaptioner, "shade {}"),
            "dsc": partial(BrightnessCaptioner, "a plain picture of shade {}"),
        },
        names=NAMES,
        load_scorer=BrightnessScorer,
        resolution=16,
        fit="pad",
        quality=QualityConfig(),
    )


def tables_of(worker, part, groups=(0, 1)):
    work = worker()
    return [work({"uri": part, "row_group": group}) for group in groups]


def test_a_row_group_becomes_rows_of_the_contract(worker, part):
    first, second = tables_of(worker, part)
    assert first.schema.equals(RECAPTIONED.schema)
    assert first["key"].to_pylist() == ["000", "001", "002", "003"]
    assert second["caption"].to_pylist() == ["raw 4", "raw 5", "raw 6", "raw 7"]
    assert first["ssc"].to_pylist() == ["shade 10", "shade 200", "shade 60", "shade 120"]
    assert set(first["dsc_captioner"].to_pylist()) == {NAMES["dsc"]}
    assert first["dsc_score"].to_pylist() == pytest.approx([100.0] * 4, abs=1e-3)


def test_a_bad_caption_sets_its_row_aside_with_the_reason(worker, part):
    _, second = tables_of(worker, part)
    assert second["rejected"].to_pylist() == [None, "ssc empty; dsc empty", None, None]


def test_a_worker_can_be_sent_to_another_process_and_says_the_same(worker, part):
    there = pickle.loads(pickle.dumps(worker))
    for one, other in zip(tables_of(worker, part), tables_of(there, part), strict=True):
        assert one.equals(other, check_metadata=True)


def test_own_pictures_score_above_shuffled_ones(worker, part):
    quality = shard_quality(tables_of(worker, part), worker.quality)["dsc"]
    assert quality.num_rows == 8
    assert quality.num_rejected == 1
    assert quality.clip_score == pytest.approx(100.0, abs=1e-3)
    assert quality.shuffled_clip_score < 90


def test_captions_that_fit_no_picture_are_refused(worker, part):
    """A captioner that has collapsed to one sentence is caught by its scores."""
    pixels = np.stack([np.full((16, 16, 3), value, np.uint8) for value in range(0, 255, 4)])
    strict = QualityConfig(min_clip_margin=1.0)
    good = [f"shade {value}" for value in range(0, 255, 4)]
    assert measure_quality(good, pixels, BrightnessScorer(), strict).verdict(strict) is None
    verdict = measure_quality(["shade 100"] * len(pixels), pixels, BrightnessScorer(), strict).verdict(strict)
    assert verdict is not None
    assert "only 1 distinct captions" in verdict
    assert "more than other pictures" in verdict
