"""deploy/docker: the image has no secret and no root, and its Dagster settings load."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.files import DEPLOY, ROOT, SECRETS

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
LINES = [line for line in DOCKERFILE.read_text().replace("\\\n", " ").splitlines() if line and line[0] != "#"]
STEPS = [tuple(line.split(None, 1)) for line in LINES]


HADOLINT = str(Path(sys.executable).parent / "hadolint")


def test_the_linter_has_nothing_against_it(tmp_path):
    done = subprocess.run([HADOLINT, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN cd /tmp && apt-get install curl\n")
    assert subprocess.run([HADOLINT, str(bad)], capture_output=True, check=False).returncode == 1


def test_the_last_user_is_not_root_and_there_is_a_health_check():
    users = [value for step, value in STEPS if step == "USER"]
    assert users == ["10001:10001"]
    assert STEPS.index(("USER", users[0])) < next(n for n, (step, _) in enumerate(STEPS) if step == "HEALTHCHECK")
    assert [step for step, _ in STEPS].count("HEALTHCHECK") == 1


def test_no_secret_enters_while_it_is_built():
    text = DOCKERFILE.read_text()
    assert not [name for name in SECRETS if name in text]
    assert [value.split("=")[0] for step, value in STEPS if step == "ARG"] == ["TORCH_INDEX", "ATELIER_COMMIT"]
    assert "deploy/.env" in (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()


def requirements_of(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a package asks for on this machine with some of its extras; our own as the checkout says it."""
    if name == "atelier":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        asked = project["dependencies"] + [each for extra in extras for each in project["optional-dependencies"][extra]]
    else:
        asked = importlib.metadata.requires(name) or []
    for requirement in map(Requirement, asked):
        if not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield requirement


def closure(asked: Requirement) -> set[str]:
    """The names of all packages that come with one."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [asked]
    while waiting:
        one = waiting.pop()
        key = canonicalize_name(one.name), frozenset(one.extras)
        if key not in seen:
            seen.add(key)
            waiting += requirements_of(*key)
    return {name for name, _ in seen}


def test_what_servers_import_late_is_installed():
    """The drivers of PostgreSQL and of S3 are imported by name, when the first request comes."""
    (extras,) = re.findall(r'--editable "\.(\[[a-z,]+\])"', DOCKERFILE.read_text())
    assert {"boto3", "psycopg2-binary", "dagster-postgres", "s3fs"} <= closure(Requirement(f"atelier{extras}"))
    assert "boto3" not in closure(Requirement("atelier[cluster,page,postgres]"))  # nothing else brings it
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {"boto3", "psycopg2-binary"} <= pinned


def test_what_is_copied_exists_and_is_not_ignored():
    allowed = {
        line[1:] for line in (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"
    }
    copied = {name for step, value in STEPS if step == "COPY" for name in value.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_source_tree_is_installed_in_place_with_pinned_versions():
    installing = next(value for step, value in STEPS if step == "RUN" and "pip install" in value)
    assert "--constraint constraints.txt" in installing
    assert "--editable" in installing


def test_the_settings_of_the_image_load(tmp_path: Path, monkeypatch):
    """As the Dockerfile puts them together; storage is left out, because opening it asks PostgreSQL."""
    monkeypatch.setenv("ATELIER_RAY_JOBS_URL", "http://ray-head:8265")
    written = "\n".join((DEPLOY / name).read_text() for name in ("dagster.yaml", "ray_jobs.yaml"))
    settings = yaml.safe_load(written)
    assert settings["storage"]["postgres"]["postgres_url"] == {"env": "ATELIER_POSTGRES_URL"}
    del settings["storage"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_launcher).__name__ == "RayRunLauncher"
        assert instance.run_launcher.address == "http://ray-head:8265"  # pyright: ignore
