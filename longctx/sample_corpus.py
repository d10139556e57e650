"""A corpus of real text that every fresh machine has: the code and documents of its own packages.

The Python standard library and the packages installed in this environment hold 200-300 MB of code,
documentation and licence texts, with real structure, real near-duplicates (vendored modules, tests,
licences) and known licences. `build` takes 30-45 MB of it and writes it in every format the reader
knows, so that a demonstration needs no network. What it is not: a training corpus, or the same on
two machines; it is the same for the same environment.

No package dominates: all share one cap in bytes, the largest at which the corpus stays below
`max_mb` (about 1 MB per package), so small packages are there in full. Under the cap whole folders
are taken, in an order drawn from a hash of their names, so neighbours in a package stay together.
Costs about 5 s and the corpus in memory.
"""

import gzip
import hashlib
import io
import json
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from longctx.errors import RunError

FIELDS = ("id", "text", "source", "license", "language", "path")
_SUFFIXES = (".py", ".rst", ".md", ".txt")
_LEGAL = ("licen", "copying", "notice", "copyright")
_STDLIB = "python-stdlib"
_ORIGIN = """# Origin of this corpus

Built by `longctx.sample_corpus` from the Python standard library and the packages installed in this
environment. Each package is a source; `license` is what its metadata declares ("unknown" where it
declares nothing). The texts keep the licences of their packages: use them to try the program out.

- `code/*.jsonl`, `code/*.jsonl.zst`: Python files of packages; `stdlib/*.jsonl.gz`: of the library
- `mixed/*.parquet`: .rst, .md and .txt files of all, and the other Python files of packages
- `licences/*.txt`: licence texts, one file each
"""


@dataclass(frozen=True)
class _Package:
    name: str
    license: str
    files: dict[str, Path]  # path inside the package's root -> file
    sizes: dict[str, int]


def build(out_dir: Path, min_mb: float = 30, max_mb: float = 45) -> dict[str, Any]:
    """Write the corpus to `out_dir` and return its summary; megabytes (10^6) are of UTF-8 text.

    The summary has `documents`, `bytes`, `sources`, `exact_duplicates`, `skipped` (files by reason:
    empty, not_utf8, binary), `licenses` (documents by licence), and `input`: the list of mappings
    that a recipe's `input` needs. Rows have the columns of `FIELDS`, all strings; `id` is
    "package:relative/path". Raises `RunError` if the environment holds less than `min_mb`.
    """
    packages = _installed()
    cap = _common_cap([sum(p.sizes.values()) for p in packages], int(max_mb * 1e6))
    skipped: Counter[str] = Counter()
    rows = [row for package in packages for row in _rows_of(package, cap, skipped)]
    n_bytes = sum(len(row["text"].encode()) for row in rows)
    if n_bytes < min_mb * 1e6:
        raise RunError(
            f"the installed packages hold {n_bytes / 1e6:.1f} MB of text, wanted {min_mb:g} MB",
            where="sample corpus",
            remedy="ask for less, or raise max_mb",
        )
    return {
        "documents": len(rows),
        "bytes": n_bytes,
        "sources": len({row["source"] for row in rows}),
        "exact_duplicates": len(rows) - len({row["text"] for row in rows}),
        "skipped": dict(sorted(skipped.items())),
        "licenses": dict(sorted(Counter(row["license"] for row in rows).items())),
        "input": _write(out_dir, rows),
    }


def declared_license(meta: Any) -> str:
    """The licence a package's metadata declares: expression, one-line field, classifiers."""
    expression = meta.get("License-Expression")
    if expression:
        return str(expression).strip()
    field = (meta.get("License") or "").strip().splitlines()
    if field and len(field[0]) <= 60 and field[0].upper() != "UNKNOWN":
        return str(field[0]).strip()
    classifiers = meta.get_all("Classifier") or []
    named = [c.rsplit(" :: ", 1)[-1] for c in classifiers if c.startswith("License :: ")]
    return " OR ".join(sorted(set(named) - {"OSI Approved"})) or "unknown"


def _installed() -> list[_Package]:
    """The standard library and every installed distribution but this one, by name."""
    found = {_STDLIB: _package(_STDLIB, "PSF-2.0", _library_files())}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if not name or name == "longctx" or name in found:
            continue
        files = {
            file.as_posix(): Path(str(file.locate()))
            for file in distribution.files or []
            if ".." not in file.parts
        }
        found[name] = _package(name, declared_license(distribution.metadata), files)
    return [found[name] for name in sorted(found) if found[name].files]


def _library_files() -> dict[str, Path]:
    root = Path(sysconfig.get_path("stdlib"))
    return {
        file.relative_to(root).as_posix(): file
        for file in root.rglob("*")
        if not {"site-packages", "dist-packages"} & set(file.parts[len(root.parts) :])
    }


def _package(name: str, license: str, files: dict[str, Path]) -> _Package:
    texts = {
        path: file
        for path, file in files.items()
        if (path.endswith(_SUFFIXES) or _is_legal(path)) and "__pycache__" not in path
    }
    sizes = {path: file.stat().st_size for path, file in texts.items() if file.is_file()}
    return _Package(name, license, {path: texts[path] for path in sizes}, sizes)


def _is_legal(path: str) -> bool:
    file = PurePosixPath(path)
    return file.name.lower().startswith(_LEGAL) and file.suffix in ("", ".txt", ".md", ".rst")


def _common_cap(sizes: list[int], budget: int) -> int:
    """Largest cap with sum(min(size, cap)) <= budget; the largest size if all fit."""
    left = budget
    ordered = sorted(sizes)
    for i, size in enumerate(ordered):
        share = left // (len(ordered) - i)
        if size > share:
            return share
        left -= size
    return ordered[-1] if ordered else 0


def _rows_of(package: _Package, cap: int, skipped: Counter[str]) -> list[dict[str, str]]:
    used, rows = 0, []
    for path in sorted(package.files, key=_folder_order):
        if used + package.sizes[path] > cap:
            continue
        text = _text_of(package.files[path], skipped)
        if text is not None:
            used += package.sizes[path]
            rows.append(_row(package, path, text))
    return sorted(rows, key=lambda row: row["id"])


def _folder_order(path: str) -> tuple[str, str]:
    folder = str(PurePosixPath(path).parent)
    return hashlib.sha256(folder.encode()).hexdigest(), path


def _text_of(file: Path, skipped: Counter[str]) -> str | None:
    data = file.read_bytes()
    reason = "binary" if b"\0" in data else "" if data.strip() else "empty"
    if not reason:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            reason = "not_utf8"
    skipped[reason] += 1
    return None


def _row(package: _Package, path: str, text: str) -> dict[str, str]:
    return {
        "id": f"{package.name}:{path}",
        "text": text,
        "source": package.name,
        "license": package.license,
        "language": "code" if path.endswith(".py") else "en",
        "path": path,
    }


def _write(out_dir: Path, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    import zstandard

    legal = [row for row in rows if row["language"] == "en" and _is_legal(row["path"])]
    docs = [row for row in rows if row["language"] == "en" and not _is_legal(row["path"])]
    library = [row for row in rows if row["language"] == "code" and row["source"] == _STDLIB]
    code = [row for row in rows if row["language"] == "code" and row["source"] != _STDLIB]
    for folder in ("code", "stdlib", "mixed", "licences"):
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    (out_dir / "ORIGIN.md").write_text(_ORIGIN)
    for i in range(2):
        (out_dir / f"code/part-{i}.jsonl").write_bytes(_jsonl(code[i::4]))
    packed = zstandard.ZstdCompressor(level=3).compress(_jsonl(code[2::4]))
    (out_dir / "code/part-2.jsonl.zst").write_bytes(packed)
    # No time stamp in the header: the same rows are the same bytes.
    (out_dir / "stdlib/part-0.jsonl.gz").write_bytes(gzip.compress(_jsonl(library), 6, mtime=0))
    (out_dir / "mixed/part-0.parquet").write_bytes(_parquet(docs + code[3::4]))
    for row in legal:
        name = row["id"].replace(":", "__").replace("/", "__")
        name = name.removesuffix(".txt") + ".txt"
        (out_dir / "licences" / name).write_bytes(row["text"].encode())
    return list(_input_section(out_dir))


def _input_section(out_dir: Path) -> Iterator[dict[str, Any]]:
    fields = {"source_field": "source", "id": "id", "meta": ["path"]}
    for pattern in ("code/*.jsonl", "code/*.jsonl.zst", "stdlib/*.jsonl.gz", "mixed/*.parquet"):
        yield {"path": str(out_dir / pattern), **fields}
    yield {
        "path": str(out_dir / "licences" / "*.txt"),
        "source": "licences",
        "constants": {"language": "en", "license": "unknown"},
    }


def _jsonl(rows: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = [(name, pa.large_string() if name == "text" else pa.string()) for name in FIELDS]
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=pa.schema(kinds))
    pq.write_table(table, buffer, compression="zstd", row_group_size=500)
    return buffer.getvalue()
