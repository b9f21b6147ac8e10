"""150 hostile rows and shards: each has its reason, none stops the others, hangs, or fills the memory."""

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from tests.components.data.hostile import ROWS, SHARDS
from tests.processes import PATIENCE

MAX_MIB = 1024  # of the ingesting process and its decoder together
MAX_SECONDS = 120  # of any one shard, on a machine that is busy


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of every shard, by its name, and ``peak``; made and ingested in processes of their own."""
    folder = tmp_path_factory.mktemp("hostile")
    for module in ("hostile", "hostile_ingest"):
        command = [sys.executable, "-W", "ignore", "-m", f"tests.components.data.{module}", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line.get("shard", "peak"): line for line in lines}


def test_the_suite_is_as_large_as_it_says() -> None:
    assert sum(len(rows) for _, rows in ROWS.values()) + len(SHARDS) >= 150


@pytest.mark.parametrize(
    ("shard", "number"), [(shard, number) for shard, (_, rows) in ROWS.items() for number in range(len(rows))]
)
def test_a_row_has_its_reason(told: dict[str, dict[str, Any]], shard: str, number: int) -> None:
    key, expected = ROWS[shard][1][number]
    found = {reason for name, reason in told[shard]["rows"] if name == key}
    assert found & ({expected} if isinstance(expected, str) else set(expected)), (key, found)


@pytest.mark.parametrize("shard", ROWS)
def test_every_row_that_is_read_is_kept_or_rejected(told: dict[str, dict[str, Any]], shard: str) -> None:
    outcome = told[shard]
    counts = Counter(reason for _, reason in outcome["rows"])
    assert outcome["read"] == counts.total()
    assert outcome["written"] == counts["kept"] > 0 or shard.startswith("a large value")


@pytest.mark.parametrize("shard", SHARDS)
def test_a_shard_that_cannot_be_trusted_is_unreadable_and_named(told: dict[str, dict[str, Any]], shard: str) -> None:
    assert "materialize its partition again" in told[shard]["unreadable"], told[shard]
    assert shard in told[shard]["unreadable"]


def test_nothing_hangs(told: dict[str, dict[str, Any]]) -> None:
    assert max(outcome.get("seconds", 0.0) for outcome in told.values()) < MAX_SECONDS


def test_all_of_it_takes_less_than_a_gibibyte(told: dict[str, dict[str, Any]]) -> None:
    assert told["peak"]["peak_mib"] < MAX_MIB
