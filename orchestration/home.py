"""Where one deployment keeps its things, and how the environment moves each of them to a server.

What belongs here: paths, addresses, the generated ``dagster.yaml``. What does not: anything that reads or writes data.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from components.addresses import without_credentials

POSTGRES = "ATELIER_POSTGRES_URL"
"""Environment variable with the address of Dagster's PostgreSQL, which several machines share; without it, sqlite."""

_MARK = "# Written by Atelier, which replaces it; take this line out to keep changes of your own."
_COMMON = """\
telemetry: {enabled: false}
nux: {enabled: false}
run_retries: {enabled: true, max_retries: 1, retry_on_asset_or_op_failure: false}
run_monitoring: {enabled: true, start_timeout_seconds: 180, cancel_timeout_seconds: 180}
python_logs: {managed_python_loggers: [components, orchestration], python_log_level: INFO}
retention:
  schedule: {purge_after_days: 30}
  sensor: {purge_after_days: {skipped: 7, failure: 30, success: 30}}
"""
LAPTOP = f"""\
{_MARK}
{_COMMON}\
# The pools: "gpu" for work with networks, "captioner" for recaptioning. A place is taken by a whole run.
concurrency:
  pools: {{default_limit: 2, granularity: run}}
  runs: {{max_concurrent_runs: 2}}
"""
SERVER = f"""\
{_MARK}
{_COMMON}\
# The pools: "gpu" for work with networks, "captioner" for recaptioning. A place is taken by a whole run; a pool's own
# limit is set with `dagster instance concurrency set gpu 4`, or in the UI below Deployment, Concurrency.
concurrency:
  pools: {{default_limit: 1, granularity: run}}
  runs: {{max_concurrent_runs: 10}}
storage:
  postgres:
    postgres_url: {{env: {POSTGRES}}}
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
        """Caches and copies that may be deleted at any time."""
        return self.folder / "scratch"

    @property
    def logs(self) -> Path:
        """Full logs of runs that a command started."""
        return self.folder / "logs"

    def prepare(self) -> None:
        """Make the folders and the Dagster instance's configuration, unless somebody has written one of their own.

        The configuration never holds the database's address, which the environment gives to each process.
        """
        if url := os.environ.get(POSTGRES):
            os.environ[POSTGRES] = with_driver(url)
        for folder in (self.scratch, self.logs, self.dagster_home, self.folder / "mlflow"):
            folder.mkdir(parents=True, exist_ok=True)
        settings = self.dagster_home / "dagster.yaml"
        wanted, present = (
            SERVER if os.environ.get(POSTGRES) else LAPTOP,
            settings.read_text() if settings.exists() else None,
        )
        if present is None or (present != wanted and present.startswith(_MARK)):
            settings.write_text(wanted)


def with_driver(url: str) -> str:
    """A PostgreSQL address that names the driver that is installed: SQLAlchemy's own choice is another."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg2{separator}{rest}" if scheme in ("postgres", "postgresql") else url


def dagster_url() -> str:
    """Where the Dagster UI is served, for links; ``make dev`` serves it there."""
    return os.environ.get("ATELIER_DAGSTER_URL", "http://127.0.0.1:3000")


def mlflow_url() -> str:
    """Where the MLflow UI is served, for links; ``make dev`` serves it there."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    own = without_credentials(uri) if uri.startswith("http") else "http://127.0.0.1:5000"
    return os.environ.get("ATELIER_MLFLOW_URL") or own
