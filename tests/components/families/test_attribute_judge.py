import json
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from safetensors import safe_open

from components.contracts import Rows
from components.data.scene_graph import BACKGROUNDS, PLACES, Scene, SceneObject, SceneOptions, key_for, scene_for
from components.data.scene_rendering import render
from components.families.attribute_judge.config import JudgeConfig
from components.families.attribute_judge.model import build_model, labels_of, scenes_of
from components.families.attribute_judge.objective import AttributeJudgeFamily, made_worse, rows_of_half
from components.families.attribute_judge.sample import AttributeJudge, load_judge
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.randomness import SeededRandom

SMALL = JudgeConfig(hidden_sizes=(16, 32, 32, 32), features_per_place=16)
TRAINING = TrainingConfig(
    num_steps=130, batch_size=32, learning_rate=4e-3, num_warmup_steps=5, precision="fp32", log_every=10
)


def rows_of(first: int, number: int, resolution: int = 32) -> Rows:
    scenes = [scene_for(index, 0) for index in range(first, first + number)]
    keys = [key_for(index) for index in range(first, first + number)]
    return Rows(keys, render(scenes, resolution), {}, scenes=scenes)


def places_of(scene: Scene) -> set[str]:
    return {item.place for item in scene.objects}


def without_gaps(labels: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: values.clamp_min(0).numpy() for name, values in labels.items() if name != "pixel_values"}


@pytest.fixture(scope="module")
def trained() -> AttributeJudgeFamily:
    family = SMALL.build(rows_of(0, 600), rows_of(9000, 100), {})
    trainer = Trainer(family, TRAINING)
    for _ in trainer.run():
        pass
    family.model.eval()
    return family


def test_a_few_seconds_of_training_teach_backgrounds_and_places(trained: AttributeJudgeFamily) -> None:
    rows = rows_of(5000, 200)
    read = AttributeJudge(trained.model).read(rows.pixels)
    assert rows.scenes is not None
    pairs = list(zip(read, rows.scenes, strict=True))
    same_background = np.mean([one.background == truth.background for one, truth in pairs])
    same_places = np.mean([places_of(one) == places_of(truth) for one, truth in pairs])
    assert same_background > 0.7  # chance is 0.17
    assert same_places > 0.6  # chance is below 0.1


def test_preview_shows_misread_pictures_and_their_words(trained: AttributeJudgeFamily) -> None:
    preview = trained.preview()
    assert preview.image is not None
    assert set(preview.metrics) == {f"accuracy/{name}" for name in ("shape", "color", "size", "background", "scene")}
    assert all(0 <= value <= 1 for value in preview.metrics.values())
    assert len(preview.rows) == 12
    assert set(preview.rows[0]) == {"key", "truth", "read"}
    assert preview.rows[0]["truth"] != preview.rows[0]["read"]  # misread pictures stand first


def test_a_saved_judge_reads_the_same_and_names_no_path(trained: AttributeJudgeFamily, tmp_path) -> None:
    trained.save(tmp_path / "judge")
    loaded = load_judge(tmp_path / "judge")
    pixels = rows_of(700, 40).pixels
    judge = AttributeJudge(trained.model)
    assert loaded.read(pixels) == judge.read(pixels)
    np.testing.assert_array_equal(loaded.features(pixels), judge.features(pixels))
    with safe_open(tmp_path / "judge" / "model.safetensors", "pt") as weights:
        assert set(weights.keys()) == set(trained.model.state_dict())
    assert str(tmp_path) not in json.dumps(json.loads((tmp_path / "judge" / "config.json").read_text()))
    load_judge(tmp_path / "judge").model.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "judge" / name).read_bytes()


def test_training_goes_on_from_a_pretrained_folder(trained: AttributeJudgeFamily, tmp_path) -> None:
    trained.save(tmp_path)
    family = JudgeConfig(pretrained=str(tmp_path)).build(rows_of(0, 20), rows_of(20, 20), {})
    assert torch.equal(family.model.to_places.weight, trained.model.to_places.weight)


def test_features_are_one_row_per_picture() -> None:
    judge = AttributeJudge(build_model(SMALL))
    assert judge.features(rows_of(0, 5).pixels).shape == (5, 64)
    assert judge.features(rows_of(0, 5, resolution=64).pixels).shape == (5, 64)
    assert judge.features(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, 64)
    assert judge.read(np.zeros((0, 32, 32, 3), np.uint8)) == []


def test_class_numbers_and_scenes_are_inverse_also_for_none_and_four_objects_styles_and_text() -> None:
    model = build_model(JudgeConfig(reads_style=True, reads_text=True))
    scenes = [scene_for(index, 3, SceneOptions(style=True, text=True)) for index in range(200)]
    scenes += [
        Scene((), "gray"),
        Scene(tuple(SceneObject("star", "red", "small", place, "striped") for place in PLACES), "white"),
        Scene((SceneObject("text", "blue", "large", "top left", text="AB"),), "pink"),
    ]
    labels = without_gaps(labels_of(scenes, model.config))
    assert scenes_of(labels, model.config) == scenes


def test_an_object_read_as_text_always_has_a_letter() -> None:
    judge = AttributeJudge(build_model(JudgeConfig(reads_text=True)))
    with torch.no_grad():
        judge.model.place_heads["shape"].bias[-1] += 100
        judge.model.place_heads["letter_1"].bias[0] += 100  # blank
    assert all(len(item.text) >= 1 for scene in judge.read(rows_of(0, 8).pixels) for item in scene.objects)


def test_mixed_pictures_keep_their_labels_true() -> None:
    train = rows_of(0, 300)
    config = SMALL.model_copy(update={"mix": 0.5, "blur": 0.0, "bleed": 0.0, "noise": 0.0, "tint": 0.0, "max_shift": 0})
    family = config.build(train, rows_of(300, 10), {})
    batch = family.batch(np.arange(64), SeededRandom(0, 0, np.arange(64)))
    labels = without_gaps(batch)
    described = scenes_of(labels, family.model.config)
    pixels = ((batch["pixel_values"].permute(0, 2, 3, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    for picture, scene in zip(pixels, described, strict=True):
        plain = render([Scene((), scene.background)], 32)[0]
        for number, place in enumerate(PLACES):
            row, column = divmod(number, 2)
            quadrant = np.s_[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
            is_empty = np.array_equal(picture[quadrant], plain[quadrant])
            assert is_empty == (place not in {item.place for item in scene.objects})
    numbers = {len(scene.objects) for scene in described}
    assert 4 in numbers  # the world itself never draws four


def test_augmentation_depends_on_step_and_row_alone() -> None:
    pixel_values = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    config = JudgeConfig()
    rows = np.array([7, 3, 9, 1])
    whole = made_worse(pixel_values, config, SeededRandom(0, 5, rows))
    half = made_worse(pixel_values[2:], config, SeededRandom(0, 5, rows[2:]))
    torch.testing.assert_close(whole[2:], half)
    assert not torch.equal(whole, pixel_values)
    assert whole.abs().max() <= 1


def test_a_data_set_without_scenes_has_no_judge() -> None:
    rows = rows_of(0, 4)
    without = Rows(rows.keys, rows.pixels, {})
    with pytest.raises(ValueError, match="train rows have no ground-truth scenes"):
        SMALL.build(without, rows, {})


def test_a_style_that_the_judge_cannot_read_is_named() -> None:
    text = Scene((SceneObject("text", "blue", "large", "top left", text="AB"),), "pink")
    rows = Rows(["0"], render([text], 32), {}, scenes=[text])
    blind = SMALL.model_copy(update={"reads_text": False})
    with pytest.raises(ValueError, match=r"scene 0 has shape='text'.*reads_text"):
        blind.build(rows, rows, {})
    family = SMALL.build(rows, rows, {})
    assert "text" in (family.model.config.place_attributes or {})["shape"]


def test_an_untrained_judge_reads_only_what_exists() -> None:
    read = AttributeJudge(build_model(SMALL)).read(rows_of(0, 10).pixels)
    assert all(scene.background in BACKGROUNDS for scene in read)


def test_the_halves_of_two_judges_share_no_row():
    keys = [f"{number:09d}" for number in range(400)]
    first, second = (set(rows_of_half(keys, half).tolist()) for half in ("first", "second"))
    assert not first & second
    assert first | second == set(range(400))
    assert 150 < len(first) < 250
    assert rows_of_half(keys, None).tolist() == list(range(400))
    assert {keys[row] for row in rows_of_half(keys[:100], "first")} == {keys[row] for row in first if row < 100}
