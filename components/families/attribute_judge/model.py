"""The judge's network and how a scene becomes class numbers.

A plain convolutional network ends in one feature vector per place (quadrant); the same classifiers read each of them,
so what is learned about an object in one place holds in all. What is read is data, not code: ``place_attributes`` and
``scene_attributes`` of the configuration list the classes of every classifier.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from components.data.scene_graph import (
    BACKGROUNDS,
    COLORS,
    LETTERS,
    PLACES,
    SHAPES,
    SIZES,
    STYLES,
    TEXT,
    Scene,
    SceneObject,
)

from .config import JudgeConfig

NOTHING = "none"  # the first class of ``shape``: no object stands in this place
IGNORED = -100  # cross-entropy leaves these out: an empty place has no colour
LETTER_SLOTS = ("letter_1", "letter_2", "letter_3")
SIDE_IN_PLACES = 2  # the places are the quadrants of the picture


class AttributeJudgeConfig(PreTrainedConfig):
    """What the network reads and how wide it is."""

    model_type = "atelier_attribute_judge"

    hidden_sizes: tuple[int, ...] | list[int] = (48, 64, 96, 96)
    strides: tuple[int, ...] | list[int] = (2, 1, 2, 2)
    features_per_place: int = 32
    place_attributes: dict[str, list[str]] | None = None
    scene_attributes: dict[str, list[str]] | None = None


class AttributeJudgeModel(PreTrainedModel):
    """Pictures in, logits of every attribute out."""

    config: AttributeJudgeConfig
    config_class = AttributeJudgeConfig
    base_model_prefix = "judge"
    main_input_name = "pixel_values"

    def __init__(self, config: AttributeJudgeConfig) -> None:
        super().__init__(config)
        widths = pairwise((3, *config.hidden_sizes))
        self.stages = nn.Sequential(
            *(_convolution(narrow, wide, stride) for (narrow, wide), stride in zip(widths, config.strides, strict=True))
        )
        self.to_places = nn.Linear(4 * config.hidden_sizes[-1], config.features_per_place)
        features = config.features_per_place
        self.place_heads = nn.ModuleDict(
            {name: nn.Linear(features, len(classes)) for name, classes in (config.place_attributes or {}).items()}
        )
        self.scene_heads = nn.ModuleDict(
            {
                name: nn.Linear(features * SIDE_IN_PLACES**2, len(classes))
                for name, classes in (config.scene_attributes or {}).items()
            }
        )
        self.post_init()

    def features(self, pixel_values: Tensor) -> Tensor:
        """The penultimate layer, (B, places, features_per_place), of pictures in [-1, 1], (B, 3, H, W)."""
        hidden = self.stages(pixel_values)
        hidden = F.adaptive_avg_pool2d(hidden, 2 * SIDE_IN_PLACES)  # 2 x 2 cells of every place
        batch, channels = hidden.shape[:2]
        cells = hidden.reshape(batch, channels, SIDE_IN_PLACES, 2, SIDE_IN_PLACES, 2)
        places = cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, SIDE_IN_PLACES**2, 4 * channels)
        return F.silu(self.to_places(places))

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Logits by attribute: (B, places, classes) for those of places, (B, classes) for those of the scene."""
        features = self.features(pixel_values)
        logits = {name: head(features) for name, head in self.place_heads.items()}
        return logits | {name: head(features.flatten(1)) for name, head in self.scene_heads.items()}


def _convolution(narrow: int, wide: int, stride: int) -> nn.Sequential:
    # The bias matters: without it GroupNorm cancels brightness, and an empty gray picture looks like a white one.
    return nn.Sequential(nn.Conv2d(narrow, wide, 3, stride=stride, padding=1), nn.GroupNorm(8, wide), nn.SiLU())


def build_model(config: JudgeConfig) -> AttributeJudgeModel:
    """The network of ``config``, with its own seeded weights or those of ``config.pretrained``."""
    if config.pretrained:
        return AttributeJudgeModel.from_pretrained(config.pretrained)
    place_attributes = {
        "shape": [NOTHING, *SHAPES, *([TEXT] if config.reads_text else [])],
        "color": list(COLORS),
        "size": list(SIZES),
    }
    if config.reads_style:
        place_attributes["style"] = list(STYLES)
    if config.reads_text:
        place_attributes |= {slot: ["", *LETTERS] for slot in LETTER_SLOTS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return AttributeJudgeModel(
            AttributeJudgeConfig(
                hidden_sizes=list(config.hidden_sizes),
                strides=list(config.strides),
                features_per_place=config.features_per_place,
                place_attributes=place_attributes,
                scene_attributes={"background": list(BACKGROUNDS)},
            )
        )


def labels_of(scenes: Sequence[Scene], config: AttributeJudgeConfig) -> dict[str, Tensor]:
    """Class numbers of every attribute, int64: (N, places) or (N,); ``IGNORED`` where a place has no such attribute.

    ValueError where a scene holds something that the judge has no class for.
    """
    places = {name: np.full((len(scenes), len(PLACES)), IGNORED) for name in config.place_attributes or {}}
    places["shape"][:] = 0
    whole = {name: np.zeros(len(scenes), dtype=np.int64) for name in config.scene_attributes or {}}
    for row, scene in enumerate(scenes):
        for item in scene.objects:
            for name, value in _attributes_of(item).items():
                if name in places:
                    classes = (config.place_attributes or {})[name]
                    places[name][row, PLACES.index(item.place)] = _number_of(value, classes, name, row)
        for name, classes in (config.scene_attributes or {}).items():
            whole[name][row] = _number_of(getattr(scene, name), classes, name, row)
    return {name: torch.from_numpy(values) for name, values in (places | whole).items()}


def scenes_of(classes: Mapping[str, np.ndarray], config: AttributeJudgeConfig) -> list[Scene]:
    """The scenes that these class numbers describe: the inverse of :func:`labels_of`."""
    named = config.place_attributes or {}
    backgrounds = (config.scene_attributes or {})["background"]
    scenes = []
    for row, background in enumerate(classes["background"]):
        objects = []
        for number, place in enumerate(PLACES):
            read = {name: values[classes[name][row, number]] for name, values in named.items()}
            if read["shape"] != NOTHING:
                objects.append(_object_of(read, place))
        scenes.append(Scene(tuple(objects), backgrounds[background]))
    return scenes


def _attributes_of(item: SceneObject) -> dict[str, str]:
    read: dict[str, str] = {"shape": item.shape, "color": item.color, "size": item.size, "style": item.style}
    if item.shape == TEXT:
        del read["style"]
        read |= dict(zip(LETTER_SLOTS, item.text.ljust(len(LETTER_SLOTS)), strict=True))
    return {name: value.strip() for name, value in read.items()}


def _object_of(read: Mapping[str, str], place: str) -> SceneObject:
    if read["shape"] != TEXT:
        return SceneObject(read["shape"], read["color"], read["size"], place, read.get("style", "filled"))
    text = "".join(read[slot] or " " for slot in LETTER_SLOTS).split(" ")[0]
    return SceneObject(TEXT, read["color"], read["size"], place, text=text)


def _number_of(value: str, classes: Sequence[str], name: str, row: int) -> int:
    try:
        return classes.index(value)
    except ValueError as error:
        raise ValueError(
            f"scene {row} has {name}={value!r}, which this judge does not read ({', '.join(classes)}); set reads_style "
            "or reads_text of its configuration"
        ) from error


def pixel_values_of(pixels: np.ndarray) -> Tensor:
    """Pictures uint8 (N, H, W, 3) as float32 (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def class_numbers(logits: Mapping[str, Tensor]) -> dict[str, Any]:
    """The most likely class of every attribute, as numpy arrays.

    The first letter of a text is never blank: an object that is read as text has at least one letter.
    """
    chosen = {name: values.float().argmax(-1).cpu().numpy() for name, values in logits.items()}
    if LETTER_SLOTS[0] in logits:
        chosen[LETTER_SLOTS[0]] = logits[LETTER_SLOTS[0]][..., 1:].float().argmax(-1).cpu().numpy() + 1
    return chosen
