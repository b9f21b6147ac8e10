"""Where runs, their lineage and the model registry are kept.

What belongs here: trackers with one face (``contracts.Tracker``) and how one is opened from its URI. What does not:
what is worth logging, and which model deserves an alias.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .local_tracker import LocalTracker
    from .mlflow_tracker import MlflowTracker

_LOCAL = "local:"


def open_tracker(
    uri: str | None, artifact_root: str | None = None, experiment: str = "atelier"
) -> LocalTracker | MlflowTracker:
    """The tracker of a URI: ``local:<folder>`` for JSON files, else any MLflow tracking URI.

    None reads ``MLFLOW_TRACKING_URI``. ``artifact_root`` is where MLflow puts artifacts when no server does it. Opening
    neither connects nor imports MLflow. Raises ValueError where there is no URI.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise ValueError(
            "there is no tracking URI: set MLFLOW_TRACKING_URI, for example to sqlite:///mlflow.db or http://host:5000"
        )
    if uri.startswith(_LOCAL):
        from .local_tracker import LocalTracker

        return LocalTracker(uri.removeprefix(_LOCAL))
    from .mlflow_tracker import MlflowTracker

    return MlflowTracker(uri, artifact_root, experiment)
