"""`embed` with a model that a test can see through: which documents get a vector."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from longctx.embed.stages import Embed
from longctx.engine.op import Setting
from longctx.errors import RecipeError

SETTING = Setting(seed=1, tokenizer="embedded", stage="01-x", run_dir="", output="")


def encode(texts: list[str]) -> tuple[Any, Any]:
    """Two dimensions: the text's length, normalised; nothing for an empty text."""
    found = np.array([[1.0, 0.0] if t else [0.0, 0.0] for t in texts], dtype=np.float32)
    return found.reshape(-1, 2), np.array([1.0 if t else 0.0 for t in texts], dtype=np.float32)


def cover(documents: list[str | None], **fields: Any) -> list[float]:
    table = pa.table(
        {
            "text": pa.array(["text"] * len(documents), pa.large_string()),
            "language": pa.array(documents, pa.string()),
        }
    )
    model = SimpleNamespace(encode=encode, dim=2)
    found = Embed(op="embed", **fields).batch(table, SETTING, model)
    assert found.column_names == list(Embed.writes)
    assert found.schema.field("embedding").type == pa.list_(pa.float32(), 2)
    assert found.num_rows == len(documents)
    return found.column("emb_cover").to_pylist()


def test_packaged_models_embed_english_code_and_what_is_not_said():
    languages = ["en", "code", "en-GB", "EN_us", None, "ko", "zh-Hant"]
    assert cover(languages) == [1, 1, 1, 1, 1, 0, 0]
    assert cover(languages, model="minilm") == [1, 1, 1, 1, 1, 0, 0]


def test_other_models_embed_every_language_unless_told():
    assert cover(["en", "ko", None], model="some/model") == [1, 1, 1]
    assert cover(["en", "ko", None], model="some/model", languages=["ko"]) == [0, 1, 1]


def test_languages_replace_those_of_a_packaged_model():
    assert cover(["en", "ko"], languages=["en", "ko"]) == [1, 1]


def test_an_empty_batch_keeps_its_columns():
    assert cover([]) == []


@pytest.mark.parametrize("field", ["device", "workers", "threads", "num_gpus"])
def test_where_a_vector_is_computed_is_no_part_of_the_fingerprint(field: str):
    assert field not in Embed(op="embed").fingerprint_fields()


def test_what_changes_a_vector_is_part_of_the_fingerprint():
    fields = Embed(op="embed").fingerprint_fields()
    assert {"model", "dtype", "max_chunks", "chunk_tokens", "languages"} <= set(fields)


def test_missing_encoder_folder_is_refused_before_the_run() -> None:
    with pytest.raises(RecipeError, match="no encoder folder /no/such/model"):
        Embed(op="embed", model="/no/such/model").check(SETTING)
    Embed(op="embed", model="org/name").check(SETTING)
