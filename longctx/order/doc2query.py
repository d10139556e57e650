"""Queries from a doc2query model: a sequence-to-sequence transformer that asks about a passage.

doc2query (arXiv 1904.08375) trains a T5 to predict queries that a passage answers; Quest (arXiv
2405.19846) uses such a model. Any folder that transformers loads as a seq2seq model will do; code
inside it never runs and nothing is fetched.

What we changed: one query per segment by greedy decoding instead of several sampled ones, so that a
run gives the same queries again. Segments go through in batches of similar length; as with every
transformer, rounding depends on the batch, so another size of parts may flip a near-tie of the
decoder. Cost on a CPU, in seconds of one core for a segment of 512 tokens: 1.4 for T5 small, 4.8
for base; a long document has eight. `queries.extractive` takes 1.4 ms for a whole one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longctx.errors import RunError
from longctx.model_folders import check_folder
from longctx.order.queries import SEGMENT_TOKENS, Document, QueryGenerator, segments

MAX_QUERY_TOKENS = 48
# Without a plain False transformers asks on a terminal whether the folder's code may run.
_SAFE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_doc2query(
    folder: str, *, device: str = "auto", threads: int = 1, batch_size: int = 16
) -> QueryGenerator:
    """Generator from the model in a local folder; `device` "auto" is CUDA if there is one.

    Raises RunError where the folder holds no seq2seq model with its tokenizer, or pickled weights.
    """
    check_folder(Path(folder), "generator")
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **_SAFE)
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, use_safetensors=True, **_SAFE)
    except Exception as error:  # the loaders raise OSError, ValueError, KeyError, …
        raise RunError(
            f"cannot load a seq2seq model from {folder!r}: {str(error).strip().splitlines()[0]}",
            where="generator",
            remedy="give a folder with a doc2query-style model and its tokenizer, or leave "
            "`generator` out for extractive queries",
        ) from error
    model.to(device).eval()

    def ask(texts: Sequence[str]) -> list[str]:
        encoded: Any = tokenizer(
            list(texts),
            max_length=SEGMENT_TOKENS,
            truncation=True,
            padding=True,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            ids = model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                max_new_tokens=MAX_QUERY_TOKENS,
                do_sample=False,
                num_beams=1,
            )
        decoded: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return decoded

    def generate(documents: Sequence[Document]) -> list[list[str]]:
        passages = [(i, text) for i, d in enumerate(documents) for text in segments(d.text)]
        # By length, so that a batch pads little; by text, so that no order of rows matters.
        order = sorted(range(len(passages)), key=lambda p: (len(passages[p][1]), passages[p][1]))
        found: dict[int, str] = {}
        for batch in _batches(order, batch_size):
            found |= zip(batch, ask([passages[p][1] for p in batch]), strict=True)
        queries: list[list[str]] = [[] for _ in documents]
        for p, (document, _) in enumerate(passages):
            queries[document].append(found[p])
        return queries

    return generate


def _batches(items: list[int], size: int) -> list[list[int]]:
    return [items[at : at + size] for at in range(0, len(items), size)]
