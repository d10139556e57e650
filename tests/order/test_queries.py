"""Queries: segments, which sentences are central, and a model that asks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.errors import RunError
from longctx.order.queries import Document, central, centrality, extractive, segments
from longctx.order.rake import STOP_WORDS
from tests.order.doc2query import save_tiny_t5


def ask(text: str, title: str | None = None) -> list[str]:
    return extractive([Document(text, title, STOP_WORDS)])[0]


def test_short_texts_are_one_segment_and_long_ones_eight():
    assert segments("") == []
    assert segments("a b c") == ["a b c"]
    long = segments("word " * 40_000)
    assert len(long) == 8
    assert all(len(s) <= 2048 and s.strip().startswith("word") for s in long)


def test_centrality_is_the_summed_cosine_within_a_segment():
    sentences = [["reef", "coral"], ["reef", "coral"], ["reef"], [], ["coral"]]
    same = centrality(sentences[:4], np.zeros(4, dtype=np.int64))
    # Four sentences: reef in three weighs ln(1 + 4/3), coral in two ln 3.
    reef, coral = np.log(1 + 4 / 3), np.log(3)
    cosine = reef / np.hypot(reef, coral)
    assert same == pytest.approx([1 + cosine, 1 + cosine, 2 * cosine, 0])
    apart = centrality(sentences, np.array([0, 0, 0, 0, 1]))
    assert apart == pytest.approx([*same, 0])
    assert centrality([], np.zeros(0, dtype=np.int64)).tolist() == []


def test_equal_sentences_are_chosen_once_and_empty_ones_never():
    sentences = [["a"], ["b"], ["a"], [], ["a", "b"], ["c"]]
    assert central(sentences, np.zeros(6, dtype=np.int64), 2) == [0, 4]
    assert central(sentences, np.zeros(6, dtype=np.int64), 9) == [0, 1, 4, 5]
    assert central(sentences, np.array([0, 0, 1, 1, 1, 2]), 1) == [0, 2, 5]
    assert central([], np.zeros(0, dtype=np.int64)) == []


TEXT = (
    "Chapter one. Coral reefs need clear water. Bread needs flour. Clear water lets coral reefs "
    "grow. Coral grows in clear water near reefs. The end came."
)


def test_extractive_takes_the_title_or_the_first_sentence():
    middle = [
        "Coral reefs need clear water. ",
        "Clear water lets coral reefs grow. ",
        "Coral grows in clear water near reefs. ",
    ]
    assert ask(TEXT) == ["Chapter one. ", *middle]
    assert ask(TEXT, "Reefs") == ["Reefs", *middle]


def test_extractive_on_little_text():
    assert ask("") == []
    assert ask("", "Title") == ["Title"]
    assert ask(" \n ...") == []
    assert ask("Reef.") == ["Reef.", "Reef."]


def test_sentences_that_a_border_cuts_are_left_out():
    text = "Alpha beta gamma delta. " * 500
    assert {query.strip() for query in ask(text)} == {"Alpha beta gamma delta."}


@given(st.lists(st.text("ab. \n第。", max_size=300), max_size=4))
def test_a_document_is_asked_alone(texts: list[str]):
    documents = [Document(text, None, STOP_WORDS) for text in texts]
    assert extractive(documents) == [extractive([d])[0] for d in documents]


def test_a_model_asks_about_every_segment_in_any_order(tmp_path: Path):
    from longctx.order.doc2query import load_doc2query

    generate = load_doc2query(str(save_tiny_t5(tmp_path)), device="cpu", batch_size=2)
    texts = ["the coral reef", "", "the bread " * 900, "law and order in court"]
    documents = [Document(text, None, STOP_WORDS) for text in texts]
    found = generate(documents)
    assert [len(queries) for queries in found] == [1, 0, 5, 1]
    said = {query for queries in found for query in queries}
    assert len(said) >= 3
    assert all(query.strip() and "<" not in query for query in said)
    assert generate(documents[::-1]) == found[::-1]


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    from longctx.order.doc2query import load_doc2query

    with pytest.raises(RunError, match="cannot load a seq2seq model"):
        load_doc2query(str(tmp_path))
