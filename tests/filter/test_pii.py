"""Personal data and secrets: every kind is found, nobody's numbers are not, no input is slow.

Keys are put together here, so that no tool that looks for secrets stumbles over this file.
"""

import base64
import re
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from longctx.engine.op import Setting
from longctx.engine.summary import Stats
from longctx.errors import RecipeError
from longctx.filter import pii, pii_numbers, pii_secrets
from longctx.filter.pii import FINDERS, Span, find, mask
from longctx.filter.stages_pii import FilterPII
from longctx.recipe import from_dict
from tests.regexes import backtracking

SETTING = Setting(seed=1, tokenizer="", stage="01-x", run_dir="", output="")
RANDOM = "aB3dE5fG7hJ9kL2mN4pQ6rS8tU1vW3xY5zA7bC9dE2fG4hJ6kL8"
BODY = "\n".join([RANDOM[i:] + RANDOM[:i] + "+/Zz01" for i in range(0, 40, 8)])
BEGIN, END = ("-" * 5 + f"{word} RSA PRIVATE KEY" + "-" * 5 for word in ("BEGIN", "END"))


def token(header: str, payload: str) -> str:
    parts = [base64.urlsafe_b64encode(p.encode()).decode().rstrip("=") for p in (header, payload)]
    return ".".join([*parts, RANDOM[:43]])


JWT = token('{"alg":"HS256","typ":"JWT"}', '{"sub":"u-981","name":"A"}')
FOUND = [
    ("email", "ann.lee+x@mail.uni-bonn.de"),
    ("email", "a_b%c@sub.company.co.uk"),
    ("email", "BOSS@FIRM.COM"),
    ("ipv4", "52.95.110.1"),
    ("ipv4", "88.231.34.217"),
    ("ipv6", "2a02:26f0:6c00:2a1::1"),
    ("ipv6", "2607:f8b0:4005:805:0:0:0:200e"),
    ("phone", "+49 30 901820"),
    ("phone", "+821012345678"),
    ("phone", "+1 (212) 736-5000"),
    ("phone", "212-736-5000"),
    ("phone", "(212) 736-5000"),
    ("phone", "010-2318-2919"),
    ("phone", "02-730-5800"),
    ("phone", "138-1234-5698"),
    ("card", "4539578763621486"),
    ("card", "4539 5787 6362 1486"),
    ("card", "3782-822463-10013"),
    ("iban", "NL91ABNA0417164300"),
    ("iban", "FR14 2004 1010 0505 0001 3M02 606"),
    ("aws_key", "AKIA" + "QX7ZT3LM5NRVWB2D"),
    ("github_token", "ghp_" + RANDOM[:36]),
    ("github_token", "github_pat_" + RANDOM[:22] + "_" + (RANDOM * 2)[:59]),
    ("slack_token", "xoxb-" + "123456789012-" + RANDOM[:24]),
    ("slack_token", "hooks.slack.com/services/" + "T0AB12CD3/B4EF56GH7/" + RANDOM[:24]),
    ("google_key", "AIza" + RANDOM[:35]),
    ("model_key", "sk-" + RANDOM[:48]),
    ("model_key", "sk-ant-" + "api03-" + RANDOM),
    ("model_key", "hf_" + RANDOM[:34]),
    ("private_key", f"{BEGIN}\n{BODY}\n{END}"),
    ("jwt", JWT),
]
AROUND = ["{}", "see {}, or ask", "({})", "x: {}\nnext", '"{}"', "그는 {}에서", "{}\0", "<{}>"]


@pytest.mark.parametrize(("kind", "value"), FOUND)
def test_what_belongs_to_somebody_is_found_whole(kind: str, value: str) -> None:
    for frame in AROUND:
        text = frame.format(value)
        spans = [s for s in find(text) if s.kind == kind]
        assert [text[s.start : s.end] for s in spans] == [value], frame
        assert len(find(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1 and 0.0.0.0, 10.1.2.3, 172.31.0.5, 192.168.1.20, 255.255.255.0, 169.254.9.9",
        "224.0.0.251, 203.0.113.9, 198.51.100.7, 192.0.2.1, 100.64.3.2, 8.8.8.8, 1.1.1.1",
        "52.95.110.0/24",
        "version 1.2.3.4, v52.95.110.1, pkg-52.95.110.1.tar.gz, x==52.95.110.1, Build: 52.95.110.1",
        "1.2.3.4 Introduction\n  ## 3.14.2.7 Scope\nsee Section 4.1.2.3 and RFC 3986, 6.2.2.1",
        "1.3.6.1.4.1.311 and 1.3.6.1, 256.1.1.1, 01.2.3.4, 1.2.3, 1.2.3.4.5, a1.2.3.4",
        "::1, fe80::1, fc00::1, 2001:db8::1, ::, 2001:0db8:85a3::8a2e:370:7334, 2a02:26f0::",
        "std::vector<a::b>, dead::beef, 12:34:56, Foo::Bar::2001::x",
        "a@example.com, b@example.org, c@host.test, d@localhost, @user, git@github.com:x/y",
        "icon@2x.png, lodash@4.17.21, A@B.mT, a@b.transpose, x@y, @a.com, a..b@c.com, .@c.com",
        "555-555-5555, 212-555-0199, (212) 555-0123, +1 212 555 0142, 2020-01-02 10:11:12",
        "13812345698 bottles, 1234567890, 978-3-16-148410-0, +0900, a+12345678901, +192.168.0.101",
        "4111 1111 1111 1111, 4242424242424242, 4539578763621487",
        "0.4539578763621486, id4539578763621486",
        "4539-5787 6362-1486, 45395787636214861234567, 1539578763621486",
        "GB82 WEST 1234 5698 7654 32, DE89370400440532013000",
        "NL92ABNA0417164300, XX91ABNA0417164300",
        "AKIA" + "IOSFODNN7EXAMPLE, AKIA" + "X" * 16,
        "sk-learn-is-a-package-for-machine-learning-in-python, sk-" + "x" * 48,
        "ghp_"
        + "a" * 36
        + ", xoxb-your-token-goes-here, AIzaSy..., hf_transformers_are_a_library_of_models",
        f"{BEGIN}\n...\n{END}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4ifQ." + RANDOM[:43],
        "eyJub3QiOiJoZWFkZXIifQ.eyJhIjoiYmJiYmJiYmJiYiJ9." + RANDOM[:43],
        "",
        " \n\t",
        "\0" * 50,
    ],
)
def test_what_belongs_to_nobody_is_not_counted(text: str) -> None:
    assert [(s.kind, text[s.start : s.end]) for s in find(text)] == []


def test_a_range_of_addresses_is_two_addresses() -> None:
    assert [s.kind for s in find("from 52.95.110.1-52.95.110.9 only")] == ["ipv4", "ipv4"]


def test_a_chinese_number_in_one_piece_needs_its_word() -> None:
    assert [s.kind for s in find("联系电话：13812345698")] == ["phone"]


def test_the_secret_half_of_an_aws_key_is_found_by_its_name() -> None:
    secret = (RANDOM * 2)[:38] + "/+"
    for line in (f'aws_secret_access_key = "{secret}"', f"SecretAccessKey: {secret}"):
        assert [(s.kind, line[s.start : s.end]) for s in find(line)] == [("aws_key", secret)]


def test_a_private_key_whose_end_is_cut_goes_as_far_as_it_goes() -> None:
    text = f"x\n{BEGIN}\n{BODY}\nand then some words"
    (span,) = find(text)
    assert text[span.start : span.end] == f"{BEGIN}\n{BODY}"
    escaped = f"{BEGIN}\\n{BODY}\\n{END}".replace("\n", "\\n")
    assert find(escaped) == [Span(0, len(escaped), "private_key")]


def test_only_the_kinds_asked_for_are_found() -> None:
    text = "ann@uni-bonn.de from 52.95.110.1"
    assert [s.kind for s in find(text, ["ipv4"])] == ["ipv4"]


def test_where_kinds_overlap_the_more_telling_one_counts() -> None:
    key = f"{BEGIN}\nann@uni-bonn.de 52.95.110.1\n{BODY}\n{END}"
    assert [s.kind for s in find(key)] == ["private_key"]


pieces = st.sampled_from(
    [value for _, value in FOUND]
    + [
        "@",
        "::",
        ":",
        ".",
        "-",
        "+1",
        "0",
        "4",
        " ",
        "\n",
        "a",
        "AKIA",
        "sk-",
        "eyJ",
        BEGIN,
        "语",
        "\0",
    ]
)


@given(st.lists(pieces, max_size=14).map("".join) | st.text(max_size=80))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_spans_are_apart_and_masking_keeps_all_between(text: str) -> None:
    spans = find(text)
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    masked, places = mask(text, spans, "<{KIND}>")
    assert [masked[a:b] for a, b in places] == [f"<{s.kind.upper()}>" for s in spans]
    outside = [text[a:b] for a, b in _gaps([(s.start, s.end) for s in spans], len(text))]
    assert [masked[a:b] for a, b in _gaps(places, len(masked))] == outside


def _gaps(spans: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    starts, ends = [0, *(b for _, b in spans)], [*(a for a, _ in spans), length]
    return list(zip(starts, ends, strict=True))


def patterns(module: Any) -> list[re.Pattern[str]]:
    """All compiled patterns of a module, those in containers too."""
    found: list[re.Pattern[str]] = []

    def visit(value: Any) -> None:
        if isinstance(value, re.Pattern):
            found.append(value)
        elif isinstance(value, dict):
            visit(list(value.values()))
        elif isinstance(value, (list, tuple)):
            for inner in value:
                visit(inner)

    for value in vars(module).values():
        visit(value)
    return found


def test_no_pattern_can_be_made_to_go_back() -> None:
    """Patterns that read a whole text are possessive; the others see a slice of fixed length.

    So the work is linear: at every place each pattern reads at most as many characters as its
    bounded repeats allow, and never reads them again in another division.
    """
    on_slices = {pii_numbers._VERSION, pii_numbers._SECTION, pii_numbers._CALLED}
    found = {p for m in (pii, pii_numbers, pii_secrets) for p in patterns(m)} - on_slices
    assert len(found) > 25
    assert {p.pattern: back for p in found if (back := _free(p))} == {}


def _free(pattern: re.Pattern[str]) -> list[str]:
    """Repeats that can be taken back and whose number is not fixed."""
    return [r for r in backtracking(pattern) if len(set(r.split(".."))) > 1]


@pytest.mark.parametrize(
    "text",
    [
        "@" * 20_000,
        "a@" * 20_000,
        "1" * 200_000,
        "1 " * 60_000,
        "1.2." * 30_000,
        "::" * 40_000,
        "A" * 100_000,
        "DE89" * 20_000,
        "eyJ" * 40_000,
        "sk-" * 40_000,
        ("-" * 5 + "BEGIN PRIVATE KEY" + "-" * 5) * 300,
        "+1(" * 40_000,
    ],
)
def test_texts_made_to_be_slow_end(text: str) -> None:
    find(text)


def run(texts: list[str], **fields: Any) -> tuple[pa.Table, dict[str, Any]]:
    op = FilterPII(op="filter.pii", **fields)
    found, stats = Stats.detach(
        op.batch(pa.table({"text": pa.array(texts, pa.large_string())}), SETTING)
    )
    assert tuple(found.column_names) == op.writes_columns()
    return found, stats


def test_kinds_are_counted_and_nothing_found_is_written() -> None:
    texts = [f"write to {FOUND[0][1]} at {FOUND[3][1]}", "nothing here", " "]
    found, stats = run(texts)
    rows = found.to_pylist()
    assert [r["pii_email"] for r in rows] == [1, 0, 0]
    assert [r["pii_count"] for r in rows] == [2, 0, 0]
    assert [r["pii_status"] for r in rows] == ["ok", "ok", "empty"]
    assert rows[0]["pii_spans"][0] == {
        "start_char": 9,
        "end_char": 9 + len(FOUND[0][1]),
        "kind": "email",
        "masked_start": None,
        "masked_end": None,
    }
    assert stats == {"documents": 1, "found": {"email": 1, "ipv4": 1}}
    assert FOUND[0][1] not in str(found.to_pylist())


def test_kinds_that_were_not_looked_for_are_unknown_and_not_zero() -> None:
    found, _ = run([FOUND[0][1]], kinds=["ipv4"])
    assert found.to_pylist()[0]["pii_email"] is None
    assert found.to_pylist()[0]["pii_ipv4"] == 0


def test_masked_text_has_placeholders_where_the_spans_say() -> None:
    found, _ = run([f"{FOUND[0][1]} and {FOUND[3][1]}.", "none"], mask=True, placeholder="[{KIND}]")
    assert found.column("text").to_pylist() == ["[EMAIL] and [IPV4].", "none"]
    spans = found.column("pii_spans")[0].as_py()
    text = found.column("text")[0].as_py()
    assert [text[s["masked_start"] : s["masked_end"]] for s in spans] == ["[EMAIL]", "[IPV4]"]
    assert find(text) == []


def test_an_empty_batch_keeps_the_columns() -> None:
    for fields in ({}, {"mask": True}):
        found, _ = run([], **fields)
        assert found.num_rows == 0
        assert found.schema == run(["x"], **fields)[0].schema


def test_a_failure_does_not_quote_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> Any:
        raise ValueError(text)

    monkeypatch.setitem(FINDERS, "jwt", broken)
    with pytest.raises(RuntimeError, match=r"^ValueError while looking for personal data$") as told:
        run([FOUND[0][1]])
    assert told.value.__suppress_context__


def test_a_placeholder_that_is_not_used_changes_no_fingerprint() -> None:
    def fingerprint(**fields: Any) -> Any:
        return FilterPII(op="filter.pii", **fields).fingerprint_fields()

    assert fingerprint(placeholder="#") == fingerprint()
    assert fingerprint(placeholder="#", mask=True) != fingerprint(mask=True)


def recipe(*stages: dict[str, Any]) -> Any:
    return from_dict(
        {
            "name": "x",
            "input": [{"path": "in", "source": "s"}],
            "run_dir": "run",
            "stages": list(stages),
        }
    )


def test_masking_after_the_tokens_were_made_is_refused() -> None:
    masking = {"op": "filter.pii", "mask": True}
    with pytest.raises(RecipeError, match=r"which `score\.heuristics` has read by then; move"):
        recipe({"op": "score.heuristics"}, masking)
    with pytest.raises(RecipeError, match=r"which `filter\.decontaminate` has read by then"):
        recipe({"op": "filter.decontaminate", "against": [{"path": "a.txt"}]}, masking)
    recipe(masking, {"op": "score.heuristics"})
    recipe({"op": "score.heuristics"}, {"op": "filter.pii"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"kinds": []}, "at least 1"), ({"kinds": ["mail"]}, "email"), ({"masks": True}, "masks")],
)
def test_wrong_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FilterPII(op="filter.pii", **fields)
