"""The lock of a run folder: one holder, whatever died where, and exactly one winner of a race."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from longctx.engine import lock
from longctx.engine.lock import STALE_SECONDS, RunLock
from longctx.errors import RunError
from longctx.io import paths
from tests.servers import wait_until

DEAD = 2**22 + 1  # Above the largest process number of Linux.


@pytest.fixture(params=["local", "memory"])
def run_dir(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "local" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture(autouse=True)
def watched_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.1)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.01)


def files(run_dir: str) -> list[str]:
    return list(paths.list_files(paths.join(run_dir, "lock"), temporary=True))


def leave(run_dir: str, number: int = 0, **changes: Any) -> None:
    """A lock file as a holder leaves it, with some of what it says replaced."""
    with RunLock(run_dir):
        (name,) = files(run_dir)
        owner = json.loads(paths.read_bytes(paths.join(run_dir, "lock", name)))
    data = json.dumps({**owner, **changes}).encode()
    paths.write_atomic(paths.join(run_dir, "lock", f"{number:07d}.json"), data)


def test_second_holder_is_refused_and_told_who_holds(run_dir: str) -> None:
    with RunLock(run_dir):
        with pytest.raises(RunError, match="is in use by process") as caught, RunLock(run_dir):
            pass
        assert f"process {os.getpid()} on {socket.gethostname()}" in caught.value.message
        assert caught.value.where == run_dir
        assert "another run_dir" in caught.value.remedy
        assert files(run_dir) == ["0000000.json"]


def test_released_lock_can_be_taken_again(run_dir: str) -> None:
    for _ in range(3):
        with RunLock(run_dir):
            assert files(run_dir) == ["0000000.json"]
        assert files(run_dir) == []


def test_lock_is_released_when_the_run_fails(run_dir: str) -> None:
    with pytest.raises(ValueError, match="run"), RunLock(run_dir):
        raise ValueError("run")
    assert files(run_dir) == []


def test_release_that_fails_does_not_hide_how_the_run_failed(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: str) -> None:
        raise RunError("storage is away")

    def run() -> None:
        monkeypatch.setattr(paths, "remove", away)
        raise ValueError("run")

    with pytest.raises(ValueError, match="run"), RunLock(run_dir):
        run()


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": DEAD},
        {"process_start": "1"},
        {"host": "elsewhere", "time": time.time() - STALE_SECONDS - 60},
        {"processes": "another boot", "time": time.time() - STALE_SECONDS - 60},
        {"host": "elsewhere", "time": time.time() + 86_400},
    ],
    ids=["dead", "number-used-again", "elsewhere-old", "rebooted-old", "elsewhere-future"],
)
def test_stale_lock_is_taken_over_and_cleared(run_dir: str, changes: dict[str, Any]) -> None:
    leave(run_dir, 4, **changes)
    with RunLock(run_dir):
        assert files(run_dir) == ["0000005.json"]
    assert files(run_dir) == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"host": "elsewhere", "pid": DEAD},
        {"processes": "another container", "pid": DEAD},
    ],
    ids=["alive", "elsewhere-new", "container-new"],
)
def test_living_lock_is_respected(run_dir: str, changes: dict[str, Any]) -> None:
    leave(run_dir, **changes)
    with pytest.raises(RunError, match="is in use"), RunLock(run_dir):
        pass
    assert files(run_dir) == ["0000000.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"pid": "x", "time": 0}'])
def test_lock_that_cannot_be_read_is_respected_with_a_remedy(run_dir: str, content: bytes) -> None:
    paths.write_atomic(paths.join(run_dir, "lock", "0000000.json"), content)
    with pytest.raises(RunError, match="in use by another process") as caught, RunLock(run_dir):
        pass
    assert f"remove {paths.join(run_dir, 'lock')}" in caught.value.remedy


def test_leftovers_are_no_lock(run_dir: str) -> None:
    for name in (".tmp-1-0000007.json", "notes.json", "0000009.json.bak"):
        paths.write_atomic(paths.join(run_dir, "lock", name), b"{}")
    with RunLock(run_dir):
        assert "0000000.json" in files(run_dir)


def when_created(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Let something happen just before the next lock file is created."""
    real = paths.create_exclusive

    def first_act(url: str, data: bytes) -> bool:
        monkeypatch.setattr(paths, "create_exclusive", real)
        act()
        return real(url, data)

    monkeypatch.setattr(paths, "create_exclusive", first_act)


def test_newcomer_that_lost_the_race_is_refused(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(run_dir, 4, pid=DEAD)
    winner = RunLock(run_dir)
    when_created(monkeypatch, lambda: (winner.__enter__(), None)[1])
    with pytest.raises(RunError, match="in use"), RunLock(run_dir):
        pass
    assert files(run_dir) == ["0000005.json"]
    winner.__exit__()


def test_slow_newcomer_gives_way_to_a_higher_number(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(run_dir, 4, pid=DEAD)

    def two_takeovers() -> None:
        paths.remove(paths.join(run_dir, "lock", "0000004.json"))
        leave(run_dir, 6)

    when_created(monkeypatch, two_takeovers)
    with pytest.raises(RunError, match="in use"), RunLock(run_dir):
        pass
    assert files(run_dir) == ["0000006.json"]


def test_holder_renews_its_heartbeat(run_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.001)
    renewed = multiprocessing.get_context("spawn").Event()
    real = paths.write_atomic

    def write(url: str, data: bytes) -> None:
        real(url, data)
        renewed.set()

    monkeypatch.setattr(paths, "write_atomic", write)
    with RunLock(run_dir):
        assert renewed.wait(30)
        (name,) = [n for n in files(run_dir) if not n.startswith(".")]
        assert json.loads(paths.read_bytes(paths.join(run_dir, "lock", name)))["pid"] == os.getpid()


def test_heartbeat_survives_storage_that_is_away(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.001)
    again = multiprocessing.get_context("spawn").Event()
    calls = 0

    def write(url: str, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            again.set()
        raise RunError("away")

    monkeypatch.setattr(paths, "write_atomic", write)
    with RunLock(run_dir):
        assert again.wait(30)


class Elsewhere(RunLock):
    """A holder on another machine, which only its heartbeat shows to be alive."""

    def _content(self) -> bytes:
        return json.dumps({**json.loads(super()._content()), "host": "elsewhere"}).encode()


@pytest.mark.parametrize("jump", [-86_400, -100, 100, 86_400])
def test_a_clock_that_jumps_does_not_open_a_living_lock(
    run_dir: str, jump: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(lock, "WATCH_SECONDS", 60.0)
    with Elsewhere(run_dir) as holder:
        (before,) = files(run_dir)
        monkeypatch.setattr(lock, "_now", lambda: time.time() + jump)
        with pytest.raises(RunError, match=r"in use by process .* on elsewhere"), RunLock(run_dir):
            pass
        assert before in files(run_dir)
        holder.check()


def test_holder_that_was_taken_for_dead_ends(run_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    with RunLock(run_dir) as stopped:
        (name,) = [n for n in files(run_dir) if not n.startswith(".")]
        owner = json.loads(paths.read_bytes(paths.join(run_dir, "lock", name)))
        data = json.dumps({**owner, "pid": 77, "host": "elsewhere"}).encode()
        paths.write_atomic(paths.join(run_dir, "lock", "0000001.json"), data)
        wait_until(lambda: stopped._overtaken, "the next heartbeat", 60)
        with pytest.raises(RunError, match=r"took over .*process 77 on elsewhere"):
            stopped.check()
    assert "0000001.json" in files(run_dir)


def test_process_that_is_gone_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert lock._process_start(child.pid) is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert lock._process_start(child.pid) is None
    child.communicate()
    assert lock._process_start(child.pid) is None


def test_process_hidden_from_us_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(*_: Any) -> None:
        raise FileNotFoundError

    def not_ours(*_: Any) -> None:
        raise PermissionError

    owner = {"host": socket.gethostname(), "processes": lock._process_space(), "pid": 1, "time": 0}
    monkeypatch.setattr("builtins.open", hidden)
    monkeypatch.setattr(lock, "_process_space", lambda: owner["processes"])
    monkeypatch.setattr(os, "kill", not_ours)
    assert not lock._is_stale({**owner, "process_start": "123"})


def contend(run_dir: str, pipe: Connection) -> None:
    """One of several processes: try when told, say how it went, hold until told."""
    pipe.send("ready")
    pipe.recv()
    try:
        with RunLock(run_dir):
            pipe.send("holds")
            pipe.recv()
    except RunError:
        pipe.send("refused")


@pytest.mark.parametrize("stale", [False, True])
def test_exactly_one_of_several_processes_wins(tmp_path: Path, stale: bool) -> None:
    run_dir = str(tmp_path / "run")
    if stale:
        leave(run_dir, 3, pid=DEAD)
    spawn = multiprocessing.get_context("spawn")
    pairs = [spawn.Pipe() for _ in range(4)]
    runners = [spawn.Process(target=contend, args=(run_dir, theirs)) for _, theirs in pairs]
    ours = [mine for mine, _ in pairs]
    for runner, (_, theirs) in zip(runners, pairs, strict=True):
        runner.start()
        theirs.close()
    try:
        assert [pipe.recv() for pipe in ours] == ["ready"] * 4
        for pipe in ours:
            pipe.send("go")
        said = [pipe.recv() for pipe in ours]
        assert sorted(said) == ["holds", "refused", "refused", "refused"]
        assert len(files(run_dir)) == 1
        ours[said.index("holds")].send("end")
    finally:
        for runner in runners:
            runner.join(30)
            runner.kill()
    assert files(run_dir) == []


def test_killed_holder_does_not_block_the_next_run(tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    holder = spawn.Process(target=contend, args=(run_dir, theirs))
    holder.start()
    theirs.close()
    assert mine.recv() == "ready"
    mine.send("go")
    assert mine.recv() == "holds"
    with pytest.raises(RunError, match=f"process {holder.pid}"), RunLock(run_dir):
        pass
    holder.kill()
    holder.join()
    with RunLock(run_dir):
        assert files(run_dir) == ["0000001.json"]
