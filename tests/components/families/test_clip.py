import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.contracts import Rows
from components.data import scenes
from components.data.lake import folder_digest
from components.families.clip.config import ClipConfig
from components.families.clip.sample import load_clip
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.randomness import SeededRandom

ROOT = Path(__file__).parents[3]
SMALL = {"vision_width": 32, "text_width": 32, "projection_dim": 32, "vision_layers": 1, "text_layers": 1}
TRAINING = TrainingConfig(num_steps=60, batch_size=24, learning_rate=4e-3, num_warmup_steps=5, precision="fp32")


def make_rows(start: int, count: int, **texts) -> Rows:
    drawn = [scenes.scene_for(index, 0) for index in range(start, start + count)]
    raw = [scenes.raw_caption(scene, index, 0) for index, scene in enumerate(drawn, start)]
    keys = [scenes.key_for(index) for index in range(start, start + count)]
    truth = {"truth_dsc": [scenes.dsc(scene) for scene in drawn]}
    return Rows(keys, scenes.render(drawn, 32), {"caption": raw, **truth, **texts})


@pytest.fixture(scope="module")
def rows():
    return make_rows(0, 96), make_rows(1000, 40)


@pytest.fixture(scope="module")
def trained(rows):
    family = ClipConfig(text_kinds=("truth_dsc",), **SMALL).build(*rows, {})
    trainer = Trainer(family, TRAINING)
    losses = [step.scalars["clip/loss"] for step in trainer.run() if step.scalars]
    return family, losses


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    trained[0].save(folder)
    return folder


def test_training_lowers_the_loss(trained):
    _, losses = trained
    assert losses[-1] < losses[0] - 0.8


def test_own_texts_score_above_other_rows_texts(trained, rows):
    preview = trained[0].preview()
    assert preview.metrics["score"] > preview.metrics["shuffled_score"] + 10
    assert 0 <= preview.metrics["retrieval_at_1"] <= 1
    assert len(preview.rows) == 8
    assert preview.image is not None
    assert preview.rows[0]["text"] == rows[1].texts["truth_dsc"][0]


def test_a_batch_depends_on_seed_step_and_row_alone(trained):
    family = trained[0]
    numbers = np.array([5, 2, 9])
    whole = family.batch(numbers, SeededRandom(0, 3, numbers))
    alone = family.batch(numbers[1:2], SeededRandom(0, 3, numbers[1:2]))
    assert torch.equal(whole["pixels"][1], alone["pixels"][0])
    assert whole["text_ids"][1] == alone["text_ids"][0]


def test_kinds_of_text_that_are_missing_fall_back_to_the_raw_caption(rows):
    family = ClipConfig(text_kinds=("truth_ssc",), **SMALL).build(*rows, {})
    assert family.kinds == ("caption",)


def test_same_weights_make_the_same_files(trained, folder, tmp_path):
    trained[0].save(tmp_path)
    assert folder_digest(tmp_path) == folder_digest(folder)


def test_the_scorer_of_the_saved_folder_scores_as_the_trained_model(trained, folder, rows):
    evaluation = rows[1]
    scorer = load_clip(folder)
    images, texts = scorer.image_embeds(evaluation.pixels), scorer.text_embeds(evaluation.texts["truth_dsc"])
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    scores = scorer.score(evaluation.pixels, evaluation.texts["truth_dsc"])
    np.testing.assert_allclose(scores, 100 * (images * texts).sum(1), atol=1e-3)
    assert scores.mean() == pytest.approx(trained[0].preview().metrics["score"], abs=1e-2)


def test_a_long_text_is_cut_and_still_embedded(folder):
    embeds = load_clip(folder).text_embeds(["large red circle " * 60, ""])
    assert np.isfinite(embeds).all()


STOCK = """
import sys
sys.path = [path for path in sys.path if path != ROOT]
import numpy as np
from PIL import Image
from transformers import AutoModel, AutoTokenizer, CLIPProcessor
try:
    import components
except ImportError:
    pass
else:
    sys.exit("Atelier is importable, the test proves nothing")
model = AutoModel.from_pretrained(FOLDER).eval()
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
processor = CLIPProcessor.from_pretrained(FOLDER)
picture = Image.open(PICTURE)
inputs = processor(text=TEXTS, images=[picture], padding=True, return_tensors="pt")
assert inputs.input_ids.tolist() == tokenizer(TEXTS, padding=True).input_ids
outputs = model(**inputs)
print(type(model).__name__, *(100 * outputs.text_embeds @ outputs.image_embeds.T)[:, 0].tolist())
"""


def test_stock_classes_load_the_folder_without_atelier(folder, rows, tmp_path):
    evaluation = rows[1]
    Image.fromarray(evaluation.pixels[0]).save(tmp_path / "picture.png")
    texts = ["large red circle top left, on a white background", "star"]
    given = {"ROOT": str(ROOT), "FOLDER": str(folder), "PICTURE": str(tmp_path / "picture.png"), "TEXTS": texts}
    program = "\n".join(f"{name} = {value!r}" for name, value in given.items()) + STOCK
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    name, *scores = done.stdout.split()
    assert name == "CLIPModel"
    ours = load_clip(folder).score(np.repeat(evaluation.pixels[:1], 2, axis=0), texts)
    np.testing.assert_allclose([float(score) for score in scores], ours, atol=1e-2)


def test_a_checkpoint_goes_on_where_it_stood(folder, rows):
    family = ClipConfig(text_kinds=("truth_dsc",), pretrained=str(folder)).build(*rows, {})
    first = next(Trainer(family, TRAINING).run())
    assert first.scalars["clip/loss"] < 2.6  # ln 24 = 3.2 is where an untrained one starts


def test_patches_that_do_not_tile_the_picture_are_refused(rows):
    with pytest.raises(ValueError, match="patch_size 5 does not divide the pictures' side of 32"):
        ClipConfig(patch_size=5).build(*rows, {})
