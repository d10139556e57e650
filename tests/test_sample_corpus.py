"""The sample corpus: big enough, real duplicates kept, readable by the reader, deterministic."""

import hashlib
from email.message import Message
from pathlib import Path

import pytest

from longctx import sample_corpus
from longctx.errors import RunError
from longctx.io.read import Bad, Row, read
from longctx.recipe import Input


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return folder, sample_corpus.build(folder)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def rows_of(summary) -> list[Row]:
    items = []
    for entry in summary["input"]:
        spec = Input(**entry)
        pattern = Path(spec.paths[0])
        for file in sorted(pattern.parent.glob(pattern.name)):
            items += read(str(file), file.name, spec)
    assert not [item for item in items if isinstance(item, Bad)]
    return [item for item in items if isinstance(item, Row)]


def test_it_is_large_enough_and_no_package_dominates(corpus):
    _, summary = corpus
    assert summary["documents"] >= 3_000
    assert 30e6 <= summary["bytes"] <= 45e6
    assert summary["sources"] >= 30
    assert summary["exact_duplicates"] >= 20


def test_every_format_is_there(corpus):
    folder, _ = corpus
    kinds = {
        "".join(Path(name).suffixes[-2:]) for name in digests(folder) if "licences" not in name
    }
    assert kinds == {".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet", ".md"}
    assert len(list((folder / "licences").glob("*.txt"))) >= 50


def test_the_reader_reads_what_the_input_section_names(corpus):
    _, summary = corpus
    rows = rows_of(summary)
    assert len(rows) == summary["documents"]
    assert sum(len(row.text.encode()) for row in rows) == summary["bytes"]
    assert len({row.doc_id for row in rows}) == len(rows)
    assert {row.language for row in rows} == {"code", "en"}
    by_id = {row.doc_id: row for row in rows}
    module = next(row for name, row in by_id.items() if name.startswith("python-stdlib:"))
    assert (module.source, module.license, module.language) == ("python-stdlib", "PSF-2.0", "code")


def test_the_same_environment_gives_the_same_bytes(corpus, tmp_path):
    folder, _ = corpus
    sample_corpus.build(tmp_path)
    assert digests(tmp_path) == digests(folder)


def test_too_little_text_is_an_error(tmp_path):
    with pytest.raises(RunError, match="wanted 30 MB"):
        sample_corpus.build(tmp_path, max_mb=1)


def test_unreadable_files_are_skipped_and_counted(tmp_path, monkeypatch):
    contents = {
        "a.py": b"x = 1\n",
        "b.py": b"x = 1\n",
        "latin.txt": "café".encode("latin-1"),
        "zeros.txt": b"a\0b",
        "empty.py": b" \n",
        "LICENSE": b"Do what you like.\n",
        "data.bin": b"not text",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    files = {name: tmp_path / name for name in contents}
    package = sample_corpus._package("demo", "MIT", files)
    monkeypatch.setattr(sample_corpus, "_installed", lambda: [package])
    summary = sample_corpus.build(tmp_path / "out", min_mb=0)
    assert summary["documents"] == 3
    assert summary["exact_duplicates"] == 1
    assert summary["skipped"] == {"binary": 1, "empty": 1, "not_utf8": 1}
    assert {row.text for row in rows_of(summary)} == {"x = 1\n", "Do what you like.\n"}


@pytest.mark.parametrize(
    ("sizes", "budget", "cap"),
    [([10, 20, 30], 60, 30), ([10, 20, 30], 100, 30), ([10, 20, 30], 40, 15), ([5, 50], 25, 20)],
)
def test_the_cap_spends_the_budget(sizes, budget, cap):
    assert sample_corpus._common_cap(sizes, budget) == cap
    assert sum(min(size, cap) for size in sizes) <= budget


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("License-Expression", "MIT OR Apache-2.0"), ("License", "no")], "MIT OR Apache-2.0"),
        ([("License", "BSD 3-Clause\n\nCopyright")], "BSD 3-Clause"),
        ([("License", "x" * 70), ("Classifier", "License :: OSI Approved :: MIT License")],
         "MIT License"),
        ([("License", "UNKNOWN"), ("Classifier", "License :: OSI Approved")], "unknown"),
        ([], "unknown"),
    ],
)  # fmt: skip
def test_declared_license(headers, expected):
    meta = Message()
    for name, value in headers:
        meta[name] = value
    assert sample_corpus.declared_license(meta) == expected
