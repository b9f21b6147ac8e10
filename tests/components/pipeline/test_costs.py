"""What versions cost, with what they were made from, and what a range will cost before it starts."""

import json
import logging
from dataclasses import replace

import pytest

from components.pipeline import train
from components.pipeline.costs import version_cost
from components.pipeline.graph import estimate_range, make
from components.pipeline.ingest import ingest, shard_names
from components.pipeline.prices import CPU_HOUR, GPU_HOUR, Prices
from components.pipeline.workspace import Workspace
from orchestration.cost_commands import COST_COMMANDS
from orchestration.present import metadata_of
from tests.workspaces import scenes_workspace

OVERRIDES = {
    "data.max_rows_per_shard": "24",
    "data.max_shards": "3",
    "vae.training.num_steps": "6",
    "vae.training.checkpoint_every": "2",
}
SPENT = json.dumps({"cpu_seconds": 1000.0, "gpu_seconds": 50.0, "peak_memory_gib": 99.0, "process": ""})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    """Shards, manifest, VAE and latents, made where a CPU second costs 1."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(CPU_HOUR, "3600")
        ws = scenes_workspace(tmp_path_factory.mktemp("costs"), OVERRIDES)
        for asset in ("raw_pairs", "image_set", "vae", "latents"):
            make(ws, asset)
        return ws


def metrics_of(ws: Workspace, run_id: str) -> dict[str, float]:
    lines = (ws.scratch.parent / "tracker" / "runs" / run_id / "metrics.jsonl").read_text().splitlines()
    return {name: value for line in lines for name, value in json.loads(line)["metrics"].items()}


def test_every_version_says_what_it_took(made: Workspace) -> None:
    for asset in ("raw_pairs", "latents"):
        for record in made.lake.records(asset).values():
            assert record.cost == pytest.approx(record.cpu_seconds, abs=0.02)
            assert record.metadata["pictures_per_second"] > 0
    vae = made.parent("vae")
    assert vae.cpu_seconds > 0
    assert vae.cost == pytest.approx(vae.cpu_seconds, abs=0.02)
    assert vae.gpu_seconds == 0
    assert 0.1 < vae.peak_memory_gib < 20


def test_a_version_costs_what_it_was_made_from_too(made: Workspace) -> None:
    found = version_cost(made.lake, made.parent("vae"))
    assert found.own.cost == made.parent("vae").cost
    assert {one.asset: one.num_versions for one in found.ancestors} == {"image_set": 1, "raw_pairs": 3}
    everything = [made.parent("vae"), made.parent("image_set"), *made.lake.records("raw_pairs").values()]
    assert found.total.cost == pytest.approx(sum(record.cost or 0 for record in everything))
    assert found.total.cost > found.own.cost
    assert not found.missing


def test_the_run_in_the_tracker_and_the_metadata_say_the_same(made: Workspace) -> None:
    record = made.parent("vae")
    metrics = metrics_of(made, record.metadata["mlflow_run"])
    shown = metadata_of(made, make(made, "vae")[0])
    for name in ("cpu_seconds", "gpu_seconds", "peak_memory_gib", "cost", "cost_with_parents"):
        assert metrics[f"cost/{name}"] == shown[name]
    assert shown["cost_with_parents"] == version_cost(made.lake, record).total.cost
    assert metadata_of(made, make(made, "latents")[1])["pictures_per_second"] > 0


def test_another_price_makes_nothing_again_and_what_was_made_keeps_its_cost(made: Workspace, monkeypatch) -> None:
    before = made.parent("vae")
    monkeypatch.setenv(CPU_HOUR, "1")
    for asset in ("raw_pairs", "image_set", "vae", "latents"):
        assert all(outcome.is_reused for outcome in make(made, asset))
    assert made.parent("vae") == before


def test_a_price_that_is_none_is_refused_by_name(monkeypatch) -> None:
    for text in ("dear", "-1", "nan", "inf"):
        monkeypatch.setenv(GPU_HOUR, text)
        with pytest.raises(ValueError, match=rf"{GPU_HOUR}='{text}' is not a price"):
            Prices.here()
    monkeypatch.setenv(GPU_HOUR, "36")
    monkeypatch.setenv(CPU_HOUR, "7.2")
    assert Prices.here().cost(cpu_seconds=500, gpu_seconds=100) == pytest.approx(2)


def test_a_training_that_was_stopped_costs_its_earlier_attempts_too(tmp_path, monkeypatch) -> None:
    ws = scenes_workspace(tmp_path, OVERRIDES | {"data.max_shards": "1"})
    make(ws, "raw_pairs")
    make(ws, "image_set")
    with monkeypatch.context() as broken:
        broken.setattr(train, "_keep", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            make(ws, "vae")
    (note,) = (path for path in ws.lake.files("checkpoints") if path.endswith("spent.json"))
    spent = ws.lake.read_json(note)
    assert spent["cpu_seconds"] > 0
    ws.lake.write_bytes(note, SPENT.encode())
    record = make(ws, "vae")[0].record
    assert 1000 < record.cpu_seconds < 1100
    assert (record.gpu_seconds, record.peak_memory_gib) == (50, 99)
    assert not ws.lake.files("checkpoints")


def test_a_range_says_beforehand_what_it_will_take(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv(CPU_HOUR, "3600")
    ws = scenes_workspace(tmp_path, OVERRIDES)
    first = estimate_range(ws, "raw_pairs")
    assert (first.num_shards, first.num_rows, first.cost) == (3, None, None)
    assert str(first) == "raw_pairs: 3 shards to make; no earlier shard tells how long that takes"
    (result,) = ingest(ws, shard_names(ws)[:1])
    assert result.outcome is not None
    known = estimate_range(ws, "raw_pairs")
    assert (known.num_shards, known.num_rows) == (2, 48)
    assert known.seconds == pytest.approx(2 * result.outcome.record.seconds, abs=0.02)
    assert known.cost == pytest.approx(2 * result.outcome.record.cpu_seconds, abs=0.02)
    with caplog.at_level(logging.INFO, "components.pipeline.ingest"):
        make(ws, "raw_pairs")
    assert str(known) in caplog.messages
    assert str(estimate_range(ws, "raw_pairs")) == "raw_pairs: nothing to make"


def test_rows_that_are_there_are_not_in_the_estimate(made: Workspace) -> None:
    assert str(estimate_range(made, "latents")) == "latents: nothing to make"
    again = estimate_range(replace(made, is_forced=True), "latents")
    assert (again.num_shards, again.num_rows) == (3, 72)
    assert again.rate is not None
    assert again.rate.num_rows == 72
    with pytest.raises(Exception, match="champion_captioners has not been materialized"):
        estimate_range(made, "recaptioned")


def test_the_command_answers_for_a_model_and_for_all(made: Workspace, capsys) -> None:
    import argparse

    (command,) = COST_COMMANDS
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    record = made.parent("vae")
    assert command.run(made, parser.parse_args([str(record.registry)])) == 0
    said = capsys.readouterr().out
    total = version_cost(made.lake, record).total.cost
    assert f"{record.registry} cost {total:.2f} with everything that it was made from" in said
    rows = {line.split()[0]: line.split()[1] for line in said.splitlines()[2:]}
    assert rows == {"vae": "1", "image_set": "1", "raw_pairs": "3", "total": "5"}
    assert command.run(made, parser.parse_args(["--json"])) == 0
    told = {one["asset"]: one for one in json.loads(capsys.readouterr().out)}
    assert told["latents"]["num_versions"] == 3
    assert told["total"]["cost"] == pytest.approx(sum(told[name]["cost"] for name in told if name != "total"))
