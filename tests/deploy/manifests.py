"""The manifests of `cluster/kuberay`, and schemas that refuse what a server would drop."""

import functools
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
KUBERAY = CLUSTER / "kuberay"
Tree = dict[str, Any]
# Ray's own metrics that the dashboard asks for; a running head is asked whether it has them.
RAY_METRICS = {
    "ray_node_cpu_utilization",
    "ray_node_mem_used",
    "ray_node_mem_total",
    "ray_node_disk_free",
}

# A server keeps what the schema does not name only where it says so.
_PRESERVE = "x-kubernetes-preserve-unknown-fields"


def load(name: str) -> Tree:
    """One manifest."""
    found: Tree = yaml.safe_load((KUBERAY / name).read_text())
    return found


def strict(schema: Any) -> Any:
    """The schema with unknown fields forbidden; a server drops them without a word."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    is_object = schema.get("type") == "object" and not schema.get(_PRESERVE)
    if is_object and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


@functools.cache
def crd_validator(path: Path, version: str = "v1") -> jsonschema.protocols.Validator:
    """Validates against one version of a custom resource definition, strictly."""
    with gzip.open(path, "rt") as file:
        definition = yaml.load(file, yaml.CSafeLoader)  # megabytes: libyaml reads them in a second
    versions = {v["name"]: v for v in definition["spec"]["versions"]}
    schema: Tree = strict(versions[version]["schema"]["openAPIV3Schema"])
    # The server itself knows what metadata holds, at the top and only there.
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def clusters() -> dict[str, Tree]:
    """The two cluster specifications: the standing one, and the job's."""
    return {
        "cluster.yaml": load("cluster.yaml")["spec"],
        "job.yaml": load("job.yaml")["spec"]["rayClusterSpec"],
    }


def pods() -> Iterator[tuple[str, Tree]]:
    """Every pod that the manifests describe, by a name to be read in a failure."""
    for file, spec in clusters().items():
        yield f"{file} head", spec["headGroupSpec"]["template"]["spec"]
        for group in spec["workerGroupSpecs"]:
            yield f"{file} {group['groupName']}", group["template"]["spec"]
    yield "job.yaml submitter", load("job.yaml")["spec"]["submitterPodTemplate"]["spec"]


def containers() -> Iterator[tuple[str, Tree]]:
    """Every container, the ones that run first included."""
    for name, pod in pods():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{name} {container['name']}", container
