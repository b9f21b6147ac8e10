"""Where one deployment keeps its things, and how the environment moves each of them to a server.

What belongs here: paths, addresses, the generated ``dagster.yaml``. What does not: anything that reads or writes data.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from components.addresses import without_credentials

DAGSTER_YAML = """\
telemetry: {enabled: false}
nux: {enabled: false}
concurrency:
  pools: {default_limit: 1, granularity: run}
  runs: {max_concurrent_runs: 2}
run_retries: {enabled: true, max_retries: 1, retry_on_asset_or_op_failure: false}
run_monitoring: {enabled: true, start_timeout_seconds: 180}
python_logs: {managed_python_loggers: [components, orchestration], python_log_level: INFO}
retention: {schedule: {purge_after_days: 30}, sensor: {purge_after_days: 7}}
"""


@dataclass(frozen=True, slots=True)
class Home:
    """Paths and addresses of one data set with one recipe."""

    dataset: str
    recipe: str

    @property
    def folder(self) -> Path:
        """``ATELIER_HOME``, or ``.atelier/<dataset>-<recipe>`` in the working directory."""
        return Path(
            os.environ.get("ATELIER_HOME") or Path.cwd() / ".atelier" / f"{self.dataset}-{self.recipe}"
        ).absolute()

    @property
    def lake(self) -> str:
        """``ATELIER_LAKE`` (a path or ``s3://bucket/prefix``), or the home's own folder."""
        return os.environ.get("ATELIER_LAKE") or str(self.folder / "lake")

    @property
    def tracking_uri(self) -> str:
        """``MLFLOW_TRACKING_URI``, or the home's own sqlite file."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder / 'mlflow' / 'mlflow.db'}"

    @property
    def artifacts(self) -> str:
        """Where MLflow keeps artifacts when it writes to sqlite directly; a tracking server has its own."""
        return str(self.folder / "mlflow" / "artifacts")

    @property
    def dagster_home(self) -> Path:
        """``DAGSTER_HOME``, or the home's own folder."""
        return Path(os.environ.get("DAGSTER_HOME") or self.folder / "dagster")

    @property
    def scratch(self) -> Path:
        """Caches and checkpoints that may be deleted at any time."""
        return self.folder / "scratch"

    @property
    def logs(self) -> Path:
        """Full logs of runs that a command started."""
        return self.folder / "logs"

    def prepare(self) -> None:
        """Make the folders and, where there is none, the Dagster instance's configuration."""
        for folder in (self.scratch, self.logs, self.dagster_home, self.folder / "mlflow"):
            folder.mkdir(parents=True, exist_ok=True)
        settings = self.dagster_home / "dagster.yaml"
        if not settings.exists():
            settings.write_text(DAGSTER_YAML)


def dagster_url() -> str:
    """Where the Dagster UI is served, for links; ``make dev`` serves it there."""
    return os.environ.get("ATELIER_DAGSTER_URL", "http://127.0.0.1:3000")


def mlflow_url() -> str:
    """Where the MLflow UI is served, for links; ``make dev`` serves it there."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    own = without_credentials(uri) if uri.startswith("http") else "http://127.0.0.1:5000"
    return os.environ.get("ATELIER_MLFLOW_URL") or own
