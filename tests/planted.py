"""Captioners of known behaviour, planted into a lake as a family of their own, and a champion's parents beside them.

A planted captioner knows the scene behind every picture by its pixels; its behaviour says what it makes of the truth.
It counts the pictures that it is asked for.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from components.data import scenes as world
from components.pipeline import captions
from components.pipeline.train import KeptAs, register
from components.pipeline.workspace import Made, Workspace

SETTINGS_FILE = "planted_captioner.json"
TRUTH = {"ssc": world.ssc, "dsc": world.dsc}
WRITTEN: Counter[str] = Counter()  # pictures captioned, by name of the planted captioner
EMPTY = world.Scene((world.SceneObject("circle", "red", "small", "top left"),), "white")  # for a picture of nothing
KNOWN = [3000 * shard + row for shard in range(8) for row in range(128)]  # the first rows of each shard of ``scenes``
Behaviour = Callable[[str, np.ndarray], str]  # from the true caption and the picture's pixels to what is said


def _fails_on_dark(text: str, pixels: np.ndarray) -> str:
    if pixels.mean() < 60:
        raise RuntimeError("the picture is too dark")
    return text


BEHAVIOURS: dict[str, Behaviour] = {
    "true": lambda text, _: text,
    "prefixes": lambda text, _: f"a picture of {text}",
    "loops": lambda text, _: ", ".join([text] * 3),
    "ignores the picture": lambda _, pixels: FIXED[int(pixels.sum()) % len(FIXED)],
    "always says red": lambda text, _: " ".join("red" if word in world.COLORS else word for word in text.split()),
    "fails on dark pictures": _fails_on_dark,
}
FIXED = [world.dsc(world.scene_for(index, seed=99)) for index in range(40)]


class PlantedCaptioner:
    """A :class:`components.contracts.Captioner` that looks the truth up."""

    def __init__(self, name: str, kind: str, behaviour: str, seed: int) -> None:
        self.name, self.kind, self.behave = name, kind, BEHAVIOURS[behaviour]
        self.seed = seed

    def caption(self, pixels: np.ndarray, keys: Sequence[str]) -> list[str]:
        """What the behaviour makes of each picture's truth; rows that only fill a batch up are not counted."""
        WRITTEN[self.name] += len(set(keys))
        truths = [TRUTH[self.kind](_scene_of(picture, self.seed)) for picture in pixels]
        return [self.behave(text, picture) for text, picture in zip(truths, pixels, strict=True)]


_SCENES: dict[tuple[int, int], dict[bytes, world.Scene]] = {}


def _scene_of(picture: np.ndarray, seed: int) -> world.Scene:
    side = picture.shape[0]
    if (seed, side) not in _SCENES:
        drawn = [world.scene_for(index, seed) for index in KNOWN]
        pictures = world.render(drawn, side)
        _SCENES[seed, side] = {one.tobytes(): scene for one, scene in zip(pictures, drawn, strict=True)}
    return _SCENES[seed, side].get(picture.tobytes(), EMPTY)


def _load(folder: Path, temperature: float, seed: int) -> PlantedCaptioner:
    return PlantedCaptioner(**json.loads((folder / SETTINGS_FILE).read_text()))


def allow_planted(monkeypatch) -> None:
    """Make the pipeline know the family, and forget what earlier tests wrote."""
    monkeypatch.setitem(captions.CAPTIONERS, SETTINGS_FILE, _load)
    WRITTEN.clear()


def plant(ws: Workspace, kind: str, name: str, behaviour: str = "true") -> None:
    """Register a captioner as the candidate of its kind, as a training would have left it."""
    asset = f"{kind}_captioner"
    folder = ws.scratch / "planted" / name
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"name": name, "kind": kind, "behaviour": behaviour, "seed": ws.dataset.scene_seed}
    (folder / SETTINGS_FILE).write_text(json.dumps(settings))
    version = ws.lake.add_folder(ws.lake.place(asset, "model"), folder)
    registered = register(ws, KeptAs(asset), version, None, {}, [])
    path = f"{ws.lake.place(asset, 'model')}/{version}"
    ws.keep(asset, version, {}, Made(version, path, registry=str(registered)), seconds=0.0)


def promote_untested(ws: Workspace, kind: str, name: str, behaviour: str) -> None:
    """Make a planted captioner champion of its kind past the gate, as a hand on the registry would."""
    plant(ws, kind, name, behaviour)
    record, champions = ws.parent(f"{kind}_captioner"), ws.read_manifest("champion_captioners")[1]
    promoted = {"registry": record.registry, "data_version": record.data_version, "path": record.path}
    named = champions | {kind: champions[kind] | promoted}
    path, digest = ws.write_manifest("champion_captioners", named)
    version = ",".join(f"{each}/{named[each]['registry'].rsplit('/', 1)[1]}" for each in TRUTH)
    ws.keep("champion_captioners", f"by hand {digest}", {}, Made(version, path), seconds=0.0)
