"""One core's speed of the MinHash kernel, text to signature, against datasketch's update_batch.

    python -m jobs.bench.minhash [--corpus DIR] [--docs N] [--json] [--write]

Three questions. How many MB of UTF-8 per second does one core sign? How does that compare with
datasketch's `update_batch`: alone on the ready strings (its own SHA-1; we still start from text),
as part of the same path from text, and step against step on the same ready shingles? And are the
signatures bit-identical to datasketch's scheme with the base hash made equal? Times are CPU seconds
of the process.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from datasketch import MinHash

from jobs.bench.machine import describe
from jobs.bench.report import table, write_section
from longctx.dedup.chartable import char_table
from longctx.dedup.kernel import EMPTY, minhash
from longctx.dedup.minhash import base_hashes, permutations, signatures
from longctx.dedup.shingles import shingles
from longctx.text.normalise import Profile, dedup_tokens

NUM_PERM, NGRAM, SEED = 112, 5, 1
CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "dev"

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]


def main(argv: list[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    files = sorted(args.corpus.glob("*.parquet"))
    if not files:
        print(f"no Parquet files in {args.corpus}; name a folder with --corpus", file=sys.stderr)
        return 2
    signatures(["compile the kernel before the clock starts"])
    char_table("code")
    chunks = [pq.read_table(f, columns=["text"])["text"].combine_chunks() for f in files]
    results = {**throughput(chunks, args.repeats), **against_datasketch(chunks, args.docs)}
    if args.json:
        print(json.dumps({"machine": describe(), **results}, indent=1))
    else:
        for name, value in {**describe(), **results}.items():
            print(f"{name:>40}  {value}")
    if args.write:
        rows = [[name, str(value)] for name, value in results.items()]
        write_section("MinHash, text to signature on one core", table(["figure", "value"], rows))
    return 0 if results["bit-identical signatures"] else 1


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Speed of the MinHash kernel on one core.")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of Parquet files")
    parser.add_argument("--docs", type=int, default=1000, help="documents compared with datasketch")
    parser.add_argument(
        "--repeats", type=int, default=3, help="passes over the corpus; best counts"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    return parser


def throughput(chunks: list[pa.Array], repeats: int) -> dict[str, float]:
    """MB/s of both profiles over the whole corpus, best of `repeats`, and the shingles made."""
    n_bytes = sum(_text_bytes(chunk) for chunk in chunks)
    n_shingles = sum(int(signatures(chunk)[1].sum()) for chunk in chunks)
    seconds = min(_cpu_seconds(lambda: _sign_all(chunks, "text")) for _ in range(repeats))
    code_seconds = min(_cpu_seconds(lambda: _sign_all(chunks, "code")) for _ in range(repeats))
    return {
        "corpus MB": round(n_bytes / 1e6, 1),
        "documents": sum(len(chunk) for chunk in chunks),
        "permutations": NUM_PERM,
        "million shingles": round(n_shingles / 1e6, 2),
        "MB/s per core": round(n_bytes / 1e6 / seconds, 1),
        "MB/s per core, profile code": round(n_bytes / 1e6 / code_seconds, 1),
        "million shingles/s": round(n_shingles / 1e6 / seconds, 2),
    }


def against_datasketch(chunks: list[pa.Array], n_docs: int) -> dict[str, float | bool]:
    """Times and values of the same documents here and there, spread evenly over the corpus."""
    texts = pa.concat_arrays(chunks)
    sample = texts.take(pa.array(np.linspace(0, len(texts) - 1, n_docs).astype(np.int64)))
    tokens = [dedup_tokens(text) for text in sample.to_pylist()]
    joined = [_joined_shingles(t) for t in tokens]
    values = [shingles(t, NGRAM) for t in tokens]
    bases = [v.astype(np.uint32).tolist() for v in values]
    ours = signatures(sample, num_perm=NUM_PERM, ngram=NGRAM, seed=SEED)[0]
    theirs = np.stack([_datasketch(base, int) for base in bases])
    ours_s = min(_cpu_seconds(lambda: signatures(sample)) for _ in range(3))
    step_s = min(_cpu_seconds(lambda: [_minhash_step(v) for v in values]) for _ in range(3))
    sha1_s = _cpu_seconds(lambda: [_datasketch(j, None) for j in joined])
    ready_s = _cpu_seconds(lambda: [_datasketch(base, int) for base in bases])
    whole_s = _cpu_seconds(lambda: _whole_path(sample.to_pylist()))
    return {
        "documents compared": n_docs,
        "ours, text to signature, s": round(ours_s, 4),
        "ours, shingles to signature, s": round(step_s, 4),
        "update_batch on strings, s": round(sha1_s, 3),
        "update_batch on ready hashes, s": round(ready_s, 3),
        "tokens, joined strings, update_batch, s": round(whole_s, 3),
        "ratio, from text, to update_batch alone": round(sha1_s / ours_s, 1),
        "ratio, from text, to the whole path": round(whole_s / ours_s, 1),
        "ratio, same ready shingles": round(ready_s / step_s, 1),
        "bit-identical signatures": bool((ours == theirs).all()),
    }


def _joined_shingles(tokens: list[str]) -> list[bytes]:
    width = min(NGRAM, len(tokens))
    starts = range(len(tokens) - width + 1 if tokens else 0)
    return list({" ".join(tokens[i : i + width]).encode(): None for i in starts})


def _minhash_step(shingle_set: U64) -> U32:
    signature = np.full(NUM_PERM, EMPTY, dtype=np.uint32)
    minhash(base_hashes(shingle_set), *permutations(NUM_PERM, SEED), signature)
    return signature


def _whole_path(texts: list[str]) -> list[U32]:
    return [_datasketch(_joined_shingles(dedup_tokens(text)), None) for text in texts]


def _datasketch(batch: list[bytes] | list[int], hashfunc: Callable[[int], int] | None) -> U32:
    sketch = MinHash(num_perm=NUM_PERM, seed=SEED, scheme="affine32", hashfunc=hashfunc)
    if batch:
        sketch.update_batch(batch)
    return np.asarray(sketch.hashvalues, dtype=np.uint32)


def _sign_all(chunks: list[pa.Array], profile: Profile) -> None:
    for chunk in chunks:
        signatures(chunk, num_perm=NUM_PERM, ngram=NGRAM, seed=SEED, profile=profile)


def _text_bytes(texts: pa.Array) -> int:
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int64)
    return int(offsets[texts.offset + len(texts)] - offsets[texts.offset])


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    raise SystemExit(main())
