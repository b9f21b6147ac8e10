"""The worker is run with captioners and a scorer of known behaviour: what they say can be read off the picture."""

import dataclasses
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
from components.captioning.recaption import CaptionWorker, join_kind, measure_quality, recaptioned_table
from components.schemas import RAW_PAIRS, RECAPTIONED

CONFIG = QualityConfig()
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
        load_scorer=BrightnessScorer,
        mean_picture=BrightnessScorer._embeds([95])[0],
        resolution=16,
        fit="pad",
    )


def results_of(worker, part, rows=(range(4), range(4, 8)), writes=("ssc", "dsc")):
    work = worker()
    return [work({"uri": part, "rows": each, "writes": writes, "rescores": {}}) for each in rows]


def joined_of(part, results, kept=None):
    rows = pq.read_table(part, columns=["key", "sha256", "caption"])
    digests = rows["sha256"].to_pylist()
    joined = {kind: join_kind(kind, digests, kept or {}, results, CONFIG) for kind in ("ssc", "dsc")}
    return joined, recaptioned_table(rows, joined, NAMES)


def test_what_workers_wrote_becomes_rows_of_the_contract(worker, part):
    table = joined_of(part, results_of(worker, part))[1]
    assert table.schema.equals(RECAPTIONED.schema)
    assert table["key"].to_pylist() == [f"{n:03d}" for n in range(8)]
    assert table["caption"].to_pylist()[4:] == ["raw 4", "raw 5", "raw 6", "raw 7"]
    assert table["ssc"].to_pylist()[:4] == ["shade 10", "shade 200", "shade 60", "shade 120"]
    assert set(table["dsc_captioner"].to_pylist()) == {NAMES["dsc"]}
    assert table["dsc_score"].to_pylist()[:4] == pytest.approx([100.0] * 4, abs=1e-3)


def test_a_bad_caption_sets_its_row_aside_with_the_reason(worker, part):
    table = joined_of(part, results_of(worker, part))[1]
    assert table["rejected"].to_pylist() == [None] * 5 + ["ssc empty; dsc empty", None, None]


def test_a_worker_can_be_sent_to_another_process_and_says_the_same(worker, part):
    there = pickle.loads(pickle.dumps(worker))
    for one, other in zip(results_of(worker, part), results_of(there, part), strict=True):
        assert one.equals(other)


def test_rows_are_the_same_however_they_are_cut(worker, part):
    whole = joined_of(part, results_of(worker, part))[1]
    cut = joined_of(part, results_of(worker, part, rows=([5], [0, 3, 6], [1, 2, 4, 7])))[1]
    assert cut.equals(whole)


def test_kept_captions_stand_where_nothing_was_written(worker, part):
    whole = joined_of(part, results_of(worker, part))[1]
    kept = {f"{n:064d}": (f"kept {n}", 50.0, 1.0) for n in range(4)}
    joined, table = joined_of(part, results_of(worker, part, rows=(range(4, 8),)), kept)
    assert table["dsc"].to_pylist() == [f"kept {n}" for n in range(4)] + whole["dsc"].to_pylist()[4:]
    assert joined["dsc"].num_written == 4


class Picky(BrightnessCaptioner):
    """Cannot bear pictures of one brightness, alone or among others."""

    def caption(self, pixels, keys):
        captions = super().caption(pixels, keys)
        if any(caption.endswith(" 250") for caption in captions):
            raise ValueError("too bright")
        return captions


def test_one_failing_picture_costs_no_other_its_caption(worker, part):
    picky = dataclasses.replace(worker, captioners={**worker.captioners, "dsc": partial(Picky, "shade {}")})
    table = joined_of(part, results_of(picky, part))[1]
    assert table["dsc"].to_pylist()[3:6] == ["shade 120", None, ""]
    assert table["rejected"].to_pylist()[4] == "dsc failed: ValueError: too bright"
    assert table["ssc"].to_pylist()[4] == "shade 250"


class Broken:
    """Never writes anything."""

    def caption(self, pixels, keys):
        raise RuntimeError("out of memory")


def test_a_captioner_that_fails_on_every_picture_is_no_fault_of_the_rows(worker, part):
    broken = dataclasses.replace(worker, captioners={**worker.captioners, "ssc": Broken})
    with pytest.raises(RuntimeError, match="out of memory"):
        results_of(broken, part)


def test_own_pictures_score_above_shuffled_ones(worker, part):
    quality = joined_of(part, results_of(worker, part))[0]["dsc"].quality(CONFIG, None)
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
