"""The whole graph with its lake on S3: minutes, so only ``make chaos`` runs it."""

import pytest

from components.data.lake import Lake
from components.pipeline.graph import ORDER
from tests.command_line import run
from tests.s3 import environment_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


def test_the_whole_graph_runs_with_its_lake_on_s3(bucket, s3, tmp_path):
    added = {**environment_for(s3.endpoint), "ATELIER_LAKE": f"{bucket}/lake"}
    done = run(["demo", "--recipe", "smoke"], tmp_path, added)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lake = Lake(f"{bucket}/lake")
    report = lake.read_json("reports/evaluation_report/latest/report.json")
    assert set(ORDER) - {"evaluation_report"} <= set(report["seconds"])
    assert not (tmp_path / "lake").exists()

    again = run(["demo", "--recipe", "smoke"], tmp_path, added)
    assert again.returncode == 0, again.stdout[-3000:]
    assert " made in " not in again.stdout

    asked = ["generate", "small blue star", "--recipe", "smoke", "--steps", "2", "--decoder", "both"]
    drawn = run([*asked, "--output", str(tmp_path / "drawn")], tmp_path, added)
    assert drawn.returncode == 0, drawn.stderr
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
