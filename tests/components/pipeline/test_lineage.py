"""Where a row comes from, which captions it has had, and who saw it."""

import hashlib
import io
import json

import dagster as dg
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.data.catalog import split_of
from components.data.lake import LakeError
from components.data.opt_outs import OptOutError
from components.data.perceptual_hash import hash_text, perceptual_hash
from components.pipeline.captions import build_training_set
from components.pipeline.ingest import build_image_set, ingest, shard_names
from components.pipeline.lineage import Ledger, ModelLineage, NotInLake, PartLineage, RowLineage, ancestry
from components.pipeline.rollback import roll_back
from components.pipeline.rows import load_rows
from orchestration.checks import check_results
from tests.captioned_lake import captioned_lake, write_captions
from tests.finished_lake import Finished, finished_lake, keep_model
from tests.workspaces import scenes_workspace


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    return finished_lake(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def ledger(finished: Finished) -> Ledger:
    return Ledger(finished.ws)


def rows_of(finished: Finished, shard: str = "00000") -> list[dict]:
    return finished.ws.lake.read_table(finished.made[f"raw_pairs[{shard}]"].path).to_pylist()


def train_keys(finished: Finished) -> list[str]:
    """Keys of the first shard that are trained on whatever is read: the first row's captions are rejected."""
    fraction = finished.ws.dataset.evaluation_fraction
    return [row["key"] for row in rows_of(finished)[1:] if split_of(row["key"], fraction) == "train"]


def seen(finished: Finished, sights) -> dict[str, tuple[str, ...]]:
    """Names of the models that saw something, and through what."""
    names = {(r.asset, r.data_version): name for name, r in finished.made.items()}
    return {names[one.model.asset, one.model.data_version]: one.through for one in sights}


def test_a_row_knows_its_source_its_captions_and_who_saw_it(finished: Finished, ledger: Ledger) -> None:
    raw = next(row for row in rows_of(finished) if row["key"] == train_keys(finished)[0])
    row = ledger.row(raw["key"])
    (version,) = row.versions
    assert version.row == {name: value for name, value in raw.items() if name not in ("image", "colours")}
    assert version.part.is_current
    captioners = [str(finished.made[f"{turn}_dsc_captioner"].registry) for turn in ("first", "second")]
    assert [(c.captioner, c.part.is_current) for c in row.captions if c.kind == "dsc"] == [
        (captioners[0], False),
        (captioners[1], True),
    ]
    assert [c.text for c in row.captions if c.kind == "dsc"] == [f"{raw['key']} by {name}" for name in captioners]
    assert {(one.manifest.asset, one.standing) for one in row.sets} == {
        ("image_set", "trained on"),
        ("training_set", "trained on"),
    }
    assert len(row.sets) == 3
    models = seen(finished, row.models)
    direct = {name for name, through in models.items() if not through}
    assert {"clip", "base_captioner", "vae", "first_upsampler", "first_diffusion", "second_diffusion"} <= direct
    assert models["first_text_encoder"] == ("prompt_upsampler",)
    assert "kept_vae" not in models  # a checkpoint that nothing was trained into


def test_captioners_saw_only_their_examples(finished: Finished, ledger: Ledger) -> None:
    examples = finished.ws.read_manifest("image_set")[1]["examples"]["dsc"]
    with_example, without = (
        next(key for key in train_keys(finished) if (key in examples) == wanted) for wanted in (True, False)
    )
    assert seen(finished, ledger.row(with_example).models)["first_dsc_captioner"] == ()
    assert seen(finished, ledger.row(without).models)["first_dsc_captioner"] == ("base_captioner",)


def test_held_out_and_rejected_rows_were_not_trained_on(finished: Finished, ledger: Ledger) -> None:
    fraction = finished.ws.dataset.evaluation_fraction
    both = rows_of(finished) + rows_of(finished, "00001")
    held_out = next(row["key"] for row in both if split_of(row["key"], fraction) == "evaluation")
    row = ledger.row(held_out)
    assert {one.standing for one in row.sets} == {"evaluation"}
    assert row.models == []
    rejected = rows_of(finished)[0]["key"]
    row = ledger.row(rejected)
    assert {one.manifest.asset: one.standing for one in row.sets} == {
        "image_set": "trained on",
        "training_set": "captions rejected",
    }
    models = seen(finished, row.models)
    assert models["first_upsampler"] == ("dsc_captioner", "ssc_captioner")
    assert models["first_diffusion"] == ("dsc_captioner", "ssc_captioner", "text_encoder", "vae")
    assert {caption.rejected for caption in row.captions} == {"dsc empty"}


def test_a_rejected_row_says_why(tmp_path) -> None:
    ws = scenes_workspace(tmp_path, {"data.max_rows_per_shard": "4", "data.ingest.min_side": "64"})
    assert not [result.failure for result in ingest(ws, shard_names(ws)) if result.failure]
    row = Ledger(ws).row("000000001")
    assert (row.versions, row.captions, row.models) == ([], [], [])
    assert [(one["reason"], one["detail"]) for one in row.rejections] == [("too_small", "32x32 pixels, min_side is 64")]


def test_a_picture_is_found_by_either_digest(finished: Finished, ledger: Ledger) -> None:
    raw = rows_of(finished)[3]
    for digest in (raw["sha256"], raw["source_sha256"], raw["sha256"].upper()):
        assert raw["key"] in [row.key for row in ledger.sha256(digest)]


def test_a_picture_from_outside_leads_to_its_near_copies(finished: Finished, ledger: Ledger, tmp_path) -> None:
    raw = rows_of(finished)[3]
    with Image.open(io.BytesIO(raw["image"])) as opened:
        opened.resize((128, 128), Image.Resampling.BICUBIC).save(tmp_path / "copy.jpg", quality=80)
    found = ledger.picture(str(tmp_path / "copy.jpg"))
    assert found.sha256 == hashlib.sha256((tmp_path / "copy.jpg").read_bytes()).hexdigest()
    assert found.sha256 not in {row["source_sha256"] for row in rows_of(finished)}
    assert raw["key"] in [row.key for row in found.rows]
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.jpg is no picture that can be compared: unsupported_format"):
        ledger.picture(str(tmp_path / "text.jpg"))


def test_a_source_leads_to_everything_made_from_it(finished: Finished, ledger: Ledger) -> None:
    part = finished.made["raw_pairs[00001]"]
    parts = ledger.source(part.metadata["uri"])
    assert isinstance(parts, PartLineage)
    assert [one.data_version for one in parts.parts] == [part.data_version]
    assert {one.asset for one in parts.sets} == {"image_set", "training_set"}
    assert {"vae", "first_diffusion", "second_diffusion"} <= set(seen(finished, parts.models))
    member = ledger.source(rows_of(finished, "00001")[2]["source"])
    assert isinstance(member, RowLineage)
    assert member.key == rows_of(finished, "00001")[2]["key"]


def test_a_captioner_leads_to_what_read_its_captions(finished: Finished, ledger: Ledger) -> None:
    parts = ledger.captioner(str(finished.made["first_dsc_captioner"].registry))
    assert {one.shard for one in parts.parts} == {"00000", "00001"}
    assert [one.data_version for one in parts.sets] == [finished.made["first_training_set"].data_version]
    assert seen(finished, parts.models) == {
        "first_upsampler": (),
        "first_text_encoder": ("prompt_upsampler",),
        "first_diffusion": (),
    }


def test_a_model_knows_what_it_was_made_from_and_into(finished: Finished, ledger: Ledger) -> None:
    first, second = finished.made["first_diffusion"], finished.made["second_diffusion"]
    for name, expected in (
        ("latent_diffusion", second),
        (f"latent_diffusion@{first.data_version}", first),
        (str(first.registry), first),
    ):
        assert ledger.model(name).model.data_version == expected.data_version
    model = ledger.model(str(first.registry))
    assert isinstance(model, ModelLineage)
    made_from = {(one.asset, one.data_version) for one in model.ancestors}
    for name in ("vae", "first_text_encoder", "first_upsampler", "first_training_set", "image_set"):
        assert (finished.made[name].asset, finished.made[name].data_version) in made_from
    assert model.captioners == sorted(str(finished.made[n].registry) for n in ("first_dsc_captioner", "ssc_captioner"))
    assert sum(model.sources.values()) == 48
    assert model.missing == []
    assert {"first_diffusion", "second_diffusion"} <= set(seen(finished, ledger.model("vae").descendants))


def test_a_lost_record_is_said_and_stops_no_answer(tmp_path) -> None:
    finished = finished_lake(tmp_path, rows_per_shard=8)
    lost = finished.made["first_text_encoder"]
    finished.ws.lake.remove(f"models/text_encoder/{lost.data_version}.record.json")
    _, missing = ancestry(finished.ws.lake, finished.made["first_diffusion"])
    assert missing == [f"text_encoder {lost.data_version}"]


def test_parts_of_an_older_schema_are_looked_through(tmp_path, monkeypatch) -> None:
    finished = finished_lake(tmp_path, rows_per_shard=8)
    ws, (old, new) = finished.ws, [finished.made[f"raw_pairs[{shard}]"] for shard in ("00000", "00001")]
    without = ws.lake.read_table(old.path).drop_columns(["perceptual_hash", "colours"])
    pq.write_table(without, f"{ws.lake.root}/{old.path}")
    manifest = ws.read_manifest("image_set")
    entries = [{k: v for k, v in entry.items() if k != "set_aside"} for entry in manifest[1]["shards"]]
    ws.lake.write_json(manifest[0].path, {**manifest[1], "shards": entries})
    key = without["key"][2].as_py()
    assert Ledger(ws).row(key).versions[0].row["perceptual_hash"] is None
    assert [row.key for row in Ledger(ws).sha256(without["sha256"][2].as_py())] == [key]
    last = ws.lake.read_table(new.path).to_pylist()[-1]
    (tmp_path / "copy.png").write_bytes(last["image"])
    assert last["key"] in [row.key for row in Ledger(ws).picture(str(tmp_path / "copy.png")).rows]
    write_list(tmp_path, monkeypatch, {"key": key}, {"perceptual_hash": last["perceptual_hash"]})
    assert {key, last["key"]} <= {row.key for row in Ledger(ws).opted_out()}
    assert len(load_rows(ws).train) > 0


def test_captions_lead_to_the_captioners_and_their_champions(tmp_path) -> None:
    ws = captioned_lake(tmp_path)
    models = {}
    for turn, to in (("first", "ssc/1,dsc/1"), ("second", "ssc/2,dsc/2")):
        roll_back(ws, "champion_captioners", to, by="Ada")
        write_captions(ws)
        training_set = build_training_set(ws).record
        models[turn] = keep_model(ws, "latent_diffusion", {"training_set": training_set.data_version}, turn)
    for number, turn in enumerate(models, start=1):
        answer = Ledger(ws).model(str(models[turn].registry))
        assert answer.missing == []
        writers = {one.registry or one.data_version for one in answer.ancestors if "caption" in one.asset}
        assert writers == {
            f"ssc/{number},dsc/{number}",
            f"scenes-smoke-ssc_captioner/{number}",
            f"scenes-smoke-dsc_captioner/{number}",
        }


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (lambda ledger: ledger.row("nobody"), "has a row with the key 'nobody'"),
        (lambda ledger: ledger.sha256("0" * 64), "has a picture with the SHA-256 000"),
        (lambda ledger: ledger.source("s3://nowhere"), "nothing was read from s3://nowhere; sources are scenes"),
        (lambda ledger: ledger.captioner("x/1"), "x/1 wrote no captions here; captioners are scenes-smoke-dsc"),
        (lambda ledger: ledger.model("vea"), "there is no model 'vea'.*there are scenes-smoke-base_captioner/1"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(ledger: Ledger, question, words: str) -> None:
    with pytest.raises(NotInLake, match=words):
        question(ledger)


# ------------------------------------------------------------------------------------------------------------ opt-outs
def write_list(tmp_path, monkeypatch, *entries: dict | str) -> None:
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (tmp_path / "opt_outs.jsonl").write_text("# requests\n\n" + "\n".join(lines))
    monkeypatch.setenv("ATELIER_OPT_OUT", str(tmp_path / "opt_outs.jsonl"))


def near_copy_hash(image: bytes) -> str:
    """The hash of a scaled and recompressed copy, as somebody who asks would have it."""
    sink = io.BytesIO()
    with Image.open(io.BytesIO(image)) as opened:
        opened.resize((200, 200), Image.Resampling.BICUBIC).save(sink, "JPEG", quality=70)
    with Image.open(sink) as copy:
        return hash_text(perceptual_hash(copy))


def test_opted_out_rows_leave_the_next_training_set_and_their_models_are_named(tmp_path, monkeypatch) -> None:
    finished = finished_lake(tmp_path)
    ws, rows = finished.ws, rows_of(finished)
    before = load_rows(ws, with_recaptions=True)
    keys = train_keys(finished)
    by_key, by_digest, by_source, by_likeness = (next(r for r in rows if r["key"] == key) for key in keys[:4])
    held_out = before.evaluation.keys[0]
    write_list(
        tmp_path,
        monkeypatch,
        {"key": by_key["key"], "reason": "asked on 1 May"},
        {"sha256": by_digest["sha256"].upper()},
        {"sha256": hashlib.sha256(by_source["image"]).hexdigest()},
        {"perceptual_hash": near_copy_hash(by_likeness["image"]), "max_distance": 4},
        {"key": held_out},
    )
    named = {by_key["key"], by_digest["key"], by_source["key"], by_likeness["key"], held_out}
    waiting = Ledger(ws).opted_out()
    assert named <= {one.key for one in waiting}
    assert not any(one.is_left_out for one in waiting)

    images = build_image_set(ws).record
    assert images.data_version != finished.made["image_set"].data_version
    training_set = build_training_set(ws).record
    assert training_set.data_version != finished.made["second_training_set"].data_version
    after = load_rows(ws, with_recaptions=True)
    left_out = {key for split in (before.train, before.evaluation) for key in split.keys} - {
        key for split in (after.train, after.evaluation) for key in split.keys
    }
    assert named <= left_out
    assert images.metadata["opted_out"] == len(left_out | {one.key for one in waiting})
    assert images.metadata["train"] + images.metadata["evaluation"] == 48 - images.metadata["opted_out"]

    assert str(finished.made["second_diffusion"].registry) in images.metadata["opted_out_seen_by"]
    (check,) = [one for one in check_results("image_set", [images]) if one.check_name == "no_model_saw_opted_out_rows"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)

    keep_model(ws, "latent_diffusion", {"training_set": training_set.data_version}, "third")
    found = {one.key: one for one in Ledger(ws).opted_out()}
    assert all(one.is_left_out for one in found.values())
    assert found[by_key["key"]].reason == "asked on 1 May"
    assert found[held_out].models == []
    saw = {(s.model.asset, s.model.data_version) for s in found[by_key["key"]].models if not s.through}
    assert ("latent_diffusion", finished.made["second_diffusion"].data_version) in saw
    assert ("latent_diffusion", ws.parent("latent_diffusion").data_version) not in saw

    monkeypatch.delenv("ATELIER_OPT_OUT")
    assert build_image_set(ws).record.data_version == finished.made["image_set"].data_version


def test_a_list_that_names_nothing_changes_nothing(tmp_path, monkeypatch) -> None:
    finished = finished_lake(tmp_path, rows_per_shard=8)
    write_list(tmp_path, monkeypatch, {"key": "nobody"}, {"perceptual_hash": "0" * 16})
    assert build_image_set(finished.ws).record.data_version == finished.made["image_set"].data_version
    assert Ledger(finished.ws).opted_out() == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 3: it is not JSON"),
        ("{}", "line 3: give exactly one of key, sha256 and perceptual_hash; write for example"),
        ('{"key": "a", "sha256": "' + "0" * 64 + '"}', "line 3: give exactly one"),
        ('{"sha256": "12"}', "line 3: sha256: String should match"),
        ('{"perceptual_hash": "12"}', "line 3: perceptual_hash: .*16 hexadecimal digits"),
        ('{"keys": "a"}', "line 3: keys: Extra inputs"),
        (
            '{"perceptual_hash": "0123456789abcdef", "max_distance": 40}',
            "line 3: max_distance: .*less than or equal to 16",
        ),
    ],
)
def test_a_broken_list_stops_training_with_file_and_line(ledger: Ledger, tmp_path, monkeypatch, line, words) -> None:
    write_list(tmp_path, monkeypatch, line)
    with pytest.raises(OptOutError, match=rf"opt_outs\.jsonl, {words}"):
        build_image_set(ledger.ws)


def test_a_list_that_is_gone_stops_training(ledger: Ledger, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ATELIER_OPT_OUT", str(tmp_path / "gone.jsonl"))
    with pytest.raises(OptOutError, match=r"gone\.jsonl cannot be read .*nothing is trained without it"):
        build_image_set(ledger.ws)
    assert not isinstance(OptOutError("x"), LakeError)
