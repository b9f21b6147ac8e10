"""The files of ``deploy/`` as the tests of this folder read them, and what is known of environment variables."""

import importlib.util
import re
from collections.abc import Mapping
from functools import cache
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
READERS = [
    *(path for folder in ("orchestration", "components") for path in (ROOT / folder).rglob("*.py")),
    *(DEPLOY / name for name in ("dagster.yaml", "ray_jobs.yaml")),
]
SOURCES = "\n".join(path.read_text() for path in READERS)
CADDYFILE = (DEPLOY / "proxy" / "Caddyfile").read_text()
# Read by the libraries of the image: the module whose text names the variable.
LIBRARIES = {
    "AWS_ACCESS_KEY_ID": "botocore.credentials",
    "AWS_SECRET_ACCESS_KEY": "botocore.credentials",
    "AWS_DEFAULT_REGION": "botocore.configprovider",
    "AWS_ENDPOINT_URL": "botocore.configprovider",
    "AWS_MAX_ATTEMPTS": "botocore.configprovider",
    "RAY_AUTH_MODE": "ray._private.authentication.authentication_token_setup",
    "RAY_AUTH_TOKEN": "ray.exceptions",  # which tells users to set it; the reader itself is compiled
    "MLFLOW_ARTIFACTS_DESTINATION": "mlflow.utils.cli_args",
    "MLFLOW_BACKEND_STORE_URI": "mlflow.cli",
    "MLFLOW_DISABLE_TELEMETRY": "mlflow.environment_variables",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.environment_variables",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "mlflow.environment_variables",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "mlflow.environment_variables",
    "MLFLOW_TRACKING_PASSWORD": "mlflow.environment_variables",
    "MLFLOW_TRACKING_USERNAME": "mlflow.environment_variables",
}
# Read by programs of other people's images: nothing of them is installed, so this is taken on trust.
IMAGES = {
    "postgres": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"},
    "minio/minio": {"MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"},
    "caddy": {"XDG_DATA_HOME", "XDG_CONFIG_HOME"},
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


def is_read(variable: str, image: str = "atelier") -> bool:
    """Whether the programs of an image read an environment variable: in ours, Atelier's code and its libraries."""
    name = image.rpartition(":")[0] or image
    if name != "atelier":
        of_the_file = name == "caddy" and re.search(rf"\{{\${variable}[:}}]", CADDYFILE) is not None
        return of_the_file or variable in IMAGES[name]
    if f'"{variable}"' in SOURCES or f"env: {variable}" in SOURCES:
        return True
    return variable in LIBRARIES and re.search(rf"\b{variable}\b", source_of(LIBRARIES[variable])) is not None


@cache
def source_of(module: str) -> str:
    """The text of an installed module, which is not imported for it."""
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top)
    assert spec is not None, f"{top} is not installed"
    assert spec.origin is not None
    path = Path(spec.origin).parent.joinpath(*below)
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
