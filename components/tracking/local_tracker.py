"""A tracker of JSON files: the twin of the MLflow tracker for tests and for work without MLflow.

What belongs here: the files, and how parameters become flat names (both trackers write them alike). What does not:
MLflow.

``<folder>/runs/<run id>/`` holds ``run.json``, ``params.json``, ``metrics.jsonl``, ``inputs.jsonl`` and ``artifacts/``;
``<folder>/models/<name>/`` holds ``<version>.json`` and ``aliases/<alias>``. Files that change are replaced whole or
grow by whole lines; of a version's file only the tags change.
"""

from __future__ import annotations

import io
import json
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts import ModelVersion, TrackedRun

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

MAX_VALUE_LENGTH = 6000
"""Characters that MLflow keeps of a parameter's value."""


class LocalRun:
    """One run as a folder of files (``contracts.TrackedRun``)."""

    url: str | None = None

    def __init__(self, run_id: str, folder: Path) -> None:
        self.run_id = run_id
        self.folder = folder

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one line with the figures."""
        _append(
            self.folder / "metrics.jsonl", {"step": step or 0, "metrics": {k: float(v) for k, v in metrics.items()}}
        )

    def log_image(self, image: Image.Image, name: str) -> None:
        """Write the picture in the format that the name's ending says."""
        data = io.BytesIO()
        image.save(data, format=Path(name).suffix.removeprefix(".") or "png")
        _replace(self._artifact(name), data.getvalue())

    def log_text(self, text: str, name: str) -> None:
        """Write the text as UTF-8."""
        _replace(self._artifact(name), text.encode())

    def log_input(self, name: str, uri: str, digest: str, context: str) -> None:
        """Append one line with the data set."""
        _append(self.folder / "inputs.jsonl", {"name": name, "uri": uri, "digest": digest, "context": context})

    def flush(self) -> int:
        """Everything is kept already."""
        return 0

    def _artifact(self, name: str) -> Path:
        root = (self.folder / "artifacts").resolve()
        path = (root / name).resolve()
        if root not in path.parents:
            raise ValueError(f"the artifact name {name!r} leaves the run's folder; name a path below it")
        return path


class LocalTracker:
    """Implements ``contracts.Tracker`` with JSON files below ``folder``."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.uri: str | None = f"local:{self.folder}"

    def prepare(self) -> None:
        """Make the folder; nothing happens the second time."""
        (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        (self.folder / "models").mkdir(parents=True, exist_ok=True)

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> LocalRun:
        """Start a run with its parameters, flattened to dotted names."""
        run_id = uuid.uuid4().hex
        folder = self.folder / "runs" / run_id
        _write_json(folder / "params.json", flatten(params))
        state = {"name": name, "status": "RUNNING", "tags": dict(tags), "started": datetime.now(UTC).isoformat()}
        _write_json(folder / "run.json", state)
        return LocalRun(run_id, folder)

    def resume(self, run_id: str) -> LocalRun:
        """The run of that id, running again if it had ended. Raises LookupError where there is none."""
        folder = self.folder / "runs" / run_id
        if not (folder / "run.json").is_file():
            raise LookupError(f"{self.uri} has no run {run_id!r}; it was started in another tracker, or deleted")
        run = LocalRun(run_id, folder)
        self._set_status(run, "RUNNING")
        return run

    def finish(self, run: TrackedRun, *, failed: bool = False) -> None:
        """End the run as FINISHED or FAILED."""
        self._set_status(run, "FAILED" if failed else "FINISHED")

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log figures with a run that may have ended."""
        LocalRun(run_id, self.folder / "runs" / run_id).log_metrics(metrics)

    def register(
        self, name: str, folder_uri: str, *, run: TrackedRun | None, tags: Mapping[str, str], parents: Sequence[str]
    ) -> ModelVersion:
        """A new version of ``name``; two processes never get the same one."""
        folder = self.folder / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        inputs = {} if run is None else {line["name"]: line["digest"] for line in self._lines(run, "inputs")}
        content = json.dumps(
            {
                "uri": folder_uri,
                "run_id": run.run_id if run else None,
                "tags": dict(tags),
                "parents": list(parents),
                "inputs": inputs,
            }
        )
        for number in count(1 + max(self._versions(name), default=0)):
            try:
                with (folder / f"{number}.json").open("x") as file:
                    file.write(content)
            except FileExistsError:
                continue
            return ModelVersion(name, str(number), folder_uri)
        raise AssertionError("count() never ends")

    def set_alias(self, version: ModelVersion, alias: str) -> None:
        """Point an alias at a version."""
        _replace(self.folder / "models" / version.name / "aliases" / alias, version.version.encode())

    def set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Add tags to a registered version, or change them."""
        path = self.folder / "models" / version.name / f"{version.version}.json"
        content = json.loads(path.read_text())
        _write_json(path, content | {"tags": content["tags"] | dict(tags)})

    def by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias names, or None."""
        path = self.folder / "models" / name / "aliases" / alias
        if not path.is_file():
            return None
        version = path.read_text()
        return ModelVersion(name, version, json.loads((path.parents[1] / f"{version}.json").read_text())["uri"])

    def versions(self, name: str) -> list[ModelVersion]:
        """All registered versions of ``name``, in order; none where it is unknown."""
        folder = self.folder / "models" / name
        numbers = sorted(self._versions(name))
        return [ModelVersion(name, str(n), json.loads((folder / f"{n}.json").read_text())["uri"]) for n in numbers]

    def run_path(self, run: TrackedRun) -> str | None:
        """None: there is no UI to link to."""
        return None

    def _versions(self, name: str) -> Iterator[int]:
        return (int(path.stem) for path in (self.folder / "models" / name).glob("*.json"))

    def _lines(self, run: TrackedRun, kind: str) -> list[dict[str, Any]]:
        path = self.folder / "runs" / run.run_id / f"{kind}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def _set_status(self, run: TrackedRun, status: str) -> None:
        path = self.folder / "runs" / run.run_id / "run.json"
        _write_json(path, json.loads(path.read_text()) | {"status": status})


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as dotted names with text values of at most ``MAX_VALUE_LENGTH`` characters.

    ``{"training": {"steps": 3, "betas": [0.9, 0.99]}}`` becomes ``{"training.steps": "3", "training.betas": "[0.9,
    0.99]"}``; an empty mapping stays visible as ``{}``.
    """
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
            continue
        text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        flat[name] = text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 3] + "..."
    return flat


def _write_json(path: Path, value: Any) -> None:
    _replace(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode())


def _replace(path: Path, data: bytes) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _append(path: Path, value: Any) -> None:
    """Add one line, in one write: several processes may log to one run."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(value).encode() + b"\n")
