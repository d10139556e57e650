"""An object store in trouble: refusals, lost answers, slow answers, credentials that expire.

A run ends with the right bytes, or with one clear error after which a resume ends with them. The
job's credentials may only read the bucket that its input lies in.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from longctx.errors import RunError
from longctx.io import paths
from longctx.io.uploads import abort_uploads
from tests.conftest import make_recipe, make_rows, write_corpus
from tests.faults.proxy import PASSING, Trouble, proxy
from tests.servers import READER, S3Server, run_command, s3_server, wait_until
from tests.test_object_store import assert_clear

pytestmark = [pytest.mark.s3, pytest.mark.faults]
OPS = ("score.heuristics", "dedup.exact", "order.random")
STAGES = [*({"op": op} for op in OPS), {"op": "pack", "length": 1024}]
Objects = dict[str, bytes]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    corpus = write_corpus(tmp_path_factory.mktemp("small"), make_rows(40))
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        store = running.client()
        for bucket in ("raw", "work", "out"):
            store.mkdir(bucket)
        for file in corpus.iterdir():
            store.pipe_file(f"raw/small/{file.name}", file.read_bytes())
        yield running


def recipe(name: str) -> dict[str, Any]:
    made = make_recipe("s3://raw/small", f"s3://work/{name}", stages=STAGES)
    return {**made, "output": {"path": f"s3://out/{name}", "format": ["parquet", "mds"]}}


def environment(server: S3Server, url: str) -> dict[str, str]:
    """The reader behind a proxy, with botocore's own number of attempts and little patience."""
    found = {**server.environment(), "AWS_ENDPOINT_URL": url}
    found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"] = READER
    del found["AWS_MAX_ATTEMPTS"]
    return {**found, "FSSPEC_S3": '{"config_kwargs": {"read_timeout": 3}}'}


def output(server: S3Server, name: str) -> Objects:
    store = server.client()
    names = [n for n in store.find(f"out/{name}") if not n.endswith("_longctx.json")]
    return {n.removeprefix(f"out/{name}/"): store.cat_file(n) for n in names}


def unfinished(server: S3Server, bucket: str) -> list[str]:
    found = server.client().call_s3("list_multipart_uploads", Bucket=bucket)
    return sorted(u["Key"] for u in found.get("Uploads", []))


@pytest.fixture(scope="module")
def peaceful(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Objects, int]:
    """Output of an undisturbed run with an input that it may only read, and its requests."""
    trouble = Trouble()
    with proxy(server.url, trouble) as url:
        folder = tmp_path_factory.mktemp("peaceful")
        ended = run_command(recipe("peaceful"), folder, env=environment(server, url))
    assert ended.code == 0, ended.said
    return output(server, "peaceful"), trouble.number


def test_one_request_in_twenty_fails_and_one_in_ten_is_slow(
    server: S3Server, peaceful: tuple[Objects, int], tmp_path: Path
) -> None:
    kill_writer_in_the_middle(server, "s3://work/faulty/documents/big.parquet")
    server.client().call_s3("create_multipart_upload", Bucket="work", Key="faulty-too/other")
    assert unfinished(server, "work") == ["faulty-too/other", "faulty/documents/big.parquet"]

    trouble = Trouble(seed=1, share=0.05, slow=0.1)
    with proxy(server.url, trouble) as url:
        ended = run_command(recipe("faulty"), tmp_path, env=environment(server, url))
    assert sum(trouble.met[kind] for kind in PASSING) > peaceful[1] // 40
    if ended.code:
        assert_clear(ended, "s3://")
        ended = run_command(recipe("faulty"), tmp_path, env=environment(server, server.url))
    assert ended.code == 0, ended.said
    assert output(server, "faulty") == peaceful[0]
    assert unfinished(server, "work") == ["faulty-too/other"]


def kill_writer_in_the_middle(server: S3Server, url: str) -> None:
    """A process that dies while it uploads in pieces: the store keeps the upload."""
    write = f"from longctx.io import paths; paths.write_atomic({url!r}, bytes(100 << 20))"
    trouble = Trouble(last="silent", last_after=1)
    with proxy(server.url, trouble) as at:
        env = {**os.environ, **server.environment(), "AWS_ENDPOINT_URL": at}
        writer = subprocess.Popen([sys.executable, "-c", write], env=env)
        try:
            wait_until(lambda: trouble.met["silent"] > 0, "the first piece", 60)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()


@pytest.mark.slow_faults
def test_credentials_that_expire_in_the_middle(
    server: S3Server, peaceful: tuple[Objects, int], tmp_path: Path
) -> None:
    with proxy(server.url, Trouble(last="expired", last_after=peaceful[1] // 2)) as url:
        ended = run_command(recipe("expired"), tmp_path, env=environment(server, url))
    assert_clear(ended, "s3://", "expired", "finished parts are kept")
    again = run_command(recipe("expired"), tmp_path, env=environment(server, server.url))
    assert again.code == 0, again.said
    assert output(server, "expired") == peaceful[0]


# The same for single requests, without a run around them.


@pytest.fixture
def patient(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 3}})


def behind(server: S3Server, trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = proxy(server.url, trouble)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.__enter__())
    return made


def test_every_operation_with_one_request_in_four_failing(
    server: S3Server, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = tuple(k for k in PASSING if k != "silent")
    trouble = Trouble(seed=5, share=0.25, kinds=kinds)
    made = behind(server, trouble, monkeypatch)
    try:
        for i in range(8):
            url, data = f"s3://work/single/{i % 2}/f{i}", bytes([i]) * 50_000
            paths.write_atomic(url, data)
            assert paths.read_bytes(url) == data
            assert paths.create_exclusive(f"{url}.lock", b"%d" % i)
            assert not paths.create_exclusive(f"{url}.lock", b"other")
            assert paths.read_if_exists(f"{url}.none") is None
            paths.remove(f"{url}.lock")
        assert list(paths.list_files("s3://work/single")) == []
        assert len(paths.list_files("s3://work/single/1")) == 4
        assert len(paths.list_files("s3://work/single", recursive=True)) == 8
        for pattern in ("", "/*", "/?/f*", "/**/f*"):
            assert len(paths.expand(f"s3://work/single{pattern}")) == 8
        assert [f.below for f in paths.expand("s3://work/single/0/f2")] == ["f2"]
    finally:
        made.__exit__(None, None, None)
    assert all(trouble.met[kind] for kind in kinds)


def test_a_listing_that_is_refused_is_no_empty_folder(
    server: S3Server, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.client().pipe_file("work/listed/a/x.jsonl", b"{}")
    made = behind(server, Trouble(last="refused", last_after=0), monkeypatch)
    try:
        for recursive in (False, True):
            with pytest.raises(RunError, match="access denied"):
                paths.list_files("s3://work/listed", recursive=recursive)
        for pattern in ("s3://work/listed", "s3://work/listed/*/*.jsonl", "s3://work/**/*.jsonl"):
            with pytest.raises(RunError, match="access denied"):
                paths.expand(pattern)
        assert abort_uploads("s3://work/listed") == 0
    finally:
        made.__exit__(None, None, None)
