"""Hosts with addresses of their own on one machine: network namespaces behind a bridge.

A host is cut off by taking its cable out of the bridge: nothing is refused, nothing is reset, its
packets go nowhere, as when a switch fails.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.faults.cluster import Host


@dataclass(frozen=True)
class Network:
    """A bridge and the hosts that are plugged into it."""

    name: str
    hosts: tuple[Host, ...]

    def cut(self, number: int) -> None:
        """Take a host's cable out."""
        _ip("link", "set", self._cable(number), "nomaster")

    def plug(self, number: int) -> None:
        """Put a host's cable in again; nothing happens if it is in."""
        _ip("link", "set", self._cable(number), "master", self.name)

    def _cable(self, number: int) -> str:
        return f"{self.name}-{number}"


@contextmanager
def network(count: int) -> Iterator[Network]:
    """Hosts on a private network that this machine can reach, too; skips where that is refused."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    token = secrets.token_hex(2)
    # A range for tests of network devices (RFC 2544): nobody routes it.
    prefix = f"198.18.{secrets.randbelow(256)}"
    hosts = tuple(
        Host(f"{prefix}.{number + 10}", ("ip", "netns", "exec", f"lc{token}-{number}"))
        for number in range(count)
    )
    made = Network(f"lc{token}", hosts)
    try:
        _ip("link", "add", made.name, "type", "bridge")
        _ip("addr", "add", f"{prefix}.1/24", "dev", made.name)
        _ip("link", "set", made.name, "up")
        for number, host in enumerate(hosts):
            _join(made, number, host.address)
        yield made
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host.enter[-1]], capture_output=True)
        subprocess.run(["ip", "link", "del", made.name], capture_output=True)


def _join(made: Network, number: int, address: str) -> None:
    space, outer = made.hosts[number].enter[-1], made._cable(number)
    _ip("netns", "add", space)
    _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("link", "set", outer, "master", made.name, "up")
    _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
    _ip("-n", space, "link", "set", "eth0", "up")
    _ip("-n", space, "link", "set", "lo", "up")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
