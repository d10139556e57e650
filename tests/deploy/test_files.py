"""The other files of `cluster/`: image, `ray up`, Slurm, dashboard; and that all agree."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

from longctx.engine.cluster import NODE_SETTINGS
from longctx.engine.metrics import METRICS
from tests.deploy.manifests import CLUSTER, RAY_METRICS

ROOT = CLUSTER.parent
SHELLCHECK = Path(sys.executable).parent / "shellcheck"
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()


def instructions() -> list[list[str]]:
    """The Dockerfile's instructions as words, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [line.split() for line in joined.splitlines() if line.strip()]


def stages() -> dict[str, list[list[str]]]:
    """Instructions by stage of the build."""
    found: dict[str, list[list[str]]] = {}
    for words in instructions():
        if words[0] == "FROM":
            found[words[-1]] = current = [words]
        elif found:
            current.append(words)
    return found


def test_every_image_is_named_by_digest():
    arguments = dict(w[1].split("=", 1) for w in instructions() if w[0] == "ARG" and "=" in w[1])
    bases = {w[1] for w in instructions() if w[0] == "FROM"} - set(stages())
    assert bases == {"${PYTHON}"}
    assert re.fullmatch(
        r"docker\.io/library/python:3\.11-slim-\w+@sha256:[0-9a-f]{64}", arguments["PYTHON"]
    )


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_runs_as_an_ordinary_user_and_is_warmed_by_it(target):
    words = stages()[target]
    user = words.index(["USER", "1000:1000"])
    assert words.index(["RUN", "python", "-m", "longctx.warm"]) > user
    assert not [w for w in words[user + 1 :] if w[0] == "USER"]
    # What pip needs and leaves stays in the stage that installs.
    assert ["COPY", f"--from=installed-{target}", "/installed", "/usr/local"] in words
    final = [*stages()["runtime"], *words]
    assert not [w for w in final if w[0] == "RUN" and {"pip", "apt-get"} & set(w)]


def test_dependencies_are_those_of_the_constraints_file():
    installs = [w for w in instructions() if w[:3] == ["RUN", "pip", "install"]]
    assert len(installs) == 2
    assert all("constraints.txt" in w for w in installs)


def test_only_what_the_image_needs_reaches_the_builder():
    allowed = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in allowed
    named = {line[1:] for line in allowed if line.startswith("!")}
    copied = {s for w in instructions() if w[0] == "COPY" and "--from" not in w[1] for s in w[1:-1]}
    assert named == copied
    assert all((ROOT / name).exists() for name in named)


@pytest.mark.parametrize("file", ["Dockerfile", "slurm.sh"])
def test_nodes_start_with_the_settings_of_the_engine(file):
    text = (CLUSTER / file).read_text()
    assert dict(re.findall(r"\b(RAY_[a-z]\w*|ARROW_\w+)=(\w+)", text)) == NODE_SETTINGS


def test_ray_up_has_the_form_that_ray_wants():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CLUSTER / "ray-up.yaml").read_text())
    schema = Path(ray.__path__[0]) / "autoscaler" / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))
    validate_config(prepare_config(copy.deepcopy(config)))
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu"]["resources"] == {"CPU": 1, "GPU": 1}
    for kind in types.values():
        assert kind["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
        assert kind["node_config"]["IamInstanceProfile"]["Name"].startswith("longctx-")
    images = [config["docker"]["image"], types["gpu"]["docker"]["worker_image"]]
    assert all(re.fullmatch(r"REGISTRY/longctx-[cg]pu@sha256:DIGEST", i) for i in images)
    # Ray's own commands would install a nightly build.
    assert config["setup_commands"] == config["head_setup_commands"] == []


def test_the_slurm_script_is_clean():
    done = subprocess.run([SHELLCHECK, CLUSTER / "slurm.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=True)


def test_the_slurm_script_says_how_it_is_called():
    done = subprocess.run([CLUSTER / "slurm.sh"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: sbatch cluster/slurm.sh RECIPE" in done.stderr


def test_prometheus_takes_rays_prefix_from_our_names_only():
    jobs = yaml.safe_load((CLUSTER / "prometheus.yml").read_text())["scrape_configs"]
    renaming = [job for job in jobs if "metric_relabel_configs" in job]
    assert {job["job_name"] for job in renaming} == {"longctx-kuberay", "longctx-ray"}
    for job in renaming:
        (rule,) = job["metric_relabel_configs"]
        assert rule["source_labels"] == ["__name__"]
        assert rule["target_label"] == "__name__"
        for metric in METRICS:
            assert re.fullmatch(rule["regex"], f"ray_{metric.name}")[1] == metric.name
        assert not re.fullmatch(rule["regex"], "ray_node_mem_used")


def test_the_dashboard_asks_for_metrics_and_labels_that_exist():
    board = json.loads((CLUSTER / "grafana" / "longctx.json").read_text())
    known = {m.name: set(m.labels) for m in METRICS}
    panels = board["panels"]
    assert len({p["id"] for p in panels}) == len(panels) > 8
    asked = set()
    for panel in panels:
        for target in panel["targets"]:
            expression = target["expr"]
            for name in re.findall(r"\b(?:ray|longctx)_\w+", expression):
                assert name in known or name in RAY_METRICS, panel["title"]
                asked.add(name)
            labels = set(re.findall(r"(\w+)(?:=|!=)\"", expression))
            labels |= {
                label.strip()
                for listed in re.findall(r"by \(([^)]*)\)", expression)
                for label in listed.split(",")
            }
            labels |= set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - {"ip"}
            for name in set(re.findall(r"\blongctx_\w+", expression)):
                assert labels <= known[name], panel["title"]
    assert asked >= set(known)
    (run,) = [v for v in board["templating"]["list"] if v["name"] == "run"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", run["query"]["query"]).groups()
    assert label in known[metric]
