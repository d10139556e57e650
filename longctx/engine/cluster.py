"""Joining or starting Ray, with the settings that the engine relies on."""

import atexit
import contextlib
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator

from longctx.errors import RunError

# Without these, workers beyond `num_cpus` are killed after one idle second and every shuffle
# starts Python again: a group-by takes 7 s instead of 0.3 s on two cores. Arrow's own allocator
# keeps what was freed: a worker that read one document of 200 MB holds 600 MB until it ends.
_WORKER_SETTINGS = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "RAY_num_workers_soft_limit": "8",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
}
# What every node of a cluster, and the driver, must be started with; the files of `cluster/` do.
# A host that is cut off sends no reset: with Ray's own keep-alive a job waits minutes for it, with
# this one its work starts elsewhere within seconds.
NODE_SETTINGS = {
    **_WORKER_SETTINGS,
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
    "RAY_grpc_keepalive_time_ms": "5000",
    "RAY_grpc_keepalive_timeout_ms": "5000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
# A cloud takes minutes for a machine, and the image must get there.
_GROWS_WITHIN = 1200.0


def connect(num_cpus: int | None = None) -> int:
    """Join the cluster of RAY_ADDRESS (as jobs do) or start a local one; returns its CPUs.

    A local one gets `num_cpus`; a cluster that scales is asked for so many and waited for, since a
    run takes as many workers as it finds. A Ray that is already initialised in this process is
    used as it is. Raises RunError where none can be had.
    """
    if os.environ.get("RAY_ADDRESS"):
        # Before Ray is loaded, which reads them: a silent host keeps the driver waiting, too.
        for name, value in NODE_SETTINGS.items():
            os.environ.setdefault(name, value)
    # Ray's C++ side writes past every logger, and warns of every actor pool as of an error.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    _quiet()
    if not ray.is_initialized():
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(log_to_driver=False, logging_level=logging.ERROR)
            else:
                _start_local(num_cpus)
        except Exception as error:  # Ray raises plain Exception, ConnectionError, ValueError, ...
            raise _unreachable(error) from error
        if num_cpus and os.environ.get("RAY_ADDRESS"):
            _grow(num_cpus)
    _configure_data()
    return max(1, cluster_total("CPU"))


def _grow(num_cpus: int) -> None:
    """Ask the cluster's autoscaler for CPUs, wait for them, and let go of them at exit."""
    from ray.autoscaler.sdk import request_resources

    request_resources(num_cpus=num_cpus)
    atexit.register(request_resources, num_cpus=0)
    deadline = time.monotonic() + _GROWS_WITHIN
    while (there := cluster_total("CPU")) < num_cpus:
        if time.monotonic() > deadline:
            raise RunError(
                f"the cluster has {there} CPUs after {_GROWS_WITHIN / 60:.0f} minutes",
                where=f"--cpus {num_cpus}",
                remedy="ask for fewer, or raise the limits of the cluster's worker groups",
            )
        time.sleep(1)


def _unreachable(error: Exception) -> RunError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if address := os.environ.get("RAY_ADDRESS"):
        return RunError(
            f"the Ray cluster cannot be joined ({reason})",
            where=f"RAY_ADDRESS={address}",
            remedy="start the cluster, correct the address, or unset RAY_ADDRESS to work locally",
        )
    return RunError(
        f"Ray did not start on this machine ({reason})",
        where="ray",
        remedy="run again when the machine is less busy (Ray waits 30 s for its own processes)",
    )


def _start_local(num_cpus: int | None) -> None:
    import ray

    for name, value in _WORKER_SETTINGS.items():
        os.environ.setdefault(name, value)
    # Workers that may not write byte code compile every import again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with _native_output_held_back():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


@contextlib.contextmanager
def _native_output_held_back() -> Iterator[None]:
    """Keep what native code writes to stderr from the user, unless the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _quiet() -> None:
    # Ray Data sets its loggers up when it is imported; only later do our levels stay. What fails
    # in a dataset is raised and told once, so its own account of it is left out.
    import ray.data  # noqa: F401

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # The number of retries has no named parameter yet.
    warnings.filterwarnings("ignore", message="`ray_remote_args(_fn)?` is deprecated")


def _configure_data() -> None:
    import ray.data
    from ray.data.context import ShuffleStrategy

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.use_datasource_v2 = False
    # The older shuffle sends rows to actors: a task of it that dies and runs again sends its rows
    # twice, and an actor that dies takes what it was sent with it.
    context.shuffle_strategy = ShuffleStrategy.SHUFFLE_V2
    # Otherwise what a worker raised reaches the driver as text only.
    context.raise_original_map_exception = True


def cluster_total(resource: str) -> int:
    """CPUs or GPUs (`"CPU"`, `"GPU"`) of the cluster that this process is connected to."""
    import ray

    totals: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(totals.get(resource, 0))


def nodes() -> int:
    """Living nodes of the cluster that this process is connected to; 1 where it is to none."""
    import ray

    if not ray.is_initialized():
        return 1
    return sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]
