"""deploy/compose.yaml: valid, complete, and without secrets or root."""

import re
import subprocess
import sys

import pytest
from sqlalchemy import make_url

from tests.deploy.files import COMPOSE, DEPLOY, LIBRARIES, SECRETS, VARIABLE, is_read

SERVICES = COMPOSE["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service.get("restart") == "no"}
# What may be left out is commented out, without a space.
EXAMPLE = set(re.findall(r"^#?([A-Z_]+)=", (DEPLOY / ".env.example").read_text(), flags=re.M))


# Those that are not set at all where deploy/.env does not name them.
PASSED_ON = {variable for variable, value in COMPOSE["x-environment"].items() if value is None}


def test_it_follows_the_compose_specification(tmp_path):
    def check(path):
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = check(DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "compose.yaml"
    broken.write_text((DEPLOY / "compose.yaml").read_text().replace("healthcheck:", "healthchek:", 1))
    assert check(broken).returncode == 1


def test_every_part_of_the_platform_is_there():
    assert set(SERVICES) - ONE_SHOT == {
        "postgres", "s3", "mlflow", "code-location", "dagster-webserver", "dagster-daemon", "ray-head", "ray-worker",
        "proxy",
    }  # fmt: skip
    assert SERVICES["proxy"]["profiles"] == ["proxy"]  # only where it is asked for


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_checked_and_not_root(name):
    service = SERVICES[name]
    image, _, tag = service["image"].rpartition(":")
    assert image
    assert tag != "latest"
    assert any(character.isdigit() for character in tag)
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    if name == "s3-owner":  # gives a new volume away, and ends; it may do nothing else
        assert (service["user"], service["cap_drop"], service["cap_add"]) == ("0:0", ["ALL"], ["CHOWN"])
    else:
        assert service["user"].split(":")[0] not in ("0", "root")
        assert "cap_add" not in service
    if name in ONE_SHOT:
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_exists_and_can_be_waited_for(name):
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        ends = wanted["condition"] == "service_completed_successfully"
        assert ends == (other in ONE_SHOT)
        assert ends or wanted["condition"] == "service_healthy"


def test_nobody_waits_in_a_circle():
    waiting = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    while waiting:
        ready = {name for name, others in waiting.items() if not others & set(waiting)}
        assert ready, f"these wait for each other: {sorted(waiting)}"
        waiting = {name: others for name, others in waiting.items() if name not in ready}


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name):
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert (DEPLOY / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_read_and_no_secret_is_written_down(name):
    for variable, value in SERVICES[name].get("environment", {}).items():
        assert is_read(variable, SERVICES[name]["image"]), f"{variable} is set and nobody reads it"
        if variable in SECRETS:
            assert value is None or VARIABLE.fullmatch(value), f"{variable} must come from deploy/.env"


def test_a_variable_that_nobody_reads_is_found():
    assert not is_read("ATELIER_RECIPES")
    assert not is_read("MLFLOW_SERVER_ALLOWED_HOST")
    assert not is_read("POSTGRES_USER")  # not in our image
    assert not is_read("ATELIER_RECIPE", "postgres:17")
    for variable in ("ATELIER_RECIPE", "ATELIER_POSTGRES_URL", *LIBRARIES):
        assert is_read(variable)


def test_every_variable_to_fill_in_is_explained_in_the_example():
    asked = {match[1] for match in VARIABLE.finditer((DEPLOY / "compose.yaml").read_text())}
    assert asked | PASSED_ON == EXAMPLE
    example = (DEPLOY / ".env.example").read_text()
    for secret in SECRETS & EXAMPLE:
        (value,) = re.findall(rf"^#?{secret}=(.*)$", example, flags=re.M)
        assert not value or ":PASSWORD@" in value
    for file in ("deploy/.env", "deploy/data.env"):
        assert file in (DEPLOY.parent / ".gitignore").read_text().splitlines()
        assert file in (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()


def test_what_the_operations_page_sets_reaches_the_containers():
    told = set(re.findall(r"\b(?:ATELIER|AWS)_[A-Z_]+[A-Z]\b", (DEPLOY / "OPERATIONS.md").read_text()))
    of_the_image = set(re.findall(r"\b(ATELIER_[A-Z]+)=", (DEPLOY / "docker" / "Dockerfile").read_text()))
    assert told - of_the_image <= set(COMPOSE["x-environment"])
    assert {"ATELIER_AUTOMATION", "ATELIER_OVERRIDES", "AWS_MAX_ATTEMPTS"} <= told & PASSED_ON


def test_variables_of_data_sets_reach_those_who_read_data_sets():
    readers = {name for name, service in SERVICES.items() if "env_file" in service}
    assert readers == {"code-location", "ray-head", "ray-worker"}
    assert all(SERVICES[name]["env_file"] == [{"path": "data.env", "required": False}] for name in readers)


@pytest.mark.parametrize("file", [".env.example", "kubernetes/settings.yaml"])
def test_postgresql_is_reached_with_the_driver_that_is_installed(file):
    """Containers run Dagster's and MLflow's own programs: nobody adds the driver to an address there."""
    addresses = re.findall(r"(ATELIER_POSTGRES_URL|MLFLOW_BACKEND_STORE_URI)=(\S+)", (DEPLOY / file).read_text())
    assert {variable for variable, _ in addresses} == {"ATELIER_POSTGRES_URL", "MLFLOW_BACKEND_STORE_URI"}
    for _, address in addresses:
        assert make_url(address).drivername == "postgresql+psycopg2"
        make_url(address).get_dialect().import_dbapi()


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_proxy_is_reachable_from_other_machines(name):
    ports = SERVICES[name].get("ports", [])
    assert name == "proxy" or all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("node", ["ray-head", "ray-worker"])
def test_a_ray_node_is_asked_itself_and_without_the_token(node):
    """The head's GCS answers for a node whose raylet is dead; and `ray health-check` imports Ray each time."""
    from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT as PORT
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    program = SERVICES[node]["healthcheck"]["test"]
    assert program[:3] == ["CMD", "python", "-c"]
    compile(program[3], "healthcheck", "exec")
    (path,) = re.findall(rf"http://127\.0\.0\.1:{PORT}(/[a-z_/]+)", program[3])
    assert path in PUBLIC_EXACT_PATHS


@pytest.mark.parametrize("node", ["ray-head", "ray-worker"])
def test_the_object_store_fits_into_shared_memory(node):
    """Ray takes 30 % of a machine's memory unless told otherwise, and where shared memory is smaller, the disk."""
    (size,) = [int(word.partition("=")[2]) for word in SERVICES[node]["command"] if "object-store-memory" in word]
    assert SERVICES[node]["shm_size"] == "2gb"
    assert 0.8 * 2 * 2**30 < size < 2 * 2**30


def test_runs_go_to_ray_and_the_daemon_waits_for_it():
    environment = SERVICES["dagster-daemon"]["environment"]
    assert environment["ATELIER_RAY_JOBS_URL"] == "http://ray-head:8265"
    assert "ray-head" in SERVICES["dagster-daemon"]["depends_on"]
    for node in ("ray-head", "ray-worker"):  # what runs there needs all that the code location has
        assert SERVICES[node]["environment"] == SERVICES["code-location"]["environment"]
        assert SERVICES[node]["environment"]["RAY_AUTH_MODE"] == "token"
