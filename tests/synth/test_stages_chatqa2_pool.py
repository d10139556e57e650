"""`synth.chatqa2` with paragraphs of others: which are taken, and the same for any parts."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from longctx.engine.barrier import BarrierContext
from longctx.engine.finished import finished_corpus
from longctx.errors import RunError
from longctx.synth import chatqa2_pages, stages_chatqa2_pool
from longctx.synth.chatqa2_pages import PARAGRAPH, clean_page
from longctx.synth.chatqa2_pool import paragraphs_of
from longctx.synth.chatqa2_rows import without_summary
from longctx.synth.checks import has_answer
from longctx.synth.stages_chatqa2 import SynthChatQA2
from longctx.synth.tokens import TokenCounter
from tests.in_process import context_of, run_here
from tests.stages import run_rows
from tests.synth.test_stages_chatqa2 import MOST, document, op_of
from tests.synthesis import Row, failed, output, run_op, table, told_by

pytestmark = pytest.mark.usefixtures("model_ops_here")

PARAGRAPH_TOKENS = 24
COUNTER = TokenCounter()


def documents(n: int = 40, sentences: int = 20) -> list[Row]:
    """Documents that are shorter than the shortest context."""
    return [document(i, sentences) for i in range(n)]


def related(**fields: Any) -> SynthChatQA2:
    usual: Row = {"mode": "related_paragraphs", "paragraph_tokens": PARAGRAPH_TOKENS}
    return op_of(**{**usual, "embedder": "hash", "min_context": 200, **fields})


def made(folder: Path, docs: list[Row], parts: int = 2, **fields: Any) -> BarrierContext:
    return run_op(related(**fields), folder, docs, parts)


def blocks(row: Row) -> list[str]:
    return without_summary(row).strip().split(PARAGRAPH)


def homes(docs: Iterable[Row]) -> dict[str, str]:
    """The document of each paragraph."""
    return {
        cut.text: doc["doc_id"]
        for doc in docs
        for cut in paragraphs_of(clean_page(doc["text"]), COUNTER, PARAGRAPH_TOKENS)
    }


def test_contexts_are_paragraphs_of_other_documents(tmp_path: Path) -> None:
    docs = documents()
    context = made(tmp_path, docs)
    told, rows, home = told_by(context), table(context), homes(docs)
    assert told["rows"] == told["chosen"] == len(docs)
    for row in rows:
        own = [home[text] for text in blocks(row)]
        assert row["document_id"] not in own
        assert len(own) == len(set(blocks(row)))
        summary = row["context"][row["summary_start_char"] : row["summary_end_char"]]
        assert summary in row["context"].split(PARAGRAPH)
        assert 200 <= row["context_tokens"] <= row["target_len"] < MOST
        assert row["mode"] == "related_paragraphs"
    assert failed(context) == set()
    assert told["checks"]["contexts"]["share"] == 1
    assert told["pool"]["paragraphs"] == {"en": len(home)}
    assert told["pool"]["taken"] == sum(len(blocks(row)) for row in rows)
    assert len({row["depth"] for row in rows}) > 10


def test_parts_units_shelves_and_the_order_of_reading_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = documents(24)
    one = output(made(tmp_path / "one", docs, 1, unit_rows=200, pool_paragraphs=70))
    monkeypatch.setattr(stages_chatqa2_pool, "SHELF", 16)
    three = output(made(tmp_path / "three", docs[::-1], 3, unit_rows=3, pool_paragraphs=70))
    assert one == three


def test_a_smaller_pool_is_part_of_a_larger_one(tmp_path: Path) -> None:
    docs = documents()
    found = [made(tmp_path / str(n), docs, pool_paragraphs=n) for n in (30, 60)]
    small, large = ({text for row in table(c) for text in blocks(row)} for c in found)
    assert len(small) <= 30
    assert len(small | large) <= 60
    assert told_by(found[0])["pool"]["paragraphs"] == {"en": 30}


def decoys(docs: list[Row]) -> list[Row]:
    """Documents that tell word by word what the summaries are made of."""
    found = []
    for doc in docs:
        text = f"It is said: {' '.join(doc['text'].split()[:36])}. The end."
        found.append({**doc, "doc_id": f"z{doc['doc_id']}", "text": text, "n_tokens": 41})
    return found


def test_paragraphs_that_hold_the_answer_are_never_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = documents(20)
    # Only the documents are long enough to be asked about.
    fields: Row = {"min_tokens": 60, "summary_words": [12, 30]}
    context = made(tmp_path / "sound", docs + decoys(docs), **fields)
    rows = table(context)
    assert len(rows) == len(docs)
    for row in rows:
        assert not any(has_answer(row["answers"], text) for text in blocks(row))
    assert failed(context) == set()
    # But for those that chance left without a mark, and so out of the pool.
    assert told_by(context)["pool"]["with_answer"] >= 0.9 * len(docs)

    monkeypatch.setattr(chatqa2_pages, "has_answer", lambda answers, text: False)
    faulty = made(tmp_path / "faulty", docs + decoys(docs), **fields)
    assert failed(faulty) == {"sound_rows", "leave_summary_out"}
    problems = told_by(faulty)["checks"]["sound_rows"]["problems"]
    assert list(problems) == ["answer_in_paragraph"]
    assert problems["answer_in_paragraph"] >= 0.9 * len(docs)


def test_repeated_texts_are_in_the_pool_once(tmp_path: Path) -> None:
    docs = documents(30)
    copies = [{**doc, "doc_id": f"y{doc['doc_id']}"} for doc in docs[:10]]
    context = made(tmp_path, docs + copies)
    assert told_by(context)["pool"]["repeated"] == len(homes(docs[:10]))
    assert all(len(blocks(row)) == len(set(blocks(row))) for row in table(context))


def test_near_duplicates_of_a_document_are_not_beside_its_summary(tmp_path: Path) -> None:
    docs = [{**doc, "mh": f"c{i // 2}"} for i, doc in enumerate(documents(30))]
    cluster = {doc["doc_id"]: doc["mh"] for doc in docs}
    home = homes(docs)

    def beside(context: BarrierContext) -> int:
        """Paragraphs that are of the cluster of their row's document."""
        return sum(
            cluster[home[text]] == cluster[row["document_id"]]
            for row in table(context)
            for text in blocks(row)
        )

    assert beside(made(tmp_path / "without", docs)) > 0
    named = made(tmp_path / "with", docs, cluster_column="mh")
    assert beside(named) == 0
    assert len(table(named)) == len(docs)
    assert related(cluster_column="mh").reads_columns() == ("n_tokens", "mh")
    assert op_of(cluster_column="mh").reads_columns() == ("n_tokens",)


def test_short_documents_are_filled_up_behind_their_end(tmp_path: Path) -> None:
    docs = [*documents(30, 12), *(document(50 + i, 30) for i in range(6))]
    fields: Row = {"mode": "own_document", "on_short": "fill", "min_context": 150}
    context = made(tmp_path, docs, **fields)
    texts, rows, home = {r["doc_id"]: r["text"] for r in docs}, table(context), homes(docs)
    assert len(rows) == len(docs)
    filled = [row for row in rows if PARAGRAPH in row["context"]]
    assert {row["document_id"] for row in filled} == {r["doc_id"] for r in docs[:30]}
    for row in filled:
        first, *others = without_summary(row).split(PARAGRAPH)
        assert first == texts[row["document_id"]]
        assert row["document_id"] not in [home[text] for text in others]
        assert row["target_len"] - row["context_tokens"] <= 30
    for row in rows:
        assert row["mode"] == "own_document"
        assert row["context_tokens"] >= 150
    assert "sound_rows" not in failed(context)
    assert told_by(context)["checks"]["contexts"]["ok"] is True


def test_what_is_held_out_fills_no_context(tmp_path: Path) -> None:
    docs = documents(30)
    held_out = [" ".join(doc["text"].split()[40:60]) for doc in docs[:10]]
    file = tmp_path / "eval.jsonl"
    file.write_text("".join(json.dumps({"question": text}) + "\n" for text in held_out))
    context = made(tmp_path, docs, against=[{"path": str(file)}])
    assert told_by(context)["pool"]["contaminated"] == 10
    home = homes(docs)
    used = {home[text] for row in table(context) for text in blocks(row)}
    assert used
    assert used.isdisjoint(doc["doc_id"] for doc in docs[:10])


def test_a_pool_that_is_too_small_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds \d+ tokens of language en, and rows have up to 330"):
        made(tmp_path, documents(), pool_paragraphs=10)
    assert not list(tmp_path.rglob("chatqa.summary"))


def test_other_lengths_keep_the_pool_and_the_replies(tmp_path: Path) -> None:
    docs = documents(20)
    first = made(tmp_path, docs)
    before = [row["context"] for row in table(first)]
    again = made(tmp_path, docs, max_row=400)
    done = {s for s, commits in again.step_commits.items() if commits == first.step_commits[s]}
    assert {"marks", "paragraphs", "pool", "vectors", "index", "chatqa.qa"} <= done
    assert [row["context"] for row in table(again)] != before
    other = made(tmp_path, docs, embedder="static")
    assert other.step_commits["pool"] == first.step_commits["pool"]
    assert [row["context"] for row in table(other)] != before


def test_fields_that_cannot_go_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="paragraph_tokens 40 is above slack 30"):
        related(paragraph_tokens=40)
    with pytest.raises(ValidationError, match="on_short: fill is for documents in mode own"):
        related(on_short="fill")
    with pytest.raises(ValidationError, match="embedder static knows no zh"):
        related(embedder="static", lang_share={"en": 1, "zh": 1})
    assert related(lang_share={"en": 1, "zh": 1}).takes_paragraphs


def test_documents_may_be_short_where_paragraphs_make_the_length() -> None:
    usual: Row = {"op": "synth.chatqa2", "generator": {"backend": "scripted"}, "rows": 5}

    def least(**fields: Any) -> int:
        return SynthChatQA2.model_validate({**usual, **fields}).min_tokens

    assert least() == 32_768
    assert least(mode="related_paragraphs") == least(on_short="fill") == 1_024
    assert least(mode="related_paragraphs", min_tokens=7) == 7


@pytest.mark.ray
def test_two_workers_on_ray_make_the_rows_that_one_process_makes(
    ray_local: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = [{"id": r["doc_id"], **r} for r in documents(60)]
    # Words of the text are several tokens each here.
    lengths: Row = {"min_context": 600, "max_row": 1_600, "slack": 150, "paragraph_tokens": 120}
    op = related(**lengths, unit_rows=11, rows=20)
    stages = [{"op": "score.heuristics"}, op.model_dump(mode="json")]
    finished = run_rows(tmp_path, docs, stages, engine={"part_mb": 0.04, "workers": 2})
    told = finished.stage("synth.chatqa2").summary["synthesis"]
    assert told["rows"] == told["chosen"] == 20
    assert told["checks"]["sound_rows"]["ok"] is True
    page = Path(finished.record.run_dir, "report/02-synth.chatqa2.html").read_text()
    assert "summary, among paragraphs of other documents" in page

    run_here(monkeypatch)
    before = [asdict(stage) for stage in finished.record.stages[:-1]]
    corpus = finished_corpus(finished.record.run_dir, before)
    here = context_of(op, corpus, len(docs), output=str(tmp_path / "here"))
    op.run(here)
    names = ("part-00000.parquet", "chat-00000.jsonl")
    on_ray = {name: Path(finished.record.output, name).read_bytes() for name in names}
    assert on_ray == {name: output(here)[name] for name in names}
