"""A Ray cluster of several nodes on this machine, each with its own address, files and processes.

A node is `ray start --block` in a process group of its own, as an operator starts it, so that one
process of it can be killed, or all of them at once.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from longctx.engine.cluster import NODE_SETTINGS
from tests.faults.alive import PATIENCE_SECONDS
from tests.servers import clean_environment, free_ports

ROOT = Path(__file__).parents[2]
OBJECT_STORE_BYTES = 200_000_000
TRIES = 3


@dataclass(frozen=True)
class Host:
    """Where a node runs: its address, and the words that put a command there."""

    address: str
    enter: tuple[str, ...] = ()


@dataclass
class Node:
    """A running node."""

    host: Host
    process: "subprocess.Popen[bytes]"
    said: Path
    seen: set[psutil.Process] = field(default_factory=set)

    def processes(self) -> list[psutil.Process]:
        """Everything that the node started and that still runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.seen |= set(psutil.Process(self.process.pid).children(recursive=True))
        return [p for p in self.seen if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def raylet(self) -> psutil.Process:
        """The process whose end is the end of the node."""
        return next(p for p in self.processes() if p.name() == "raylet")

    def is_alive(self) -> bool:
        """Whether the node's own processes all run: `ray start` ends when one of them does."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL to all processes of the node at once, as when the power fails."""
        doomed = self.processes()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


class Cluster:
    """A head and workers with one CPU each; a context manager that leaves no process."""

    def __init__(
        self,
        hosts: Sequence[Host],
        env: dict[str, str] | None = None,
        object_store: int = OBJECT_STORE_BYTES,
    ) -> None:
        self.hosts, self._object_store = list(hosts), object_store
        # Paths of Unix sockets are short: pytest's own folders are too deep.
        self._folder = Path(tempfile.mkdtemp(prefix="lc"))
        self._env = {
            **clean_environment(),
            **NODE_SETTINGS,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # A head asks for a token by itself; who joins must be told that there is one.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            **(env or {}),
        }
        # Workers that may not write byte code compile every import again.
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)
        self._started = 0
        self._port = 0
        self.nodes: list[Node] = []

    def logs(self) -> list[Path]:
        """What the nodes' processes said, as far as they live."""
        return sorted(f for f in self._folder.glob("*/session_latest/logs/*") if f.is_file())

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a command joins the cluster."""
        names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", *NODE_SETTINGS)
        return {"RAY_ADDRESS": self._address, **{name: self._env[name] for name in names}}

    @property
    def _address(self) -> str:
        return f"{self.hosts[0].address}:{self._port}"

    def __enter__(self) -> "Cluster":
        try:
            self.mend()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def mend(self) -> None:
        """Start what does not run: the workers that are gone, or all nodes if the head is.

        Ray gives a node 30 s to start, which a busy machine may not keep: then it is tried again.
        """
        for _ in range(TRIES):
            if self._mended():
                return
        said = "\n".join(node.said.read_text() for node in self.nodes)
        raise AssertionError(f"the cluster did not start:\n{said}")

    def _mended(self) -> bool:
        if not self.nodes or not self.nodes[0].is_alive():
            for node in self.nodes:
                node.kill()
            self.nodes = []
            self.nodes.append(self._start(self.hosts[0]))
            # Workers give up on a head that does not answer yet.
            if not self._alive(1):
                return False
        for number, host in enumerate(self.hosts):
            if number == len(self.nodes):
                self.nodes.append(self._start(host))
            elif not self.nodes[number].is_alive():
                self.nodes[number].kill()
                self.nodes[number] = self._start(host)
        return self._alive(len(self.hosts))

    def _start(self, host: Host) -> Node:
        ports = free_ports(4)
        folder = self._folder / f"{self._started}"
        folder.mkdir()
        self._started += 1
        options = [f"--temp-dir={folder}", f"--node-ip-address={host.address}", "--num-cpus=1"]
        options += [f"--object-store-memory={self._object_store}", "--include-log-monitor=false"]
        options += [f"--dashboard-agent-listen-port={ports[0]}", "--disable-usage-stats"]
        if self.nodes:
            options += [f"--address={self._address}"]
        else:
            self._port = ports[1]
            options += ["--head", f"--port={ports[1]}", f"--ray-client-server-port={ports[2]}"]
            options += ["--include-dashboard=false"]
        said = folder / "said.txt"
        with said.open("wb") as log:
            process = subprocess.Popen(
                [*host.enter, "ray", "start", "--block", *options],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Node(host, process, said)

    def _alive(self, count: int) -> bool:
        """Whether so many nodes come to life, as the head sees it."""
        command = [*self.hosts[0].enter, sys.executable, "-m", "tests.faults.alive", self._address]
        try:
            # Ray waits for ever for a head that dies while it is joined.
            done = subprocess.run(
                [*command, str(count)],
                cwd=ROOT,
                env=self._env,
                capture_output=True,
                timeout=PATIENCE_SECONDS + 60,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


@contextlib.contextmanager
def local_cluster(count: int = 3, object_store: int = OBJECT_STORE_BYTES) -> Iterator[Cluster]:
    """A cluster on loopback addresses of this machine."""
    hosts = [Host(f"127.0.0.{number + 2}") for number in range(count)]
    with Cluster(hosts, object_store=object_store) as cluster:
        yield cluster
