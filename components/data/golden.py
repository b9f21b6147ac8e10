"""Golden pictures: what a caption of a picture must say, and what it must not.

What belongs here: the file of a data set that lists them, and those of the scenes world, whose truth is known. What
does not: asking a captioner about them (``components.captioning.golden``).

One JSON object a line: ``{"key": "00001000", "says": ["balloon", ["red", "crimson"]], "never": ["dog"]}``. ``key``
names a row; ``picture``, in its place, a picture file relative to the data set's folder. A fact is a phrase, or a list
of phrases of which one is enough. ``kind`` (ssc or dsc) limits the facts to one kind of caption.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from components.contracts import Frozen

from .dataset_file import DatasetError
from .json_lines import read_json_lines
from .scene_graph import BACKGROUNDS, COLORS, SHAPES, Scene

Kind = Literal["ssc", "dsc"]


class GoldenPicture(Frozen):
    """A picture and the facts that captions of it are asked for."""

    key: str | None = Field(default=None, description="Key of the row whose picture it is.")
    picture: str | None = Field(default=None, description="Path of a picture, relative to the data set's folder.")
    kind: Kind | None = Field(default=None, description="The kind of caption that is asked; none asks both.")
    says: tuple[tuple[str, ...], ...] = Field(default=(), description="Facts to say, each as its possible phrases.")
    never: tuple[str, ...] = Field(default=(), description="Phrases that would be false.")

    @field_validator("says", mode="before")
    @classmethod
    def _phrase_alone(cls, value: object) -> object:
        return [[fact] if isinstance(fact, str) else fact for fact in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _asks_something(self) -> GoldenPicture:
        if (self.key is None) == (self.picture is None):
            raise ValueError("give either the key of a row or the path of a picture")
        if not self.says and not self.never:
            raise ValueError("give facts: says, never or both")
        phrases = [*(phrase for fact in self.says for phrase in fact), *self.never]
        if not all(self.says) or not all(phrase.strip() for phrase in phrases):
            raise ValueError("every fact must hold a phrase")
        return self

    @property
    def name(self) -> str:
        """The key or path, by which a check names the picture."""
        return self.key or self.picture or ""


def read_golden(file: Path) -> list[GoldenPicture]:
    """The golden pictures of a file; DatasetError names file, line and field."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file}: golden: it cannot be read: {error}") from error
    pictures = []
    for place, golden in read_json_lines(str(file), data, GoldenPicture, DatasetError):
        if golden.picture and not (file.parent / golden.picture).is_file():
            raise DatasetError(f"{place}: picture: there is no file {file.parent / golden.picture}")
        pictures.append(golden)
    if not pictures:
        raise DatasetError(f"{file}: it holds no golden picture")
    return pictures


def golden_of_scene(key: str, scene: Scene) -> list[GoldenPicture]:
    """What captions of a scene must say: short ones the main subject, descriptive ones every object and the background.

    Neither may name a colour, shape or background that is not in the picture.
    """
    seen = {scene.background, *(word for item in scene.objects for word in (item.color, item.shape))}
    absent = tuple(word for word in (*SHAPES, *COLORS, *BACKGROUNDS) if word not in seen)
    objects = tuple((f"{item.color} {item.shape}",) for item in scene.objects)
    main = scene.main
    return [
        GoldenPicture(key=key, kind="ssc", says=((f"{main.color} {main.shape}",),), never=absent),
        GoldenPicture(key=key, kind="dsc", says=(*objects, (f"{scene.background} background",)), never=absent),
    ]
