"""Shards of answers on a real S3 server: two processes write at once, and nothing is lost."""

import multiprocessing
from collections.abc import Iterator

import pytest

from longctx.io import paths
from longctx.llm.cache_shards import ShardCache, compact
from tests.llm.test_caches import entry, key_of
from tests.servers import S3Server, s3_server

pytestmark = pytest.mark.s3
URL = "s3://work/cache"
NAMES = [str(i) for i in range(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.client().mkdir("work")
        yield running


@pytest.fixture
def _reached(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


def fill(names: list[str], text: str, url: str = URL) -> None:
    """What a process of a run does: answers as they come, a last flush at its end."""
    cache = ShardCache(url)
    for start in range(0, len(names), 40):
        cache.put([entry(n, f"{text} {n}") for n in names[start : start + 40]])
    cache.close()


@pytest.mark.usefixtures("_reached")
def test_two_processes_fill_one_cache_at_once() -> None:
    spawned = multiprocessing.get_context("spawn")
    shares = {"one": NAMES[:400], "other": NAMES[200:]}
    fillers = [spawned.Process(target=fill, args=(names, text)) for text, names in shares.items()]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()
    assert [f.exitcode for f in fillers] == [0, 0]
    keys = [key_of(n) for n in NAMES]
    # Two flushes each: 256 answers, and the rest at the end.
    assert len(paths.list_files(URL, recursive=True)) == 4
    found = ShardCache(URL).get(keys)
    assert found.keys() == set(keys)
    for name, key in zip(NAMES, keys, strict=True):
        wrote = [text for text, names in shares.items() if name in names]
        assert found[key].text in {f"{text} {name}" for text in wrote}
    # Where both wrote, every reader takes the same.
    assert ShardCache(URL).get(keys) == found


@pytest.mark.usefixtures("_reached")
def test_merged_files_hold_what_counted_before() -> None:
    url, keys = "s3://work/small", [key_of(n) for n in NAMES[:6]]
    for text, names in (("one", NAMES[:4]), ("other", NAMES[2:6])):
        fill(names, text, url)
    found = ShardCache(url).get(keys)
    assert len(found) == 6
    assert compact(url) == (2, len({key[:2] for key in keys}))
    assert ShardCache(url).get(keys) == found
