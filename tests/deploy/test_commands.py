"""What containers are told to run exists: programs, subcommands and options."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from tests.deploy.files import COMPOSE, MANIFESTS, ROOT, filled
from tests.s3 import environment_for, file_system

PROGRAMS = {  # where the click command behind each console script is
    "dagster": ("dagster._cli", "create_dagster_cli"),
    "dagster-daemon": ("dagster._daemon.cli", "create_dagster_daemon_cli"),
    "dagster-webserver": ("dagster_webserver.cli", "dagster_webserver"),
    "mlflow": ("mlflow.cli", "cli"),
    "ray": ("ray.scripts.scripts", "cli"),
}


def _commands() -> Iterator[tuple[str, ...]]:
    for service in COMPOSE["services"].values():
        yield tuple(service.get("command", ()))
        yield tuple(service.get("healthcheck", {}).get("test", [None])[1:])
    for manifest in MANIFESTS:
        if manifest["kind"] == "Deployment":
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                yield (*container["command"], *container.get("args", ()))
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    yield tuple(container[probe].get("exec", {}).get("command", ()))


COMMANDS = sorted({command for command in _commands() if command and command[0] in PROGRAMS})


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:60])
def test_its_options_exist(command):
    module, name = PROGRAMS[command[0]]
    found = getattr(importlib.import_module(module), name)
    program: click.Command = found if isinstance(found, click.Command) else found()
    words = list(command[1:])
    while isinstance(program, click.Group) and words:
        below = program.get_command(click.Context(program), words[0])
        assert below is not None, f"{command[0]} has no command {words[0]}"
        program, words = below, words[1:]
    _, left, _ = program.make_parser(click.Context(program)).parse_args(words)
    assert left == []


def test_an_option_that_does_not_exist_is_found():
    with pytest.raises(click.NoSuchOption):
        test_its_options_exist(("ray", "start", "--dashbord-host=0.0.0.0"))


def test_the_bucket_of_lake_and_artifacts_is_made_once(s3_endpoint):
    chosen = {"ATELIER_BUCKET": "pictures-of-ours"}
    *interpreter, program = COMPOSE["services"]["s3-bucket"]["command"]
    assert interpreter == ["python", "-c"]
    environment = {**os.environ, **environment_for(s3_endpoint)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", filled(program, chosen)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
    fs = file_system(s3_endpoint)
    said = COMPOSE["services"]["mlflow"]["environment"]
    for variable in ("ATELIER_LAKE", "MLFLOW_ARTIFACTS_DESTINATION"):
        bucket = filled(said[variable], chosen).removeprefix("s3://").partition("/")[0]
        assert fs.exists(bucket), variable
