"""The files of ``deploy/`` as the tests of this folder read them, and what is known of environment variables."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
SOURCES = (
    "\n".join(path.read_text() for folder in ("orchestration", "components") for path in (ROOT / folder).rglob("*.py"))
    + (DEPLOY / "ray_jobs.yaml").read_text()
)
# Read by the programs in the images, with where that is said.
THIRD_PARTY = {
    "ATELIER_POSTGRES_URL": "deploy/dagster.yaml",
    "AWS_ACCESS_KEY_ID": "botocore",
    "AWS_SECRET_ACCESS_KEY": "botocore",
    "AWS_DEFAULT_REGION": "botocore",
    "AWS_MAX_ATTEMPTS": "botocore",
    "AWS_ENDPOINT_URL": "botocore",
    "RAY_AUTH_MODE": "ray",
    "RAY_AUTH_TOKEN": "ray",
    "MLFLOW_ARTIFACTS_DESTINATION": "mlflow server",
    "MLFLOW_BACKEND_STORE_URI": "mlflow server",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow server",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "mlflow server",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "mlflow server",
    "MLFLOW_DISABLE_TELEMETRY": "mlflow",
    "MLFLOW_TRACKING_USERNAME": "mlflow",
    "MLFLOW_TRACKING_PASSWORD": "mlflow",
    "POSTGRES_USER": "the image postgres",
    "POSTGRES_DB": "the image postgres",
    "POSTGRES_PASSWORD": "the image postgres",
    "MINIO_ROOT_USER": "the image minio",
    "MINIO_ROOT_PASSWORD": "the image minio",
    "PROXY_HOST": "deploy/proxy/Caddyfile",
    "PROXY_USER": "deploy/proxy/Caddyfile",
    "PROXY_PASSWORD_HASH": "deploy/proxy/Caddyfile",
    "XDG_DATA_HOME": "caddy",
    "XDG_CONFIG_HOME": "caddy",
}
SECRETS = {  # names whose values must never stand in a file
    "ATELIER_POSTGRES_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "MINIO_ROOT_PASSWORD",
    "MINIO_ROOT_USER",
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_TRACKING_PASSWORD",
    "POSTGRES_PASSWORD",
    "PROXY_PASSWORD_HASH",
    "RAY_AUTH_TOKEN",
}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}")


def filled(value: str, environment: Mapping[str, str]) -> str:
    """A value of compose.yaml as Compose fills its variables in."""
    return VARIABLE.sub(lambda match: environment.get(match[1]) or match["default"] or "", value)


def is_read(variable: str) -> bool:
    """Whether Atelier's code, its Dagster settings or a program in an image reads an environment variable."""
    return f'"{variable}"' in SOURCES or f"env: {variable}" in SOURCES or variable in THIRD_PARTY
