"""A Ray that cannot be had is told in one message, without Ray's own traceback."""

import pytest
import ray
import ray.autoscaler.sdk

from longctx.engine import cluster
from longctx.errors import RunError


@pytest.mark.parametrize(
    ("address", "said"),
    [("", "Ray did not start"), ("10.0.0.1:6379", "RAY_ADDRESS=10.0.0.1:6379: the Ray cluster")],
)
def test_a_ray_that_cannot_be_had_is_told_in_one_message(monkeypatch, address, said):
    def fail(*args, **kwargs):
        raise Exception("The current node timed out during startup.\nDetails follow.")

    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(RunError) as caught:
        cluster.connect()
    assert said in str(caught.value)
    assert "timed out during startup." in str(caught.value)
    assert "Details" not in str(caught.value)
    assert caught.value.remedy


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """What a cluster's autoscaler is asked for; nobody joins one here."""
    found: list[int] = []
    monkeypatch.setattr(
        ray.autoscaler.sdk, "request_resources", lambda num_cpus: found.append(num_cpus)
    )
    monkeypatch.setattr(cluster.atexit, "register", lambda call, **given: call(**given))
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)
    return found


def test_a_cluster_is_asked_for_cpus_and_waited_for(monkeypatch, asked):
    there = iter([0, 0, 4, 8])
    monkeypatch.setattr(cluster, "cluster_total", lambda resource: next(there))
    cluster._grow(8)
    assert next(there, "waited for all") == "waited for all"
    # Asked for, and let go of at exit.
    assert asked == [8, 0]


def test_a_cluster_that_does_not_grow_is_told_with_what_it_has(monkeypatch, asked):
    monkeypatch.setattr(cluster, "cluster_total", lambda resource: 4)
    monkeypatch.setattr(cluster, "_GROWS_WITHIN", 0.0)
    with pytest.raises(RunError, match="4 CPUs") as caught:
        cluster._grow(8)
    assert caught.value.where == "--cpus 8"
