"""The whole graph with the recipe ``smoke``, run once as a user would, and what it leaves behind."""

import json
from pathlib import Path

import pytest
from PIL import Image

from components.data.lake import Lake
from components.pipeline.graph import ORDER
from components.pipeline.workspace import kind_of
from tests.command_line import run
from tests.outside import decoded_alike, outside
from tests.processes import processes_of, wait_until
from tests.workspaces import scenes_workspace

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def report(lake) -> dict:
    return lake.read_json("reports/evaluation_report/latest/report.json")


def model_folder(lake: Lake, asset: str) -> Path:
    version = lake.read_bytes(f"models/{asset}/latest").decode()
    return Path(lake.root) / "models" / asset / version


@pytest.mark.parametrize("asset", ORDER)
def test_every_asset_left_a_record(lake, asset):
    kind = kind_of(asset)
    is_partitioned = kind == "table" or asset == "caption_blend_study"
    records = list(lake.records(asset, kind).values()) if is_partitioned else [lake.record(asset, kind)]
    assert records
    for record in records:
        assert record.dataset == "scenes"
        assert record.recipe == "smoke"
        assert lake.exists(record.path)


def test_rows_are_conserved_from_source_to_captions_and_latents(lake):
    for shard, raw in lake.records("raw_pairs").items():
        assert raw.metadata["read"] == raw.metadata["kept"] + raw.metadata["rejected"] == 256
        keys = lake.read_table(raw.path, ["key", "sha256"]).to_pylist()
        for asset in ("recaptioned", "latents"):
            record = lake.record(asset, "table", shard)
            assert lake.read_table(record.path, ["key", "sha256"]).to_pylist() == keys


def test_captions_name_who_wrote_them(lake):
    champions = lake.read_json(lake.record("champion_captioners", "manifest").path)
    row = lake.read_table(lake.record("recaptioned", "table", "00000").path).to_pylist()[0]
    for kind in ("ssc", "dsc"):
        assert row[f"{kind}_captioner"] == champions[kind]["registry"]
        assert row[kind]


def test_the_report_has_the_promised_form(report):
    assert report["dataset"] == "scenes"
    assert report["recipe"] == "smoke"
    assert set(ORDER) - {"evaluation_report"} <= set(report["seconds"])
    assert {"raw", "ssc", "dsc"} == set(report["captions"])
    for figures in report["captions"].values():
        assert {"attribute_accuracy", "exact_match", "hallucination_rate", "mean_words"} <= set(figures)
    kinds = {(row["prompts"], row["upsampled"], row["decoder"]) for row in report["generation"]}
    assert {("short", False, "vae"), ("short", True, "vae"), ("descriptive", False, "vae")} <= kinds
    assert ("descriptive", False, "consistency") in kinds
    for row in report["generation"]:
        assert {"scene_accuracy", "object_accuracy", "clip_score", "fid"} <= set(row)
        assert set(row["scene_accuracy"]) >= {"value", "ci95"}
    assert {"vae", "teacher", "teacher_2", "consistency"} == set(report["decoder"])
    assert report["decoder"]["consistency"]["num_inference_steps"] == 2
    assert {row["model"] for row in report["generation"]} == {"raw", "dsc-95"}
    assert {(point["prompts"], point["step"]) for point in report["curves"]} == {
        (prompts, step) for prompts in ("raw", "short", "descriptive") for step in (10, 20)
    }
    assert report["models"]["latent_diffusion"]["registry"].startswith("scenes-smoke-latent_diffusion/")


def test_the_html_is_self_contained(lake):
    page = lake.read_bytes("reports/evaluation_report/latest/index.html").decode()
    assert "data:image/png;base64," in page
    assert 'src="http' not in page
    assert "<script src" not in page


STOCK = {
    "latent_diffusion": """
from diffusers import StableDiffusionPipeline
import torch
pipeline = StableDiffusionPipeline.from_pretrained(folder)
pictures = pipeline("large red circle top left, on a gray background", num_inference_steps=4, guidance_scale=3.0,
                    generator=torch.Generator().manual_seed(7), output_type="np").images
assert pictures.shape == (1, 32, 32, 3), pictures.shape
import hashlib
print(hashlib.sha256((pictures * 255).round().astype("uint8").tobytes()).hexdigest())
""",
    "consistency_decoder": """
from diffusers import ConsistencyDecoderVAE
import torch
decoder = ConsistencyDecoderVAE.from_pretrained(folder)
latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
pictures = decoder.decode(latents / decoder.config.scaling_factor, num_inference_steps=2).sample
assert pictures.shape == (2, 3, 32, 32), pictures.shape
""",
    "vae": "from diffusers import AutoencoderKL; AutoencoderKL.from_pretrained(folder)",
    "clip": """
from transformers import AutoModel
assert type(AutoModel.from_pretrained(folder)).__name__ == "CLIPModel"
""",
    "text_encoder": "from transformers import T5EncoderModel; T5EncoderModel.from_pretrained(folder)",
    "prompt_upsampler": "from transformers import AutoModelForSeq2SeqLM as M; M.from_pretrained(folder)",
    "ssc_captioner": """
from transformers import AutoModelForImageTextToText
import torch
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
assert model.generate(pixel_values=torch.zeros(2, 3, 32, 32), max_new_tokens=4).shape[0] == 2
""",
}
STOCK["dsc_captioner"] = STOCK["ssc_captioner"]


@pytest.mark.parametrize("asset", sorted(STOCK))
def test_models_load_without_atelier(lake, asset, tmp_path):
    outside(STOCK[asset], model_folder(lake, asset), tmp_path)


def test_the_same_seed_gives_the_same_picture_inside_and_outside(lake, tmp_path):
    import hashlib

    from components.families.latent_diffusion.sample import generate, load_pipeline

    folder = model_folder(lake, "latent_diffusion")
    prompt = "large red circle top left, on a gray background"
    inside = generate(load_pipeline(folder), [prompt], [7], num_inference_steps=4, guidance_scale=3.0)
    assert outside(STOCK["latent_diffusion"], folder, tmp_path) == hashlib.sha256(inside.tobytes()).hexdigest()


def test_the_student_decodes_generated_latents_the_same_inside_and_outside(lake, tmp_path):
    from components.families.latent_diffusion.sample import generate_latents, load_pipeline

    pipeline = load_pipeline(model_folder(lake, "latent_diffusion"))
    prompts = ["large red circle top left, on a gray background", "small blue star"]
    latents = generate_latents(pipeline, prompts, [7, 8], num_inference_steps=4, guidance_scale=3.0, batch_size=2)
    decoded_alike(model_folder(lake, "consistency_decoder"), latents, tmp_path)


def test_a_study_of_the_demos_arm_redoes_nothing_and_prints_its_table(home, lake, report):
    whole = [asset for asset in ORDER if kind_of(asset) != "table" and asset != "caption_blend_study"]
    pointers = [f"{lake.place(asset, kind_of(asset))}/current.json" for asset in whole]
    pointers.append(f"{lake.place('caption_blend_study', 'model', 'raw-seed0')}/current.json")
    before, running = [lake.read_bytes(pointer) for pointer in pointers], set(processes_of(home))
    done = run(["study", "--recipe", "smoke", "--arms", "raw-seed0"], home)
    assert done.returncode == 0, done.stdout[-3000:]
    wait_until(lambda: running.issuperset(processes_of(home)), "the end of all that the command had started")
    made = [line for line in done.stdout.splitlines() if " made in " in line]
    assert made == []
    assert done.stdout.count("is up to date") == len(ORDER) - 3 + 3 * 2
    rows = [line.split(" | ")[:2] for line in done.stdout.splitlines() if line.startswith("| descriptive ")]
    assert rows == [["| descriptive", "raw"], ["| descriptive", "dsc-95"]]
    assert before == [lake.read_bytes(pointer) for pointer in pointers]


def test_a_model_measured_again_has_the_score_of_its_own_report(home, lake):
    from components.contracts import ModelVersion
    from components.pipeline.report import _Evaluation

    version = ModelVersion("any", "1", lake.uri(lake.record("latent_diffusion", "model").path))
    score = _Evaluation(scenes_workspace(home, {}), {}, {}).score_of(version)
    expected = lake.record("evaluation_report", "report").metadata["score"]
    assert score == pytest.approx(expected, rel=1e-4)  # batches of another size round otherwise


def test_the_registry_loads_the_champion(home, lake, monkeypatch):
    import mlflow
    import pandas as pd

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/scenes-smoke-latent_diffusion@champion")
    answer = model.predict(pd.DataFrame({"prompt": ["small blue star"]}), params={"seed": 3, "num_inference_steps": 2})
    assert len(answer) == 1


def test_runs_link_both_ways(home, lake):
    import dagster as dg
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    run_id = lake.record("vae", "model").metadata["mlflow_run"]
    tags = client.get_run(run_id).data.tags
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        dagster_run = instance.get_run_by_id(tags["dagster.run_id"])
        assert dagster_run.tags["mlflow/vae"] == run_id
        assert dagster_run.job_name == "autoencoder"


def test_nothing_keeps_running(demo):
    _, processes = demo
    assert processes == []


def test_bad_arguments_are_named_at_once(tmp_path):
    for arguments, words in (
        (["demo", "--recipe", "tinny"], "there is no recipe 'tinny'"),
        (["demo", "--dataset", "scene"], "there is no data set 'scene'"),
        (["demo", "--recipe", "smoke", "--set", "vae.training.num_step=3"], "has no field 'num_step'"),
        (["demo", "--recipe", "smoke", "--set", "vae.training.num_steps=many"], "vae.training.num_steps"),
    ):
        done = run(arguments, tmp_path / "home")
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    blocked = tmp_path / "file"
    blocked.write_text(json.dumps("not a folder"))
    done = run(["demo", "--recipe", "smoke"], tmp_path / "home", {"ATELIER_LAKE": str(blocked / "lake")})
    assert done.returncode == 1
    assert "not writable" in done.stderr


def test_the_champion_draws_prompts_into_files(home, tmp_path):
    prompt = "small blue star <b>top left</b>"
    asked = ["generate", prompt, "--recipe", "smoke", "--num", "2", "--seed", "5", "--steps", "2", "--decoder", "both"]
    done = run([*asked, "--upsample", "--output", str(tmp_path)], home)
    assert done.returncode == 0, done.stderr
    assert "drawn by scenes-smoke-latent_diffusion/" in done.stdout
    files = sorted(tmp_path.iterdir())
    assert [file.name.split("-", 1)[1] for file in files] == [
        f"seed{seed}-{decoder}.png" for seed in (5, 6) for decoder in ("consistency", "vae")
    ]
    with Image.open(files[0]) as picture:
        assert picture.size == (32, 32)
        assert picture.text["prompt"] == prompt
        assert picture.text["written"] != prompt
    refused = run(["generate", "x", "--recipe", "smoke", "--alias", "nobody"], home)
    assert refused.returncode == 1
    assert "latent_diffusion has no nobody for dataset 'scenes'" in refused.stderr
