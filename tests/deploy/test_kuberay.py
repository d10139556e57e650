"""The manifests are valid, lose no field on their way, and ask for no more than they need."""

import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from longctx.recipe import load as load_recipe
from tests.deploy.manifests import (
    KUBERAY,
    clusters,
    containers,
    crd_validator,
    load,
    pods,
    strict,
)

IMAGES = {"longctx-cpu", "longctx-gpu"}
BUILT_IN = ("service-account.yaml", "network-policy.yaml", "secret.example.yaml")
CUSTOM = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}
OLDEST_KUBERNETES = "1.28"


def validator_of(kind: str, shared_data: Path):
    folder = shared_data / "kuberay"
    if not folder.is_dir():
        pytest.skip(f"KubeRay's definitions are not there: {folder}")
    return crd_validator(folder / f"ray.io_{CUSTOM[kind]}.yaml.gz")


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_a_ray_manifest_is_valid_and_no_field_is_unknown(name, shared_data):
    manifest = load(name)
    validator_of(manifest["kind"], shared_data).validate(manifest)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("headGroupSpec", "template", "spec", "containers", 0), {"resource": {}}),
        (("workerGroupSpecs", 0), {"minReplica": 1}),
        (("autoscalerOptions",), {"idleTimeout": 1}),
        (("workerGroupSpecs", 0), {"maxReplicas": "16"}),
    ],
)
def test_the_schema_finds_misspelt_fields_and_wrong_types(place, wrong, shared_data):
    manifest = load("cluster.yaml")
    target = manifest["spec"]
    for key in place:
        target = target[key]
    target.update(wrong)
    with pytest.raises(jsonschema.ValidationError):
        validator_of("RayCluster", shared_data).validate(manifest)


def test_strict_keeps_maps_and_fields_that_a_server_preserves():
    schema = {
        "type": "object",
        "properties": {
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    jsonschema.validate({"labels": {"a": "b"}, "free": {"x": 1}}, strict(schema))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"other": 1}, strict(schema))


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
def test_a_built_in_manifest_is_valid(name, version):
    kubernetes_validate.validate(load(name), version, strict=True)


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda x: x if isinstance(x, str) else "")
def test_a_pod_is_valid_by_itself(name, pod):
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
    kubernetes_validate.validate(whole, OLDEST_KUBERNETES, strict=True)


def test_the_job_runs_on_the_cluster_of_cluster_yaml():
    standing, own = clusters().values()
    assert standing == own


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda x: x if isinstance(x, str) else "")
def test_a_pod_runs_as_an_ordinary_user_without_the_host(name, pod):
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] >= 1000
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all("hostPath" not in volume for volume in pod["volumes"])
    # Only the autoscaler, beside the head, speaks with the API.
    assert pod["automountServiceAccountToken"] is name.endswith("head")


@pytest.mark.parametrize(
    ("name", "container"), containers(), ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_container_has_limits_and_no_rights(name, container):
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for bound in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(container["resources"][bound]), bound
    requested, limited = (container["resources"][b]["memory"] for b in ("requests", "limits"))
    # A pod that may use more than it asked for is the first to be ended when a node is full.
    assert requested == limited or "init" in name or container["name"] != "ray-worker"
    assert container["image"] in IMAGES
    # No other literal: what is secret would be among them.
    written = [e for e in container.get("env", []) if "value" in e]
    assert written == ([] if container["name"] == "cache" else [{"name": "HOME", "value": "/tmp"}])


@pytest.mark.parametrize("file", ["cluster.yaml", "job.yaml"])
def test_the_autoscaler_is_on_and_bounded(file):
    spec = clusters()[file]
    assert spec["enableInTreeAutoscaling"] is True
    options = spec["autoscalerOptions"]
    assert {"requests", "limits"} <= set(options["resources"])
    assert options["securityContext"]["allowPrivilegeEscalation"] is False
    groups = {g["groupName"]: g for g in spec["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    for group in groups.values():
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] < 1000
    gpu = groups["gpu"]["template"]["spec"]["containers"][0]
    assert (
        gpu["resources"]["limits"]["nvidia.com/gpu"] == groups["gpu"]["rayStartParams"]["num-gpus"]
    )
    assert groups["gpu"]["rayStartParams"]["num-cpus"] == "1"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("file", ["cluster.yaml", "job.yaml"])
def test_every_ray_node_spills_to_a_bounded_volume(file):
    spec = clusters()[file]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        target = group["rayStartParams"]["object-spilling-directory"]
        pod = group["template"]["spec"]
        mounts = {m["mountPath"]: m["name"] for m in pod["containers"][0]["volumeMounts"]}
        volumes = {v["name"]: v for v in pod["volumes"]}
        assert "sizeLimit" in volumes[mounts[target]]["emptyDir"]
        # What an image without a writable root needs beside it.
        assert {"/tmp", "/opt/longctx/cache"} <= set(mounts)


def test_credentials_come_from_the_secret_alone():
    for _, container in containers():
        for source in container.get("envFrom", []):
            assert source == {"secretRef": {"name": "longctx-storage"}}
    example = load("secret.example.yaml")
    assert example["metadata"]["name"] == "longctx-storage"
    assert set(example["stringData"].values()) == {"REPLACE-ME"}
    for file, spec in clusters().items():
        assert spec["authOptions"] == {"mode": "token"}, file


def test_no_manifest_asks_for_rights_in_the_whole_cluster():
    for file in KUBERAY.glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            assert document.get("kind") not in ("ClusterRole", "ClusterRoleBinding"), file.name
    assert "example" not in str(load("kustomization.yaml")["resources"])


def test_the_network_policy_reaches_every_pod():
    chosen = load("network-policy.yaml")["spec"]["podSelector"]["matchLabels"]
    for spec in clusters().values():
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            assert chosen.items() <= group["template"]["metadata"]["labels"].items()
    submitter = load("job.yaml")["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    assert chosen.items() <= submitter.items()


def test_a_failed_job_is_submitted_again_and_cleaned_up():
    job = load("job.yaml")["spec"]
    assert job["backoffLimit"] > 0
    assert job["shutdownAfterJobFinishes"] is True
    assert job["entrypoint"].startswith("python jobs/pretrain.py /etc/longctx/recipe.yaml")


def test_the_recipe_gives_gpus_to_as_many_actors_as_the_group_can_hold():
    recipe = load_recipe(KUBERAY / "recipe.yaml")
    assert recipe.body.run_dir.startswith("s3://")
    models = [op for op in recipe.ops if op.kind == "model"]
    most = clusters()["job.yaml"]["workerGroupSpecs"][1]["maxReplicas"]
    assert models
    assert all(op.num_gpus == 1 and 1 <= op.workers <= most for op in models)


@pytest.fixture(scope="module")
def rendered():
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", KUBERAY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_kustomize_puts_every_image_by_digest_and_all_in_one_namespace(rendered):
    text = yaml.safe_dump_all(rendered)
    images = re.findall(r"\bimage: (\S+)", text)
    assert len(images) > 5
    for image in images:
        assert re.fullmatch(r"registry\.example\.com/longctx-[cg]pu@sha256:[0-9a-f]{64}", image)
    assert {m["metadata"]["namespace"] for m in rendered} == {"longctx"}


def test_kustomize_keeps_the_job_valid(rendered, shared_data):
    by_kind = {m["kind"]: m for m in rendered}
    assert set(by_kind) == {"RayJob", "ServiceAccount", "NetworkPolicy", "ConfigMap"}
    validator_of("RayJob", shared_data).validate(by_kind["RayJob"])
    head = by_kind["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounted = next(v["configMap"]["name"] for v in head["volumes"] if "configMap" in v)
    assert by_kind["ConfigMap"]["metadata"]["name"] == mounted
    assert "recipe.yaml" in by_kind["ConfigMap"]["data"]
