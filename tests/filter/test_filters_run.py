"""Languages filled in, personal data masked and evaluation texts found, by the engine."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from longctx.engine import manifest
from longctx.report.collect import collect
from longctx.report.texts import text_files, text_of
from longctx.text.tokenize import load_tokenizer
from tests.stages import Finished, run_rows

MAIL, ADDRESS = "ann.lee@mail.uni-bonn.de", "88.231.34.217"
QUESTION = (
    "Which of the two keepers of the old glass house on the quay went down to the harbour with a "
    "lamp, and why did nobody believe her?"
)
KOREAN = "그날 저녁 항구는 조용했고 벽에 걸린 등불이 꺼지는 것을 아무도 보지 못했다. "
TALES = [
    f"The {name} came home with salt and letters, and the harbour was quiet until the tide rose. "
    f"Nobody asked what the {name} had seen beyond the reef, or whom it had met there. "
    for name in ("brig", "ketch", "yawl", "sloop", "barge", "cutter")
]


LICENCE = (
    "Permission is hereby granted to any sailor who finds this bottle to read the letter inside "
    "and to carry it home without a fee."
)
LETTER = "".join(TALES) + f"Write to {MAIL}, or knock at {ADDRESS} after dark."


@pytest.fixture(scope="module")
def masked(ray_local: int, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    rows = [
        *({"id": f"tale-{i}", "text": tale * 3} for i, tale in enumerate(TALES)),
        {"id": "letter", "text": LETTER},
        {"id": "letter-again", "text": f"{LETTER} Soon."},
        {"id": "korean", "text": KOREAN * 4},
        {"id": "told", "text": KOREAN, "language": "x"},
    ]
    stages = [
        {"op": "score.language", "fill_language": True},
        {"op": "filter.pii", "mask": True},
        {"op": "score.heuristics", "windows": False},
        {"op": "dedup.minhash"},
    ]
    return run_rows(tmp_path_factory.mktemp("masked"), rows, stages)


@pytest.mark.ray
def test_no_later_stage_and_no_page_shows_what_was_masked(masked: Finished) -> None:
    tokens = masked.column("score.heuristics", "tokens")["letter"]
    text = load_tokenizer("embedded").decode(tokens)
    assert text.endswith("Write to <EMAIL>, or knock at <IPV4> after dark.")
    run_dir = Path(masked.record.run_dir)
    (cluster,) = collect(str(run_dir)).duplicate_clusters
    assert {member.doc_id for member in cluster.members} == {"letter", "letter-again"}
    files = [f for f in run_dir.rglob("*") if f.is_file() and "documents" not in f.parts]
    assert len(files) > 10
    for file in files:
        raw = file.read_bytes()
        if file.suffix == ".parquet":
            raw = str(pq.read_table(file).to_pylist()).encode()
        assert MAIL.encode() not in raw, file
        assert ADDRESS.encode() not in raw, file
    counted = masked.stage("filter.pii").steps[""]
    assert counted == {"documents": 2, "found": {"email": 2, "ipv4": 2}}


@pytest.mark.ray
def test_the_report_shows_the_masked_text_of_a_cluster(masked: Finished) -> None:
    run_dir = masked.record.run_dir
    stages = manifest.load(run_dir)["stages"]
    files = text_files(run_dir, stages)
    before = text_files(run_dir, stages[:2])
    assert all(f.name.startswith("stages/02-filter.pii/") for f in files)
    assert all(f.name.startswith("documents/") for f in before)
    texts = [text_of(run_dir, f, row) for f in files for row in range(f.rows)]
    assert sum("<EMAIL>" in text for text in texts) == 2
    assert not any(MAIL in text for text in texts)
    assert text_of(run_dir, files[0], files[0].rows) == ""


@pytest.mark.ray
def test_only_missing_languages_are_filled(masked: Finished) -> None:
    filled = masked.column("score.language", "language")
    assert (filled["korean"], filled["told"], filled["letter"]) == ("ko", "x", "en")
    assert masked.column("score.language", "lang")["told"] == "ko"


def write_exam(folder: Path, *questions: str) -> None:
    lines = [json.dumps({"question": q, "context": TALES[2] * 9}) for q in questions]
    (folder / "exam.jsonl").write_text("\n".join(lines))


def examined(folder: Path, **settings: Any) -> Finished:
    rows = [
        *({"id": f"licence-{i}", "text": f"{TALES[i]}{LICENCE}"} for i in range(4)),
        {"id": "exam", "text": f"{TALES[0]}{QUESTION.upper()} {TALES[1]}"},
        {"id": "korean", "text": KOREAN * 4},
        {"id": "blank", "text": " \n"},
    ]
    against = [{"path": str(folder / "exam.jsonl")}]
    stages = [{"op": "filter.decontaminate", "against": against, "max_df": 3, **settings}]
    return run_rows(folder, rows, stages)


def hit(found: Finished) -> set[str]:
    hits = found.column("filter.decontaminate", "decon_hits")
    return {name for name, n in hits.items() if n}


def left(found: Finished) -> int:
    stage = found.stage("filter.decontaminate")
    return stage.units - stage.skipped


@pytest.mark.ray
def test_questions_are_found_and_only_what_a_change_reaches_is_computed_again(
    ray_local: int, tmp_path: Path
) -> None:
    write_exam(tmp_path, LICENCE, QUESTION)
    first = examined(tmp_path)
    assert hit(first) == {"exam"}
    row = next(r for r in first.rows("filter.decontaminate") if r["doc_id"] == "exam")
    (span,) = row["decon_spans"]
    assert (span["set"], span["row"], span["field"]) == ("exam", 1, "question")
    assert span["end_char"] - span["start_char"] == len(QUESTION)
    assert 0 < row["decon_share"] < 1
    blank = first.column("filter.decontaminate", "decon_share")["blank"]
    assert blank is None
    stage = first.stage("filter.decontaminate")
    assert stage.steps[""] == {"documents": 1, "sets": {"exam": {"documents": 1, "spans": 1}}}
    assert stage.steps["index"]["sets"]["exam"] == {"looked_for": 2}
    folder = Path(first.record.run_dir) / "stages" / stage.stage / "sample"
    (sample,) = pq.read_table(folder / "sample.parquet").to_pylist()
    assert (sample["doc_id"], sample["text"]) == ("exam", QUESTION.upper())
    assert sample["item_text"] == QUESTION

    looser = examined(tmp_path, max_df=None)
    parts = len(list((Path(looser.record.run_dir) / "documents").glob("*.parquet")))
    assert hit(looser) == {"exam", *(f"licence-{i}" for i in range(4))}
    # The index, the matches and the counts stay.
    assert left(looser) == 2 + 2 * parts

    write_exam(tmp_path, LICENCE, KOREAN * 2)
    corrected = examined(tmp_path, cut=True, cut_margin=0)
    assert hit(corrected) == {"korean"}
    texts = corrected.column("filter.decontaminate", "text")
    assert texts["korean"] == ""
    assert QUESTION.upper() in texts["exam"]
