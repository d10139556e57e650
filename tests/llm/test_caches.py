"""The caches: the same bytes for the same key, several processes at once, nothing half-written."""

import hashlib
import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.io.paths import TEMPORARY
from longctx.llm.cache import Cache, Entry, NullCache
from longctx.llm.cache_shards import FLUSH_ROWS, FLUSH_SECONDS, ShardCache, compact, listed
from longctx.llm.cache_sqlite import SQLiteCache
from longctx.llm.shard_index import build
from longctx.llm.types import LLMJobError

Make = Callable[[str], Cache]


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def entry(name: str, text: str = "", *, model: str = "m", finish: str = "stop") -> Entry:
    return Entry(
        key=key_of(name),
        logical=key_of(f"logical {name}"),
        model=model,
        text=text or f"text of {name}: é 世界\n\0 end ",
        finish_reason=finish,
        prompt_tokens=10,
        completion_tokens=5,
        cached_tokens=2,
        estimated=True,
        model_reported=None,
        prefill="prompted",
        created=1.5,
    )


@pytest.fixture(params=["sqlite", "shards", "store"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    kinds: dict[str, Make] = {
        "sqlite": lambda name: SQLiteCache(tmp_path / f"{name}.sqlite"),
        "shards": lambda name: ShardCache(str(tmp_path / name)),
        "store": lambda name: ShardCache(f"memory://{tmp_path.name}/{name}"),
    }
    return kinds[request.param]


def test_what_was_put_comes_back_byte_for_byte(make: Make) -> None:
    cache = make("c")
    entries = [entry(str(i)) for i in range(1000)]
    assert cache.put(entries) == {}
    keys = [e.key for e in entries]
    wanted = {e.key: e for e in entries}
    assert cache.get(keys) == wanted
    cache.close()
    again = make("c")
    assert again.get([*keys, key_of("unknown")]) == wanted
    assert again.get([]) == {}


def test_the_first_answer_of_a_key_counts(make: Make) -> None:
    cache = make("c")
    cache.put([entry("a", "first")])
    cache.flush()
    cache.put([entry("a", "second"), entry("b")])
    cache.close()
    first = make("c").get([key_of("a")])[key_of("a")].text
    assert {make("c").get([key_of("a")])[key_of("a")].text for _ in range(3)} == {first}
    if isinstance(cache, SQLiteCache):
        assert first == "first"


def test_sqlite_says_whose_answer_counts(tmp_path: Path) -> None:
    one, other = (SQLiteCache(tmp_path / "c.sqlite") for _ in range(2))
    one.put([entry("a", "first")])
    assert other.put([entry("a", "second"), entry("b")]) == {key_of("a"): entry("a", "first")}


def test_finished_answers_are_found_by_their_logical_key(make: Make) -> None:
    cache = make("c")
    cache.put([entry("a", finish="length"), entry("b"), entry("c")])
    cache.flush()
    logical = [key_of(f"logical {n}") for n in "abx"]
    assert cache.get_finished(logical) == {logical[1]: entry("b")}
    assert make("c").get_finished(logical) == {logical[1]: entry("b")}


def _fill(url: str, names: list[str]) -> None:
    cache = ShardCache(url) if not url.endswith(".sqlite") else SQLiteCache(url)
    for start in range(0, len(names), 40):
        cache.put([entry(n) for n in names[start : start + 40]])
    cache.close()


@pytest.mark.parametrize("place", ["shards", "c.sqlite"])
def test_two_processes_fill_one_cache_at_once(tmp_path: Path, place: str) -> None:
    url = str(tmp_path / place)
    names = [str(i) for i in range(600)]
    spawned = multiprocessing.get_context("spawn")
    fillers = [
        spawned.Process(target=_fill, args=(url, some)) for some in (names[:400], names[200:])
    ]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()
    assert [f.exitcode for f in fillers] == [0, 0]
    cache: Cache = ShardCache(url) if place == "shards" else SQLiteCache(url)
    assert cache.get([key_of(n) for n in names]) == {key_of(n): entry(n) for n in names}


def test_shards_are_flushed_by_number_and_by_time(tmp_path: Path) -> None:
    now = [0.0]
    cache = ShardCache(str(tmp_path), now=lambda: now[0])

    def files() -> int:
        return len(list(tmp_path.rglob("*.parquet")))

    cache.put([entry(str(i)) for i in range(FLUSH_ROWS - 1)])
    cache.tick()
    assert (files(), cache.unflushed) == (0, FLUSH_ROWS - 1)
    cache.put([entry("last")])
    assert (files(), cache.unflushed) == (1, 0)
    cache.put([entry("late")])
    now[0] = FLUSH_SECONDS - 1
    cache.tick()
    assert (files(), cache.unflushed) == (1, 1)
    now[0] = FLUSH_SECONDS
    cache.tick()
    assert (files(), cache.unflushed) == (2, 0)


def test_readers_ignore_what_a_killed_writer_left(tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path))
    cache.put([entry("a")])
    cache.close()
    (file,) = tmp_path.rglob("*.parquet")
    file.with_name(f"{TEMPORARY}0-{file.name}").write_bytes(file.read_bytes()[:100])
    assert set(ShardCache(str(tmp_path)).get([key_of("a")])) == {key_of("a")}


def test_models_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path))
    cache.put([entry("a", model="m"), entry("b", model="n")])
    cache.close()
    folders = {p.name for p in tmp_path.iterdir()}
    assert folders == {key_of("m")[:8], key_of("n")[:8]}
    assert len(ShardCache(str(tmp_path)).get([key_of("a"), key_of("b")])) == 2


def test_compacting_changes_no_answer(tmp_path: Path) -> None:
    url = str(tmp_path)
    for start in range(0, 90, 10):
        cache = ShardCache(url)
        # Some keys are there twice, with other texts: which one counts must not change either.
        cache.put([entry(str(i), f"{start} {i}") for i in range(start, start + 15)])
        cache.close()
    keys = [key_of(str(i)) for i in range(95)]
    before = ShardCache(url).get(keys)
    files, left = compact(url)
    assert (files, len(before)) == (9, 95)
    assert ShardCache(url).get(keys) == before
    assert {p.parent.name for p in tmp_path.rglob("*.parquet")} == {k[:2] for k in keys}
    assert compact(url) == (left, left)
    assert ShardCache(url).get(keys) == before


def test_an_index_made_once_serves_others(tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path))
    cache.put([entry("a")])
    cache.close()
    index = listed(str(tmp_path))
    assert set(ShardCache(str(tmp_path), index=index).get([key_of("a")])) == {key_of("a")}


@given(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=5), st.integers(0, 30))
def test_the_index_finds_the_first_row_by_name_of_file(files: list[list[int]], asked: int) -> None:
    named = [(f"f{i}", [key_of(str(n)) for n in ns]) for i, ns in enumerate(files)]
    index = build(list(reversed(named)))
    places = [(name, keys.index(k)) for name, keys in named if (k := key_of(str(asked))) in keys]
    found = index.places([key_of(str(asked))])
    assert found == ({key_of(str(asked)): places[0]} if places else {})


def test_prefixes_that_end_in_zero_bytes_are_found() -> None:
    keys = ["ab" + "00" * 31, "ab" * 15 + "00" + "cd" * 16, "00" * 32]
    index = build([("f", keys)])
    assert index.places(keys) == {k: ("f", i) for i, k in enumerate(keys)}


def test_damaged_caches_end_the_job(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(LLMJobError) as caught:
        SQLiteCache(path)
    assert caught.value.code == "cache_io"
    shard = tmp_path / "shards" / "m" / "new" / "x.parquet"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"PAR1 nothing")
    with pytest.raises(LLMJobError) as caught:
        ShardCache(str(tmp_path / "shards"))
    assert caught.value.code == "cache_io"
    assert "x.parquet" in caught.value.where


def test_a_file_of_another_format_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(LLMJobError, match="its format is 7"):
        SQLiteCache(path)


def test_a_place_that_cannot_be_written_ends_the_job(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LLMJobError):
        SQLiteCache(tmp_path / "file" / "c.sqlite")
    cache = ShardCache(str(tmp_path / "file"), index=build([]))
    cache.put([entry("a")])
    with pytest.raises(LLMJobError):
        cache.flush()
    assert cache.unflushed == 1


def test_the_cache_that_keeps_nothing() -> None:
    cache = NullCache()
    cache.put([entry("a")])
    assert cache.get([key_of("a")]) == {}
