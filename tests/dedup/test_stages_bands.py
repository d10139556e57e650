"""Who shares a band, on tables: keys meet, and only those that met bring their signature along."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from longctx.dedup.minhash import band_keys
from longctx.dedup.stages_bands import _BANDED, Banding, _bands, _by_part, _fetch, _shared, by_band
from longctx.engine.commit import FileRef
from longctx.engine.corpus import parquet_groups
from longctx.engine.op import Setting
from longctx.engine.rows import as_binary
from longctx.engine.steps import BUCKET, StepRef

SETTING = Setting(seed=1, tokenizer="embedded", stage="01-x", run_dir="", output="")
BANDING = Banding(bands=4, rows=2, by_source=False)


def signed(part: int, keys: list[int], sig: np.ndarray, sources: list[str]) -> pa.Table:
    return pa.table(
        {
            "doc_id": [f"d{key}" for key in keys],
            "doc_key": pa.array(keys, pa.uint64()),
            "part": pa.array([part] * len(keys), pa.int32()),
            "source": sources,
            "sig": as_binary(sig).cast(pa.large_binary()),
        }
    )


def two_parts() -> tuple[pa.Table, pa.Table, np.ndarray]:
    """Documents 9, 3 and 5, 7: 9 and 5 share bands 0 and 3, 3 and 7 nothing with anyone."""
    sig = np.arange(32, dtype=np.uint32).reshape(4, 8)
    sig[2, [0, 1, 6, 7]] = sig[0, [0, 1, 6, 7]]
    return signed(0, [9, 3], sig[:2], ["a", "b"]), signed(1, [5, 7], sig[2:], ["b", "b"]), sig


def meet(tables: list[pa.Table], banding: Banding) -> pa.Table:
    rows = pa.concat_tables([_bands(banding, 3, t, SETTING) for t in tables])
    assert set(rows.column(BUCKET).to_pylist()) <= {0, 1, 2}
    return _shared(rows, SETTING)


def test_only_shared_bands_stay() -> None:
    first, second, sig = two_parts()
    found = meet([first, second], BANDING)
    keys = band_keys(sig, 4, 2)
    named = set(zip(*(found.column(n).to_pylist() for n in _BANDED.names), strict=True))
    assert named == {(k, d, p) for d, p in ((9, 0), (5, 1)) for k in keys[0, [0, 3]].tolist()}


def test_documents_of_two_sources_do_not_meet() -> None:
    first, second, sig = two_parts()
    assert meet([first, second], BANDING._replace(by_source=True)).num_rows == 0
    again = signed(2, [4], sig[2:3], ["b"])
    found = meet([first, second, again], BANDING._replace(by_source=True))
    assert sorted(found.column("doc_key").to_pylist()) == [4, 4, 4, 4, 5, 5, 5, 5]


def test_candidates_come_from_their_part_with_their_shared_bands(tmp_path: Path) -> None:
    units = []
    first, second, sig = two_parts()
    for part, table in enumerate((first, second)):
        data = parquet_groups([table])
        (tmp_path / f"{part}.parquet").write_bytes(data)
        units.append((str(part), (FileRef(f"{part}.parquet", len(data), "", len(table)),)))
    ref = StepRef(str(tmp_path), tuple(units))
    rows = _by_part(meet([first, second], BANDING), SETTING)
    found = []
    for part in (0, 1):
        own = rows.filter(pa.array(rows.column(BUCKET).to_numpy() == part)).drop_columns([BUCKET])
        found.append(_fetch(ref, own, SETTING))
    assert [t.column("doc_id").to_pylist() for t in found] == [["d9"], ["d5"]]
    shared = sorted(band_keys(sig, 4, 2)[0, [0, 3]].tolist())
    assert [t.column("band_keys").to_pylist() for t in found] == [[shared], [shared]]
    compared = by_band(5, pa.concat_tables(found), SETTING)
    assert compared.column("band_key").to_pylist() == [*shared, *shared]
    assert compared.column("doc_key").to_pylist() == [9, 9, 5, 5]
    assert compared.column("sig").to_pylist() == [sig[i].tobytes() for i in (0, 0, 2, 2)]


def test_many_documents_of_a_part_keep_their_own_bands(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    keys = rng.permutation(50).tolist()
    table = signed(0, keys, rng.integers(0, 2, (50, 8)).astype(np.uint32), ["a"] * 50)
    data = parquet_groups([table])
    (tmp_path / "0.parquet").write_bytes(data)
    ref = StepRef(str(tmp_path), (("0", (FileRef("0.parquet", len(data), "", 50),)),))
    rows = meet([table], BANDING)
    found = _fetch(ref, rows, SETTING)
    expected: dict[int, list[int]] = {}
    for band, document in zip(*(rows.column(i).to_pylist() for i in (0, 1)), strict=True):
        expected.setdefault(document, []).append(band)
    assert found.column("doc_key").to_pylist() == sorted(expected)
    for document, bands in zip(
        *(found.column(n).to_pylist() for n in ("doc_key", "band_keys")), strict=True
    ):
        assert bands == sorted(expected[document])


def test_a_part_without_shared_bands_gives_no_candidate() -> None:
    assert _fetch(StepRef("", ()), _BANDED.empty_table(), SETTING).num_rows == 0
