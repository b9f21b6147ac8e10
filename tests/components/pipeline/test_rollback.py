"""A champion is taken back: who is in use then, what is written again, and what no gate may undo."""

import dataclasses
import json
import logging
from pathlib import Path

import pytest

from components.data.lake import Record
from components.pipeline.captions import recaption
from components.pipeline.champions import choose_champions
from components.pipeline.due import due_captions
from components.pipeline.garbage import find_garbage
from components.pipeline.ingest import shard_names
from components.pipeline.rollback import NothingToReturnTo, former_champions, in_use, roll_back
from components.pipeline.withdrawals import rollbacks, withdrawn
from components.pipeline.workspace import UnfitParent, Workspace
from tests.captioned_lake import captioned_lake, promote_captioners, train_captioners
from tests.evaluated import parents_of, remember, report_of
from tests.finished_lake import keep_model
from tests.workspaces import scenes_workspace

CHAMPIONS = "champion_captioners"


@pytest.fixture
def captioned(tmp_path: Path) -> Workspace:
    return captioned_lake(tmp_path)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return scenes_workspace(tmp_path, {})


def alias(ws: Workspace, asset: str) -> str | None:
    champion = ws.tracker.by_alias(ws.registry_name(asset), "champion")
    return champion and champion.version


def test_captioners_return_together_and_write_nothing_again(captioned: Workspace) -> None:
    ws = captioned
    done = roll_back(ws, CHAMPIONS, by="Ada", why="it invents dogs")
    assert (done.from_version, done.to_version) == ("ssc/2,dsc/2", "ssc/1,dsc/1")
    assert in_use(ws, CHAMPIONS).data_version == "ssc/1,dsc/1"
    assert alias(ws, "ssc_captioner") == alias(ws, "dsc_captioner") == "1"
    assert len(due_captions(ws)) == 3
    made = [result.outcome.record for result in recaption(ws, shard_names(ws)) if result.outcome]
    assert [record.metadata["ssc_written"] + record.metadata["dsc_written"] for record in made] == [0, 0, 0]
    row = ws.lake.read_table(made[0].path).to_pylist()[0]
    assert row["dsc_captioner"] == "scenes-smoke-dsc_captioner/1"
    assert due_captions(ws) == []


def test_a_rollback_is_on_record_in_the_lake_and_in_the_registry(captioned: Workspace) -> None:
    ws = captioned
    done = roll_back(ws, CHAMPIONS, by="Ada", why="it invents dogs")
    assert rollbacks(ws.lake) == [done]
    when = f"on {done.at[:10]} at {done.at[11:16]} UTC"
    assert f"rolled back to ssc/1,dsc/1 by Ada {when}: it invents dogs" == str(done)
    folder = Path(ws.lake.root).parent / "tracker" / "models" / ws.registry_name("dsc_captioner")
    assert json.loads((folder / "2.json").read_text())["tags"]["withdrawn"] == str(done)
    assert "ssc/2,dsc/2 was rolled back" in json.loads((folder / "1.json").read_text())["tags"]["reinstated"]
    garbage = find_garbage(ws, min_age_hours=0, superseded=False)
    assert not [path for path in garbage.unknown if "rollback" in path]
    assert not [one for one in garbage.leftovers if "rollback" in one.path]


def test_the_gate_leaves_champions_as_they_are_where_nothing_is_new(captioned: Workspace, caplog) -> None:
    ws = captioned
    current = in_use(ws, CHAMPIONS)
    ws.lake.set_current(dataclasses.replace(current, fingerprint=fingerprint_of_the_gate(ws)))
    roll_back(ws, CHAMPIONS, by="Ada")
    with caplog.at_level(logging.WARNING):
        for workspace in (ws, ws.forced()):
            outcome = choose_champions(workspace)
            assert (outcome.record.data_version, outcome.is_reused) == ("ssc/1,dsc/1", True)
    assert "champion_captioners stays at ssc/1,dsc/1: ssc/2,dsc/2 was rolled back" in caplog.text
    assert alias(ws, "dsc_captioner") == "1"


def fingerprint_of_the_gate(ws: Workspace) -> str:
    settings = ws.recipe.recaption.model_dump(mode="json", exclude={"workers"})
    settings["golden"] = ws.dataset.golden_settings()
    inputs = {name: ws.parent(name).data_version for name in ("ssc_captioner", "dsc_captioner", "clip")}
    return ws.fingerprint(CHAMPIONS, inputs, settings)


def test_a_withdrawn_captioner_does_not_pass_another_gate(captioned: Workspace) -> None:
    ws = captioned
    roll_back(ws, CHAMPIONS, by="Ada", why="it invents dogs")
    with pytest.raises(UnfitParent, match=r"_captioner/2 stays a candidate") as told:
        choose_champions(ws)
    assert "it invents dogs. Train a new" in str(told.value)
    assert "atelier rollback champion_captioners --to ssc/2,dsc/2" in str(told.value)
    train_captioners(ws, "third")
    assert not any(ws.parent(f"{kind}_captioner").data_version in withdrawn(ws.lake, f"{kind}_captioner")
                   for kind in ("ssc", "dsc"))  # fmt: skip


def test_named_versions_return_and_are_no_longer_withdrawn(captioned: Workspace) -> None:
    ws = captioned
    train_captioners(ws, "third")
    promote_captioners(ws)
    roll_back(ws, CHAMPIONS, by="Ada")
    roll_back(ws, CHAMPIONS, by="Ada")  # the champion before that one, and not the one just withdrawn
    assert in_use(ws, CHAMPIONS).data_version == "ssc/1,dsc/1"
    with pytest.raises(NothingToReturnTo, match="no earlier champion"):
        roll_back(ws, CHAMPIONS, by="Ada")
    with pytest.raises(NothingToReturnTo, match="has no version 'ssc/9,dsc/9'; on record are ssc/1,dsc/1"):
        roll_back(ws, CHAMPIONS, "ssc/9,dsc/9", by="Ada")
    with pytest.raises(NothingToReturnTo, match="in use already"):
        roll_back(ws, CHAMPIONS, "ssc/1,dsc/1", by="Ada")
    roll_back(ws, CHAMPIONS, "ssc/3,dsc/3", by="Ada")
    assert alias(ws, "ssc_captioner") == "3"
    assert len(withdrawn(ws.lake, "ssc_captioner")) == 2  # the second, and the first in whose place it came
    assert {record.data_version for record in former_champions(ws, CHAMPIONS)} == {
        f"ssc/{n},dsc/{n}" for n in (1, 2, 3)
    }


@pytest.mark.parametrize("asset", [CHAMPIONS, "vae"])
@pytest.mark.parametrize("broken", ["set_alias", "set_tags"])
def test_a_rollback_that_broke_off_is_completed_by_another(captioned: Workspace, asset: str, broken: str) -> None:
    ws = captioned
    for name in ("first", "second", "third"):
        keep_model(ws, "vae", {}, name)
    if asset == CHAMPIONS:
        train_captioners(ws, "third")
        promote_captioners(ws)
    left, expected = list(former_champions(ws, asset))[:2]
    assert in_use(ws, asset) == left
    with pytest.MonkeyPatch.context() as away:
        away.setattr(type(ws.tracker), broken, lambda *_: (_ for _ in ()).throw(ConnectionError("away")))
        with pytest.raises(ConnectionError):
            roll_back(ws, asset, by="Ada")
    assert in_use(ws, asset) == left
    roll_back(ws, asset, by="Ada")
    assert in_use(ws, asset) == expected
    models = [f"{kind}_captioner" for kind in ("ssc", "dsc")] if asset == CHAMPIONS else [asset]
    assert [alias(ws, name) for name in models] == ["2"] * len(models)


def test_a_model_without_a_gate_is_in_use_again_and_not_trained_anew(ws: Workspace) -> None:
    keep_model(ws, "vae", {}, "first")
    keep_model(ws, "vae", {}, "second")
    roll_back(ws, "vae", by="Ada")
    assert (alias(ws, "vae"), ws.parent("vae").registry) == ("1", "scenes-smoke-vae/1")
    assert keep_model(ws, "vae", {}, "second").registry == "scenes-smoke-vae/1"
    assert keep_model(ws, "vae", {}, "third").registry == "scenes-smoke-vae/3"
    roll_back(ws, "vae", "2", by="Ada")
    assert keep_model(ws, "vae", {}, "second").registry == "scenes-smoke-vae/2"


def evaluated(ws: Workspace, clip_score: float, version: str) -> dict[str, Record]:
    """A new version of each gated model and a report on it, as an evaluation leaves them."""
    parents = parents_of(ws)
    found = {}
    for asset, record in parents.items():
        path = f"models/{asset}/{version}"
        registered = ws.tracker.register(ws.registry_name(asset), ws.lake.uri(path), run=None, tags={}, parents=[])
        found[asset] = dataclasses.replace(record, data_version=version, path=path, registry=str(registered))
        ws.lake.write_bytes(f"{path}/weights", b"")
        ws.lake.set_current(found[asset])
    from components.pipeline.report import promote

    promotion = promote(ws, found, report_of(clip_score, 0.3))
    remember(ws, promotion)
    last = ws.lake.record("evaluation_report", "report")
    assert last is not None
    inputs = dict.fromkeys(found, version)
    ws.lake.set_current(dataclasses.replace(last, inputs=inputs, data_version=f"report-{version}"))
    return found


def test_a_rolled_back_model_needs_a_new_version_to_beat_the_one_in_its_place(ws: Workspace) -> None:
    from components.pipeline.report import promote

    evaluated(ws, 70, "a")
    second = evaluated(ws, 80, "b")
    done = roll_back(ws, "latent_diffusion", by="Ada", why="it draws no stars")
    assert done.to_version.endswith("latent_diffusion/2")  # parents_of registers one of its own before each
    assert in_use(ws, "latent_diffusion").data_version == "a"
    again = promote(ws, second, report_of(80, 0.3))
    assert again["champions"] == ["consistency_decoder"]
    assert "it draws no stars" in again["stays_a_candidate_because"]["latent_diffusion"][0]
    assert in_use(ws, "latent_diffusion").data_version == "a"
    third = evaluated(ws, 72, "c")  # worse than the one withdrawn, better than the one in use
    assert in_use(ws, "latent_diffusion").data_version == third["latent_diffusion"].data_version == "c"


def test_what_has_no_champion_is_refused_with_what_has(ws: Workspace) -> None:
    with pytest.raises(ValueError, match="become champions together: roll back champion_captioners"):
        roll_back(ws, "dsc_captioner", by="Ada")
    with pytest.raises(ValueError, match="recaptioned has no champion; what can be rolled back is champion_captioners"):
        roll_back(ws, "recaptioned", by="Ada")
    with pytest.raises(UnfitParent, match="has no champion yet"):
        roll_back(ws, "latent_diffusion", by="Ada")
    keep_model(ws, "vae", {}, "first")
    with pytest.raises(NothingToReturnTo, match="no earlier champion of vae is left besides scenes-smoke-vae/1"):
        roll_back(ws, "vae", by="Ada")
