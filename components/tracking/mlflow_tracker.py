"""Runs, lineage and the model registry in MLflow.

What belongs here: everything that imports mlflow, always inside a function. What does not: MLflow's fluent functions
(``mlflow.log_metric`` and so on): they keep one active run per thread and one URI per process, and here two trainings
may run side by side.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from components.addresses import without_credentials
from components.contracts import ModelVersion, TrackedRun

from .local_tracker import flatten
from .outage import Backlog, Outage, PatientClient

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from PIL import Image

logger = logging.getLogger(__name__)

LOADER = "components.serving"
"""Module whose ``_load_pyfunc`` opens a registered version."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # ``outage`` repeats what is not answered
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_SECONDS_TO_FIND = 10.0  # a server that is just starting
_MAX_PER_BATCH = 100  # parameters and tags; metrics may be 1000
_MAX_DIGEST_LENGTH = 36
_MAX_TAG_LENGTH = 5000  # of a run's tag; MLflow 2 servers take no more


class MlflowRun:
    """One MLflow run (``contracts.TrackedRun``). ``url`` opens it in the UI where a server was named.

    What is logged while the server is away waits in this process (``outage``).
    """

    def __init__(self, client: MlflowClient, outage: Outage, run_id: str, path: str, url: str | None) -> None:
        self.run_id = run_id
        self.path = path
        self.url = url
        self._client = client
        self._backlog = Backlog(outage)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures at a step (0 without one), in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entities = [Metric(name, float(value), now, step or 0) for name, value in metrics.items()]
        for first in range(0, len(entities), _MAX_PER_BATCH):
            batch = entities[first : first + _MAX_PER_BATCH]
            self._backlog.add(partial(self._client.log_batch, self.run_id, metrics=batch))

    def log_image(self, image: Image.Image, name: str) -> None:
        """Keep the picture as an artifact."""
        self._backlog.add(partial(self._client.log_image, self.run_id, image, artifact_file=name))

    def log_text(self, text: str, name: str) -> None:
        """Keep the text as an artifact."""
        self._backlog.add(partial(self._client.log_text, self.run_id, text, name))

    def log_input(self, name: str, uri: str, digest: str, context: str) -> None:
        """Record the data set, with MLflow's 36 characters of its digest (and all of it in a tag)."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        kind = urlsplit(uri).scheme.replace("file", "") or "local"
        dataset = Dataset(name, digest[:_MAX_DIGEST_LENGTH], kind, json.dumps({"uri": uri}))
        tags = [InputTag("mlflow.data.context", context), InputTag("digest", digest[:500])]
        self._backlog.add(partial(self._client.log_inputs, self.run_id, datasets=[DatasetInput(dataset, tags)]))

    def flush(self) -> int:
        """Wait, within limits, until everything is kept; how much was lost."""
        return self._backlog.flush()


class MlflowTracker:
    """Implements ``contracts.Tracker`` on an MLflow server or database; connects at the first use.

    A server that is away is waited for (``outage``), then ``TrackerAway`` names it. ``artifact_root`` (a path or URI)
    is where artifacts lie when no server keeps them; next to an sqlite file it is ``artifacts``. May be pickled.
    Nothing of it is kept in the process's state, so trackers of several URIs coexist.
    """

    def __init__(self, uri: str, artifact_root: str | None = None, experiment: str = "atelier") -> None:
        self.uri: str | None = uri
        self.artifact_root = artifact_root
        self.experiment = experiment
        self._connection: tuple[MlflowClient, str] | None = None
        self._raw: MlflowClient | None = None
        self._outage = Outage(uri, _is_away)

    def __reduce__(self) -> tuple[type[MlflowTracker], tuple[str | None, str | None, str]]:
        return MlflowTracker, (self.uri, self.artifact_root, self.experiment)

    @property
    def shown(self) -> str:
        """The address as messages may name it."""
        return without_credentials(self.uri or "")

    def prepare(self) -> None:
        """Migrate the database and make the experiment, once for all processes; nothing happens the second time.

        A server that does not answer is not waited for long here: its address may be wrong.
        """
        with self._outage.limited(_SECONDS_TO_FIND):
            self._connect()

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> MlflowRun:
        """Start a run with its parameters, flattened to dotted names."""
        from mlflow.entities import Param

        client, experiment_id = self._connect()
        kept = {key: value[:_MAX_TAG_LENGTH] for key, value in tags.items()}
        run = client.create_run(experiment_id, run_name=name, tags=kept)
        entities = [Param(key, value) for key, value in flatten(params).items()]
        for first in range(0, len(entities), _MAX_PER_BATCH):
            client.log_batch(run.info.run_id, params=entities[first : first + _MAX_PER_BATCH])
        return self._run(run.info.run_id, experiment_id)

    def resume(self, run_id: str) -> MlflowRun:
        """The run of that id, running again if it had ended. Raises LookupError where there is none."""
        from mlflow.exceptions import MlflowException

        client, _ = self._connect()
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise LookupError(
                f"{self.shown} has no run {run_id!r}; it was started in another tracker, or deleted"
            ) from error
        if run.info.status != "RUNNING":
            client.update_run(run_id, status="RUNNING")
        return self._run(run_id, run.info.experiment_id)

    def finish(self, run: TrackedRun, *, failed: bool = False) -> None:
        """End the run as FINISHED or FAILED; a failed one does not wait for a server that is away."""
        client, _ = self._connect()
        with self._outage.limited(0) if failed else nullcontext():
            run.flush()
            client.set_terminated(run.run_id, status="FAILED" if failed else "FINISHED")

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log figures with a run that may have ended; a server that is away is waited for, within limits."""
        _, experiment_id = self._connect()
        run = self._run(run_id, experiment_id)
        run.log_metrics(metrics)
        run.flush()  # nobody else will

    def register(
        self, name: str, folder_uri: str, *, run: TrackedRun | None, tags: Mapping[str, str], parents: Sequence[str]
    ) -> ModelVersion:
        """A new version of ``name`` that points at the model folder, and lineage to its run, data and parents.

        MLflow keeps a logged model of two small files (``MLmodel`` and the folder's URI), so that
        ``mlflow.pyfunc.load_model("models:/<name>@<alias>")`` opens the folder where it lies; the weights are not
        copied. The version's tags are ``tags`` and ``uri``, ``parents``, ``inputs`` (digest by data set) and
        ``model_id``. Without ``run`` a run is made that holds the version alone.
        """
        if run is None:
            made = self.start(name, {}, tags)
            version = self.register(name, folder_uri, run=made, tags=tags, parents=parents)
            self.finish(made)
            return version
        run.flush()
        from mlflow.entities import LoggedModelInput, LoggedModelOutput
        from mlflow.exceptions import MlflowException

        client, experiment_id = self._connect()
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        model = client.create_logged_model(experiment_id, name, source_run_id=run.run_id, tags={"uri": folder_uri})
        with tempfile.TemporaryDirectory(prefix="atelier-") as temporary:
            _write_pointer(Path(temporary), folder_uri, run.run_id, model.model_id)
            client.log_model_artifacts(model.model_id, temporary)
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
        if ids := self._model_ids(parents):
            client.log_inputs(run.run_id, models=[LoggedModelInput(model_id) for model_id in ids])
        recorded = client.get_run(run.run_id).inputs
        inputs = {one.dataset.name: one.dataset.digest for one in recorded.dataset_inputs} if recorded else {}
        own = {
            "uri": folder_uri,
            "parents": json.dumps(list(parents)),
            "inputs": json.dumps(inputs, sort_keys=True),
            "model_id": model.model_id,
        }
        version = client.create_model_version(
            name, model.artifact_location, run_id=run.run_id, model_id=model.model_id, tags={**tags, **own}
        )
        return ModelVersion(name, str(version.version), folder_uri)

    def set_alias(self, version: ModelVersion, alias: str) -> None:
        """Point an alias at a version."""
        client, _ = self._connect()
        client.set_registered_model_alias(version.name, alias, version.version)

    def set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Add tags to a registered version, or change them."""
        client, _ = self._connect()
        for name, value in tags.items():
            client.set_model_version_tag(version.name, version.version, name, value[:_MAX_TAG_LENGTH])

    def by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias names, or None."""
        from mlflow.exceptions import MlflowException

        client, _ = self._connect()
        try:
            version = client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            # An unknown alias of a known model is reported as an invalid parameter.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return ModelVersion(name, str(version.version), version.tags["uri"])

    def versions(self, name: str) -> list[ModelVersion]:
        """All registered versions of ``name`` that this tracker made, in order; none where it is unknown."""
        client, _ = self._connect()
        found, token = [], None
        while token != "":
            page = client.search_model_versions(f"name='{name}'", page_token=token)
            found += [version for version in page if "uri" in version.tags]
            token = page.token or ""
        ordered = sorted(found, key=lambda version: int(version.version))
        return [ModelVersion(name, str(version.version), version.tags["uri"]) for version in ordered]

    def run_path(self, run: TrackedRun) -> str | None:
        """The run below the UI's address: ``#/experiments/<id>/runs/<run id>``."""
        client, _ = self._connect()
        return _run_path(client.get_run(run.run_id).info.experiment_id, run.run_id)

    def _run(self, run_id: str, experiment_id: str) -> MlflowRun:
        path = _run_path(experiment_id, run_id)
        has_ui = urlsplit(self.uri or "").scheme in ("http", "https")
        url = f"{self.shown.rstrip('/')}/{path}" if has_ui else None
        assert self._raw is not None
        return MlflowRun(self._raw, self._outage, run_id, path, url)

    def _connect(self) -> tuple[MlflowClient, str]:
        """The client and the experiment's id."""
        if self._connection is None:
            for name, value in _ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            from mlflow import MlflowClient

            logging.getLogger("mlflow.store").setLevel(logging.WARNING)
            with _first_come(_sqlite_file(self.uri or "")):
                self._raw = MlflowClient(self.uri, self.uri)
                client = cast("MlflowClient", PatientClient(self._raw, self._outage))
                self._connection = client, self._experiment_id(client)
        return self._connection

    def _experiment_id(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return client.create_experiment(self.experiment, artifact_location=self._artifact_location())
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = client.get_experiment_by_name(self.experiment)
        if found is None or found.lifecycle_stage != "active":
            raise RuntimeError(
                f"the experiment {self.experiment!r} of {self.shown} is deleted: restore it in MLflow, or name another"
            )
        return found.experiment_id

    def _artifact_location(self) -> str | None:
        """Where the experiment's artifacts lie; None leaves it to the server."""
        if urlsplit(self.uri or "").scheme in ("http", "https"):
            return None
        database = _sqlite_file(self.uri or "")
        root = self.artifact_root or (str(database.parent / "artifacts") if database else None)
        return root if root is None or "://" in root else Path(root).absolute().as_uri()

    def _model_ids(self, versions: Sequence[str]) -> list[str]:
        """Logged models of ``name/version`` strings; those that are not in this registry have none."""
        from mlflow.exceptions import MlflowException

        client, _ = self._connect()
        ids = []
        for one in versions:
            name, _, version = one.rpartition("/")
            try:
                ids.append(client.get_model_version(name, version).tags["model_id"])
            except (MlflowException, KeyError):
                logger.warning("the parent %s is not a version in %s: it is kept as a tag only", one, self.shown)
        return ids


def _is_away(error: Exception) -> bool:
    """Whether a call failed because the server, or the database behind it, does not answer for now."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import HTTPError, RequestException

    if isinstance(error, MlflowException):
        return error.get_http_status_code() in (429, 500, 502, 503, 504)
    if isinstance(error, HTTPError) and error.response is not None:
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, RequestException)


def _write_pointer(folder: Path, folder_uri: str, run_id: str, model_id: str) -> None:
    """Write the files of a logged model that points at a folder elsewhere."""
    import platform

    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import DataType, ParamSchema, ParamSpec

    kinds = {"seed": DataType.long, "num_inference_steps": DataType.long, "guidance_scale": DataType.double}
    # MLflow drops parameters that a signature does not name.
    signature = ModelSignature(params=ParamSchema([ParamSpec(name, kind, None) for name, kind in kinds.items()]))
    model = Model(run_id=run_id, model_id=model_id, signature=signature)
    model.add_flavor(
        "python_function", loader_module=LOADER, data="model.json", python_version=platform.python_version()
    )
    model.save(str(folder / "MLmodel"))
    (folder / "model.json").write_text(json.dumps({"uri": folder_uri}))


def _run_path(experiment_id: str, run_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def _sqlite_file(uri: str) -> Path | None:
    """The database file of an sqlite URI."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


@contextmanager
def _first_come(database: Path | None) -> Iterator[None]:
    """Hold the lock beside the database file: MLflow's own lock does not cover all of its first migration."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
