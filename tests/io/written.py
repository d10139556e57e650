"""Writing a format's files as a run does, in two shards, for the tests of readers."""

from pathlib import Path

import pyarrow as pa

from longctx.io.window_files import Target
from longctx.pack.formats import Format

EOS = 7


def target(length: int, vocab_size: int, eos_id: int = EOS) -> Target:
    return Target(length, eos_id, vocab_size, "a tokenizer")


def write(module: Format, folder: Path, windows: pa.Table, target: Target, cut: int = 90) -> None:
    """The files of a format, windows before `cut` in one shard, the others in another."""
    notes = []
    for number, shard in enumerate([windows.slice(0, cut), windows.slice(cut)]):
        for file in module.shard(shard, f"{number:05d}", target):
            path = folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)
            notes += [file.note] if file.note else []
    for name, data in module.merge(notes, target).items():
        (folder / name).write_bytes(data)
