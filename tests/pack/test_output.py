"""A run that writes every format: folders, manifest, resume, and what readers find there."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from longctx.text.tokenize import load_tokenizer
from tests.conftest import make_rows
from tests.io.mds_reader import read_all
from tests.io.window_readers import (
    read_ds,
    read_jsonl,
    read_megatron,
    read_trl,
    read_webdataset,
)
from tests.stages import Finished, run_rows

pytestmark = pytest.mark.ray

LENGTH = 256
EVERY = ["webdataset", "parquet", "mds", "megatron", "ds", "jsonl", "trl"]
ROWS = make_rows(30)[:30]


def packed(folder: Path, formats: list[str], **fields: Any) -> Finished:
    settings = {"length": LENGTH, "shard_tokens": 2_500, "reserve": 1, **fields}
    stages = [{"op": "order.random"}, {"op": "pack", **settings}]
    return run_rows(folder, ROWS, stages, output={"format": formats})


@pytest.fixture(scope="module")
def folder(ray_local: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output")


def output_of(done: Finished) -> Path:
    return Path(done.record.output)


def listed(output: Path) -> dict[str, dict[str, Any]]:
    return {f["name"]: f for f in json.loads((output / "manifest.json").read_text())["files"]}


def present(output: Path) -> dict[str, bytes]:
    files = [p for p in output.rglob("*") if p.is_file()]
    found = {p.relative_to(output).as_posix(): p.read_bytes() for p in files}
    return {n: d for n, d in found.items() if n not in ("manifest.json", "_longctx.json")}


def test_every_format_holds_the_canonical_windows(folder: Path):
    done = packed(folder, EVERY)
    output, windows = output_of(done), done.windows()
    eos = load_tokenizer("embedded").eos_id
    ids = [w["input_ids"] for w in windows]
    sizes = [[s["end"] - s["start"] for s in w["segments"]] for w in windows]
    assert len(list(output.glob("part-*.parquet"))) > 1
    assert max(len(i) for i in ids) == LENGTH - 1

    assert read_jsonl(output / "jsonl") == windows
    padded = [i + [eos] * (LENGTH - len(i)) for i in ids]
    assert [r["input_ids"] for r in read_megatron(output / "megatron")] == padded
    tails = [w["next_token"] for w in windows]
    assert [r["tokens"] for r in read_ds(output / "ds", LENGTH)] == [
        [*p, eos if t is None else t] for p, t in zip(padded, tails, strict=True)
    ]
    assert read_trl(output / "trl") == [
        {"input_ids": i, "seq_lengths": s} for i, s in zip(ids, sizes, strict=True)
    ]
    assert [r["input_ids.npy"].tolist() for r in read_webdataset(output / "webdataset")] == ids
    files = {n.removeprefix("mds/"): d for n, d in present(output).items() if n.startswith("mds/")}
    assert [s["input_ids"].tolist() for s in read_all(files["index.json"], files)] == ids


def test_the_manifest_lists_every_file_and_describes_every_format(folder: Path):
    done = packed(folder, EVERY)
    output = output_of(done)
    files, named = present(output), listed(output)
    assert set(files) == set(named)
    for name, data in files.items():
        assert named[name]["bytes"] == len(data)
        assert named[name]["blake2b_128"] == hashlib.blake2b(data, digest_size=16).hexdigest()
    formats = json.loads((output / "manifest.json").read_text())["formats"]
    assert set(formats) == set(EVERY) - {"parquet"}
    assert {f["windows"] for f in formats.values()} == {len(done.windows())}
    assert formats["megatron"]["unmasked_crossings"] == 0.0


def test_an_added_format_is_written_and_a_dropped_one_removed(folder: Path):
    packed(folder, ["parquet"])
    assert all(n.startswith("part-") for n in present(output_of(packed(folder, ["parquet"]))))
    added = output_of(packed(folder, ["ds", "jsonl"]))
    assert {n.split("/")[0] for n in present(added) if "/" in n} == {"ds", "jsonl"}
    (added / "ds" / "notes.txt").write_text("mine")
    dropped = present(output_of(packed(folder, ["jsonl"])))
    assert {n.split("/")[0] for n in dropped if "/" in n} == {"ds", "jsonl"}
    assert [n for n in dropped if n.startswith("ds/")] == ["ds/notes.txt"]
    (added / "ds" / "notes.txt").unlink()


def test_a_lost_file_is_written_again_with_its_shard_only(folder: Path):
    output = output_of(packed(folder, EVERY))
    before = present(output)
    (output / "ds" / "part-00001.ds.index").unlink()
    (output / "mds" / "index.json").unlink()
    again = packed(folder, EVERY).stage("pack")
    assert again.units - again.skipped == 1
    assert present(output) == before


def test_a_damaged_file_is_found_named_and_written_again(folder: Path):
    output = output_of(packed(folder, EVERY))
    file = output / "megatron" / "part-00000.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = packed(folder, EVERY)
    assert file.read_bytes() == whole
    assert done.record.repaired == [str(file)]
    assert (output / "manifest.json").exists()


def test_without_a_reserve_the_open_crossings_are_counted(folder: Path):
    done = packed(folder, ["megatron"], reserve=0, strategy="concat")
    eos = load_tokenizer("embedded").eos_id
    windows = done.windows()
    full = [w for w in windows if len(w["input_ids"]) == LENGTH and w["input_ids"][-1] != eos]
    formats = json.loads((output_of(done) / "manifest.json").read_text())["formats"]
    assert 0 < formats["megatron"]["unmasked_crossings"] == len(full) / len(windows)
