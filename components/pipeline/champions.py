"""``champion_captioners``: the gate that captioners pass before they write captions.

What belongs here: asking candidates for captions of held-out and golden pictures, and promoting them. What does not:
the tests themselves (``captioning.quality``, ``captioning.golden``) and writing captions for the data (``captions``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.contracts import Rows
from components.data.golden import GoldenPicture, golden_of_scene
from components.data.lake import Record
from components.data.pictures import captioned_grid
from components.data.pixels import decode_pixels

from .captions import KINDS, load_kind, load_scorer
from .rows import SplitRows, in_memory, load_rows
from .withdrawals import withdrawn
from .workspace import Made, Outcome, UnfitParent, Workspace

ASSET = "champion_captioners"
GOLDEN_TEST = "golden_pictures"
NUM_SHOWN = 8
NUM_OTHER_PICTURES = 1024  # whose mean embedding stands for any other picture


class GateFailed(RuntimeError):
    """Captioners did not pass their gate; the message says which test, which picture and which fact.

    ``record`` holds what the tests found, in the form of the record that was not kept.
    """

    def __init__(self, message: str, record: Record) -> None:
        super().__init__(message)
        self.record = record


def choose_champions(ws: Workspace) -> Outcome:
    """Let the two candidate captioners caption held-out and golden pictures; where they pass, they become champions.

    After a rollback the same two leave the champions as they are. Raises UnfitParent where one that was rolled back
    stands before the gate again in another way.
    """
    candidates = {kind: ws.parent(f"{kind}_captioner") for kind in KINDS}
    inputs = {f"{kind}_captioner": record.data_version for kind, record in candidates.items()}
    inputs["clip"] = ws.parent("clip").data_version
    settings = ws.recipe.recaption.model_dump(mode="json", exclude={"workers"})
    settings["golden"] = ws.dataset.golden_settings()

    def make(fingerprint: str) -> Made:
        _refuse_withdrawn(ws, candidates.values())
        return _Gate(ws, candidates).decide(fingerprint)

    return ws.materialize(ASSET, inputs, settings, make)


def _refuse_withdrawn(ws: Workspace, candidates: Iterable[Record]) -> None:
    for record in candidates:
        if rollback := withdrawn(ws.lake, record.asset).get(record.data_version):
            raise UnfitParent(
                f"{record.registry} stays a candidate: {rollback.from_version} was {rollback}. Train a new "
                f"{record.asset}, or take it back by name: atelier rollback {ASSET} --to {rollback.from_version}"
            )


@dataclass(frozen=True, slots=True)
class Tried:
    """What one candidate wrote for the held-out pictures, its figures, and what the tests have against it."""

    captions: Sequence[str]
    figures: Mapping[str, float]
    complaints: Sequence[tuple[str, str]]
    golden: Mapping[str, str]  # what is wrong with each golden picture that failed, by its name


class _Gate:
    """One decision on both candidates."""

    def __init__(self, ws: Workspace, candidates: Mapping[str, Record]) -> None:
        self.ws, self.candidates, self.config = ws, candidates, ws.recipe.recaption
        self.rows: SplitRows = load_rows(ws, with_truth=True)
        held_out = self.rows.evaluation
        self.held_out: Rows = in_memory(held_out, self.config.num_gate_pictures)
        self.golden = golden_pictures(ws, self.rows)
        self.vocabulary = vocabulary_of(self.rows.train)
        self.scorer = load_scorer(ws.model_folder("clip"))

    def decide(self, fingerprint: str) -> Made:
        """Both candidates promoted; :class:`GateFailed` where one of them fails."""
        tried = {kind: self._try(kind) for kind in KINDS}
        metadata = self._metadata(tried)
        reasons = [
            f"{self.candidates[kind].registry} stays a candidate, the champions stay as they were: its {kind} captions "
            f"of {len(self.held_out)} held-out pictures failed: {'; '.join(message for _, message in one.complaints)}"
            for kind, one in tried.items()
            if one.complaints
        ]
        if reasons:
            ws = self.ws
            record = Record(
                ASSET, "manifest", ws.dataset.name, ws.recipe.name, fingerprint, "none", "", metadata=metadata
            )
            raise GateFailed(". ".join(reasons), record)
        return self._promote(tried, metadata)

    def _try(self, kind: str) -> Tried:
        from components.captioning.golden import golden_complaint, golden_failures
        from components.captioning.quality import quality_of
        from components.captioning.recaption import measure_quality

        thresholds, captioner = self.config.quality, load_kind(self.ws, kind)
        captions = captioner.caption(self.held_out.pixels, self.held_out.keys)
        vocabulary = self.vocabulary if self._is_trained(kind) else None
        quality = measure_quality(captions, self.held_out.pixels, self.scorer, thresholds, vocabulary)
        examples = [text for text in self.rows.train.texts.get(f"{kind}_example", ()) if text]
        style = quality_of(examples, [], [], thresholds) if examples else None
        complaints = list(quality.complaints(thresholds, style))
        asked = [(golden, pixels) for golden, pixels in self.golden if golden.kind in (None, kind)]
        failures: dict[str, str] = {}
        if asked:
            names = [golden.name for golden, _ in asked]
            written = captioner.caption(np.stack([pixels for _, pixels in asked]), names)
            failures = golden_failures(written, [golden for golden, _ in asked])
            if complaint := golden_complaint(failures, len(asked), thresholds):
                complaints.append((GOLDEN_TEST, complaint))
        return Tried(captions, quality.figures(), complaints, failures)

    def _is_trained(self, kind: str) -> bool:
        return getattr(self.ws.recipe, f"{kind}_captioner").training.num_steps > 0

    def _metadata(self, tried: Mapping[str, Tried]) -> dict[str, Any]:
        columns = [self.held_out.keys, self.held_out.texts["caption"], *(tried[kind].captions for kind in KINDS)]
        found: dict[str, list[str]] = {}
        for kind, one in tried.items():
            for test, message in one.complaints:
                found.setdefault(test, []).append(f"{kind}: {message}")
        return {
            **{f"{kind}_{name}": value for kind, one in tried.items() for name, value in one.figures.items()},
            **{kind: self.candidates[kind].registry for kind in KINDS},
            "complaints": found,
            "golden_pictures": len({golden.name for golden, _ in self.golden}),
            "golden_failures": {
                f"{kind} {name}": why for kind, one in tried.items() for name, why in one.golden.items()
            },
            "samples": [
                {"key": key, "caption": caption or "", "ssc": ssc, "dsc": dsc}
                for key, caption, ssc, dsc in zip(*(column[:NUM_SHOWN] for column in columns), strict=True)
            ],
        }

    def _promote(self, tried: Mapping[str, Tried], metadata: dict[str, Any]) -> Made:
        ws = self.ws
        champions: dict[str, Any] = {}
        for kind, record in self.candidates.items():
            assert record.registry is not None
            ws.tracker.set_alias(ws.registered(record), "champion")
            champions[kind] = {
                "registry": record.registry,
                "data_version": record.data_version,
                "path": record.path,
                "is_trained": self._is_trained(kind),
            }
        images = self.scorer.image_embeds(self.rows.train.pixels[:NUM_OTHER_PICTURES])
        champions["mean_picture"] = [round(float(value), 6) for value in images.mean(axis=0)]
        champions["vocabulary"] = self._keep_vocabulary()
        path, _ = ws.write_manifest(ASSET, champions)
        pairs = zip(*(tried[kind].captions[:NUM_SHOWN] for kind in KINDS), strict=True)
        return Made(
            data_version=",".join(f"{kind}/{champions[kind]['registry'].rsplit('/', 1)[1]}" for kind in KINDS),
            path=path,
            metadata=metadata,
            pictures={"samples": captioned_grid(self.held_out.pixels[:NUM_SHOWN], [" | ".join(one) for one in pairs])},
        )

    def _keep_vocabulary(self) -> str:
        data = "\n".join(sorted(self.vocabulary)).encode()
        path = f"{ASSET}/{hashlib.sha256(data).hexdigest()[:16]}.vocabulary.txt"
        self.ws.lake.write_bytes(path, data)
        return path


def vocabulary_of(rows: Rows) -> frozenset[str]:
    """Every word of the texts that captioners learn from: raw captions and examples."""
    from components.captioning.quality import words_of

    kinds = ("caption", *(f"{kind}_example" for kind in KINDS))
    return frozenset(word for kind in kinds for text in rows.texts.get(kind, ()) if text for word in words_of(text))


def golden_pictures(ws: Workspace, rows: SplitRows) -> list[tuple[GoldenPicture, np.ndarray]]:
    """The data set's golden pictures with their pixels; for scenes without a file of them, held-out scenes.

    Raises UnfitParent naming a key that is no row of the image set.
    """
    listed = ws.dataset.golden()
    if not listed:
        return list(_golden_scenes(rows.evaluation, ws.recipe.recaption.num_golden_pictures))
    data, wanted = ws.recipe.data, {golden.key for golden in listed if golden.key}
    by_key = {
        key: split.pixels[number]
        for split in (rows.train, rows.evaluation)
        for number, key in enumerate(split.keys)
        if key in wanted
    }
    found = []
    for golden in listed:
        if golden.picture:
            content = (ws.dataset.folder / golden.picture).read_bytes()
            found.append((golden, decode_pixels(content, data.resolution, data.fit)))
        elif golden.key in by_key:
            found.append((golden, by_key[golden.key]))
        else:
            raise UnfitParent(
                f"golden picture {golden.key!r} of {ws.dataset.folder / str(ws.dataset.facts.golden)} is no row of the "
                "image set: correct its key, or raise data.max_shards and data.max_rows_per_shard"
            )
    return found


def _golden_scenes(rows: Rows, num_pictures: int) -> Iterator[tuple[GoldenPicture, np.ndarray]]:
    for number, scene in enumerate((rows.scenes or ())[:num_pictures]):
        for golden in golden_of_scene(rows.keys[number], scene):
            yield golden, rows.pixels[number]
