from __future__ import annotations

from pathlib import Path

import pytest

from components.tracking import open_tracker


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One migrated sqlite file; MLflow's first migration takes seconds."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    open_tracker(f"sqlite:///{file}").prepare()
    return file
