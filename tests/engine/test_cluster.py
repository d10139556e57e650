"""A Ray that cannot be had is told in one message, without Ray's own traceback."""

import pytest
import ray

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
