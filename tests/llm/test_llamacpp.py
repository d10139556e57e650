"""`llama-server` as a child, with a stand-in for it: starts, caps, faults, and its end."""

import asyncio
import json
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longctx.llm.gguf_id import gguf_digest
from longctx.llm.llama_process import Child
from longctx.llm.llamacpp import LlamaCpp, LlamaCppSettings
from longctx.llm.loop_thread import LoopThread
from longctx.llm.types import Answer, AttemptError, GenRequest, LLMJobError

FAKE = Path(__file__).with_name("fake_llama_server.py")
ROOT = Path(__file__).parents[2]
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a binary, a model and the log; the stand-in keeps its notes there."""
    binary = tmp_path / "llama-server"
    binary.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    binary.chmod(0o755)
    (tmp_path / "m.gguf").write_bytes(b"abc")
    monkeypatch.setenv("FAKE_LLAMA", str(tmp_path))
    return tmp_path


def settings(folder: Path, **changes: Any) -> LlamaCppSettings:
    return LlamaCppSettings(
        gguf=str(folder / "m.gguf"),
        binary=str(folder / "llama-server"),
        log_dir=str(folder / "logs"),
        **{"slots": 2, "ctx_per_slot": 256, "start_s": 30.0, **changes},
    )


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


def ask(text: str = "hi", max_tokens: int = 8, **changes: Any) -> GenRequest:
    return GenRequest(
        request_id="r",
        messages=[{"role": "user", "content": text}],
        max_tokens=max_tokens,
        **changes,
    )


def starts(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / "starts").read_text().splitlines()]


def is_gone(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends, waiting for it if need be."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def test_a_server_from_start_to_end(folder: Path, loop: LoopThread) -> None:
    (folder / "loading").write_text("2")
    backend = LlamaCpp(settings(folder, threads=3))
    assert backend.model_id == f"gguf:{ABC}"
    found = loop.run(backend.attempt(ask(seed=5, schema={"type": "object"}), "k"))
    ((pid, *arguments),) = starts(folder)
    wanted = {"--ctx-size": "512", "--parallel": "2", "--threads": "3", "--host": "127.0.0.1"}
    assert {name: arguments[arguments.index(name) + 1] for name in wanted} == wanted
    assert arguments[:2] == ["--model", str(folder / "m.gguf")]
    assert "--no-webui" in arguments
    body = json.loads(found.text.partition(" ")[2])
    assert (body["seed"], body["max_tokens"]) == (5, 8)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    # What /props says, not what was asked for.
    assert (backend.caps.max_context, backend.caps.max_concurrency) == (240, 2)
    loop.run(backend.aclose())
    assert is_gone(pid, 0)
    assert "POST /v1/chat/completions" in (next((folder / "logs").iterdir())).read_text()


def test_the_key_is_in_no_argument(folder: Path, loop: LoopThread) -> None:
    backend = LlamaCpp(settings(folder))
    loop.run(backend.attempt(ask(), "k"))
    ((pid, *_),) = starts(folder)
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (key,) = (e.partition(b"=")[2] for e in environment if e.startswith(b"LLAMA_API_KEY="))
    assert len(key) == 48
    assert key not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert "LLAMA_API_KEY" not in os.environ
    loop.run(backend.aclose())


def test_what_does_not_fit_a_slot_is_not_sent(folder: Path, loop: LoopThread) -> None:
    backend = LlamaCpp(settings(folder))
    with pytest.raises(AttemptError) as caught:
        loop.run(backend.attempt(ask("x" * 400, max_tokens=137), "k"))  # 104 + 137 > 240
    assert caught.value.event == "context_overflow"
    assert isinstance(loop.run(backend.attempt(ask("x" * 400, max_tokens=136), "k")), Answer)
    loop.run(backend.aclose())
    assert (next((folder / "logs").iterdir())).read_text().count("POST") == 1


def test_a_port_that_was_taken_meanwhile(folder: Path, loop: LoopThread) -> None:
    (folder / "taken").write_text("2")
    backend = LlamaCpp(settings(folder))
    loop.run(backend.attempt(ask(), "k"))
    assert len(starts(folder)) == 3
    loop.run(backend.aclose())
    (folder / "taken").write_text("9")
    with pytest.raises(LLMJobError, match="couldn't bind"):
        loop.run(LlamaCpp(settings(folder)).attempt(ask(), "k"))
    assert len(starts(folder)) == 8


def test_a_model_that_does_not_load(folder: Path, loop: LoopThread) -> None:
    (folder / "broken").write_text("9")
    with pytest.raises(LLMJobError, match="ended at its start: error: failed to load") as caught:
        loop.run(LlamaCpp(settings(folder)).attempt(ask(), "k"))
    assert caught.value.code == "misconfigured"
    assert len(starts(folder)) == 1


def test_a_model_that_never_loads(folder: Path, loop: LoopThread) -> None:
    (folder / "loading").write_text("100000")
    with pytest.raises(LLMJobError, match="did not load the model within 2 s"):
        loop.run(LlamaCpp(settings(folder, start_s=2.0)).attempt(ask(), "k"))
    # On a busy machine it may have been ended before it could say that it starts.
    if (folder / "starts").exists():
        assert all(is_gone(pid) for pid, *_ in starts(folder))


def test_a_server_that_dies_is_started_again(folder: Path, loop: LoopThread) -> None:
    backend = LlamaCpp(settings(folder))
    for i in range(4):
        with pytest.raises(AttemptError) as caught:
            loop.run(backend.attempt(ask("die"), "k"))
        assert caught.value.event == "connection"
        assert is_gone(starts(folder)[i][0])
    with pytest.raises(LLMJobError, match="died again"):
        loop.run(backend.attempt(ask(), "k"))
    loop.run(backend.aclose())


def test_deterministic_is_one_slot_without_a_prompt_cache(folder: Path, loop: LoopThread) -> None:
    backend = LlamaCpp(settings(folder, deterministic=True))
    found = loop.run(backend.attempt(ask(), "k"))
    assert json.loads(found.text.partition(" ")[2])["cache_prompt"] is False
    assert backend.caps.max_concurrency == 1
    with pytest.raises(AttemptError, match="temperature 0"):
        loop.run(backend.attempt(ask(temperature=0.5), "k"))
    loop.run(backend.aclose())


def test_several_requests_start_one_server(folder: Path, loop: LoopThread) -> None:
    backend = LlamaCpp(settings(folder))

    async def together() -> list[Answer]:
        return await asyncio.gather(*(backend.attempt(ask(str(i)), str(i)) for i in range(8)))

    pids = {answer.text.partition(" ")[0] for answer in loop.run(together())}
    assert len(pids) == len(starts(folder)) == 1
    loop.run(backend.aclose())


STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").close()
signal.pause()
"""


def test_a_stubborn_server_is_killed(folder: Path) -> None:
    ready = folder / "ready"
    os.mkfifo(ready)
    child = Child([sys.executable, "-c", STUBBORN, str(ready)], os.environ, folder / "x.log")
    ready.read_bytes()  # blocks until the child has opened it
    child.stop(grace_s=0.1)
    assert child.process.returncode == -signal.SIGKILL
    assert is_gone(child.process.pid, 0)


PARENT = """
import sys, threading
from longctx.llm.llamacpp import LlamaCpp, LlamaCppSettings
from longctx.llm.loop_thread import process_loop
from longctx.llm.types import GenRequest

backend = LlamaCpp(LlamaCppSettings.model_validate_json(sys.argv[1]))
req = GenRequest(request_id="r", messages=[{"role": "user", "content": "hi"}], max_tokens=8)

def ask():
    print(process_loop().run(backend.attempt(req, "k")).text.partition(" ")[0], flush=True)

for _ in range(2):
    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
sys.stdin.read()
"""


def test_the_server_ends_with_a_killed_parent_and_not_with_a_thread(folder: Path) -> None:
    """Two threads ask one after the other and end; both meet the same server. Then SIGKILL."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, settings(folder).model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert parent.stdout is not None
        first, second = int(parent.stdout.readline()), int(parent.stdout.readline())
        assert first == second
        assert not is_gone(first, 0)
    finally:
        parent.kill()
        parent.communicate()
    assert is_gone(first)


def test_without_a_binary_there_is_a_hint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LONGCTX_LLAMA_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    plain = settings(folder).model_copy(update={"binary": None})
    with pytest.raises(LLMJobError, match=r"install llama\.cpp") as caught:
        LlamaCpp(plain)
    assert caught.value.code == "misconfigured"
    monkeypatch.setenv("LONGCTX_LLAMA_SERVER", str(folder / "llama-server"))
    assert LlamaCpp(plain).model_id == f"gguf:{ABC}"
    monkeypatch.delenv("LONGCTX_LLAMA_SERVER")
    monkeypatch.setenv("PATH", str(folder))
    assert pickle.loads(pickle.dumps(LlamaCpp(plain))).settings == plain


def test_without_a_model_file(folder: Path) -> None:
    (folder / "m.gguf").unlink()
    with pytest.raises(LLMJobError, match="cannot be read"):
        LlamaCpp(settings(folder))


def test_the_digest_is_kept_beside_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "m.gguf"
    assert gguf_digest(file) == ABC
    with monkeypatch.context() as patched:
        patched.setattr("hashlib.file_digest", None)
        assert gguf_digest(file) == ABC
    file.write_bytes(b"abcd")
    assert gguf_digest(file) != ABC
    (folder / "m.gguf.sha256.json").write_text("{}")
    assert gguf_digest(file) != ABC
