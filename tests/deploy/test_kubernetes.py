"""deploy/kubernetes: valid by Kubernetes' own schemas, without root, with secrets by reference only.

The schema of KubeRay's RayCluster is in no package: of it the pod templates are validated as pods, and what Atelier
relies on is checked field by field.
"""

import importlib.metadata
from urllib.parse import urlsplit

import kubernetes_validate
import pytest

from tests.deploy.files import DEPLOY, MANIFESTS, SECRETS, is_read

VERSION = "1.33"
OURS = ("Kustomization", "RayCluster")  # no kinds of Kubernetes itself


def label(document: dict) -> str:
    return f"{document['kind']}-{document.get('metadata', {}).get('name', '')}"


def one(kind: str, name: str) -> dict:
    return next(each for each in MANIFESTS if label(each) == f"{kind}-{name}")


RAY = one("RayCluster", "ray")["spec"]
PODS = {
    **{each["metadata"]["name"]: each["spec"]["template"] for each in MANIFESTS if each["kind"] == "Deployment"},
    "ray-head": RAY["headGroupSpec"]["template"],
    **{f"ray-{group['groupName']}": group["template"] for group in RAY["workerGroupSpecs"]},
}


@pytest.mark.parametrize("document", [d for d in MANIFESTS if d["kind"] not in OURS], ids=label)
def test_it_follows_the_schemas_of_kubernetes(document):
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_follows_the_schema_and_is_not_root(name):
    template = PODS[name]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name} | template["metadata"],
        "spec": template["spec"],
    }
    kubernetes_validate.validate(pod, VERSION, strict=True)
    context = template["spec"]["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert template["spec"]["automountServiceAccountToken"] is False
    for container in template["spec"]["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert {"livenessProbe", "readinessProbe"} <= set(container)


def test_a_misspelt_field_is_found():
    pod = one("Deployment", "mlflow")
    broken = pod | {"spec": pod["spec"] | {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(broken, VERSION, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_secrets_are_references_and_variables_are_read(name):
    for container in PODS[name]["spec"]["containers"]:
        sources = {kind: reference["name"] for source in container["envFrom"] for kind, reference in source.items()}
        assert sources == {"configMapRef": "atelier", "secretRef": "atelier"}
        for variable in container.get("env", []):
            assert is_read(variable["name"])
            if variable["name"] in SECRETS:
                reference = {"name": "atelier", "key": variable["name"]}
                assert variable == {"name": variable["name"], "valueFrom": {"secretKeyRef": reference}}


def test_the_settings_hold_no_secret_and_are_read():
    settings = one("ConfigMap", "atelier")["data"]
    assert not SECRETS & set(settings)
    assert all(map(is_read, settings))
    assert not [each for each in MANIFESTS if each["kind"] == "Secret"]
    said = (DEPLOY / "kubernetes" / "settings.yaml").read_text()
    asked = {name for name in SECRETS if not name.startswith(("MINIO", "POSTGRES", "PROXY"))}  # those are compose's
    assert all(name in said for name in asked)


def test_lake_and_artifacts_lie_in_one_bucket():
    settings = one("ConfigMap", "atelier")["data"]
    buckets = {urlsplit(settings[name]).netloc for name in ("ATELIER_LAKE", "MLFLOW_ARTIFACTS_DESTINATION")}
    assert len(buckets) == 1
    text = "".join(path.read_text() for path in (DEPLOY / "kubernetes").glob("*.yaml"))
    assert text.count("s3://") == 2  # so that another bucket is two lines


def test_services_find_their_pods_and_ports():
    for service in (each for each in MANIFESTS if each["kind"] == "Service"):
        template = PODS[service["spec"]["selector"]["app"]]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        names = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    settings = one("ConfigMap", "atelier")["data"]
    assert settings["ATELIER_RAY_JOBS_URL"] == "http://ray-head-svc:8265"  # KubeRay names it <cluster>-head-svc
    assert settings["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert one("Service", "code-location")["spec"]["ports"][0]["port"] == 4000  # as deploy/workspace.yaml says


def test_the_ray_cluster_is_of_the_version_that_is_installed_and_asks_for_a_token():
    assert one("RayCluster", "ray")["apiVersion"] == "ray.io/v1"
    assert RAY["rayVersion"] == importlib.metadata.version("ray")
    assert one("ConfigMap", "atelier")["data"]["RAY_AUTH_MODE"] == "token"
    head = RAY["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    ports = {port["name"]: port["containerPort"] for port in head["template"]["spec"]["containers"][0]["ports"]}
    assert ports == {"gcs-server": 6379, "dashboard": 8265}
    for group in RAY["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("name", [name for name in PODS if name.startswith("ray-")])
def test_what_waits_for_the_head_knows_the_token(name):
    """KubeRay copies ``env`` to its init container ``wait-gcs-ready``, which asks the head, and not ``envFrom``."""
    (container,) = PODS[name]["spec"]["containers"]
    assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} <= {variable["name"] for variable in container["env"]}


@pytest.mark.parametrize("group", [RAY["headGroupSpec"], *RAY["workerGroupSpecs"]])
def test_the_object_store_fits_into_shared_memory(group):
    (volume,) = [each for each in group["template"]["spec"]["volumes"] if each["name"] == "shared-memory"]
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert 0.8 * 2 * 2**30 < int(group["rayStartParams"]["object-store-memory"]) < 2 * 2**30


def test_kustomize_lists_every_file_and_sets_the_image():
    kustomization = next(each for each in MANIFESTS if each["kind"] == "Kustomization")
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
    assert [image["name"] for image in kustomization["images"]] == ["atelier"]
    images = {container["image"] for pod in PODS.values() for container in pod["spec"]["containers"]}
    assert images == {"atelier"}
