"""A host that is cut off in the middle of a job: for a minute, and for good.

Three hosts with addresses of their own; input, run folder and output lie on a real S3 server on the
head's host. Nothing tells the job that a host is gone but its silence.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_recipe, make_rows, write_corpus
from tests.faults.cluster import Cluster
from tests.faults.network import Network, network
from tests.faults.test_kills import Undisturbed, undisturbed_by
from tests.servers import Command, S3Server, wait_until

pytestmark = pytest.mark.slow_faults

CUT_SECONDS = 60.0
LAST = 2


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network(3) as made:
        yield made


@pytest.fixture(scope="module")
def server(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    head = net.hosts[0]
    started = S3Server(tmp_path_factory.mktemp("s3"), address=head.address, enter=head.enter)
    try:
        started.start()
        small = write_corpus(tmp_path_factory.mktemp("small"), make_rows(160), files=6)
        client = started.client()
        client.mkdir("faults")
        client.put(f"{small}/", "faults/in/", recursive=True)
        yield started
    finally:
        started.kill()


@pytest.fixture
def cluster(net: Network, server: S3Server) -> Iterator[Cluster]:
    with Cluster(net.hosts, env=server.environment()) as started:
        yield started


def recipe_for(name: str) -> dict[str, Any]:
    return make_recipe("s3://faults/in", f"s3://faults/{name}")


def command_for(cluster: Cluster, server: S3Server, name: str, folder: Path) -> Command:
    env = {**cluster.environment, **server.environment()}
    return Command(recipe_for(name), folder, env=env, enter=cluster.hosts[0].enter)


def fetched(server: S3Server, name: str, folder: Path) -> Path:
    """A run folder of the store, as a folder of this machine."""
    server.client().get(f"faults/{name}/", f"{folder}/", recursive=True)
    return folder


def has_begun(server: S3Server, name: str, stage: str) -> Callable[[], bool]:
    """Whether a stage has committed something, asked again and again."""
    client = server.client()

    def look() -> bool:
        found = client.find(f"faults/{name}/stages/{stage}")
        return any(file.endswith(".commit.json") for file in found)

    return look


@pytest.fixture(scope="module")
def undisturbed(
    net: Network, server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    with (
        Cluster(net.hosts, env=server.environment()) as cluster,
        command_for(cluster, server, "undisturbed", folder) as command,
    ):
        ended = command.end()
    assert ended.code == 0, ended.said
    return undisturbed_by(fetched(server, "undisturbed", folder / "run"))


@pytest.mark.parametrize("stage", ["04-dedup.minhash", "05-embed"], ids=["tasks", "actors"])
@pytest.mark.parametrize("seconds", [CUT_SECONDS, None], ids=["a-minute", "for-good"])
def test_cut_off(
    undisturbed: Undisturbed,
    net: Network,
    server: S3Server,
    cluster: Cluster,
    seconds: float | None,
    stage: str,
    tmp_path: Path,
) -> None:
    """The last host is cut off as soon as a stage has committed something."""
    name = f"{stage}-{seconds}"
    try:
        with command_for(cluster, server, name, tmp_path) as command:
            command.wait_for(has_begun(server, name, stage), f"commits of {stage}")
            net.cut(LAST)
            back = threading.Timer(seconds or 0.0, net.plug, [LAST])
            if seconds:
                back.start()
            ended = command.end()
        assert ended.code == 0, ended.said
        undisturbed.check(fetched(server, name, tmp_path / "run"))
        if seconds:
            # The host learns that it was given up, and ends; what it still did changed nothing.
            back.join()
            wait_until(lambda: not cluster.nodes[LAST].is_alive(), "the end of the lost node")
            undisturbed.check(fetched(server, name, tmp_path / "later"))
    finally:
        net.plug(LAST)
