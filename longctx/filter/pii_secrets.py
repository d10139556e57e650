"""E-mail addresses, and secrets that open something: keys, tokens and private keys.

Each finder yields the spans [start, end) of one kind. All begin at a mark that hardly any other
text has (`@`, `AKIA`, `ghp_`, `-----BEGIN`), found by a plain search; only what follows is looked
at closely, and never more than a bounded number of characters. Forms are those that the issuers
publish; keys that they print as examples, and runs of x in place of a key, are not counted.

Not found: passwords, keys without a mark of their own (but the secret half of an AWS key, where its
name stands before it), addresses with letters outside of ASCII.
"""

import base64
import json
import re
from collections.abc import Iterator

Spans = Iterator[tuple[int, int]]

_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-")
_LONGEST_LOCAL = 64
_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{2,252}+")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}+)?+")
_EXAMPLES = frozenset({"com", "org", "net", "edu"})
_GENERIC = """
    com org net edu gov mil int info biz name pro coop aero museum mobi asia cat jobs tel travel
    app dev cloud online site xyz top club shop store tech blog email academy agency art bank
    berlin capital care center church city community company consulting design digital education
    energy engineering expert family finance foundation fund gmbh global group health hosting
    hotel house ink institute international land law legal life link live london love ltd media
    money network news nyc one page paris photo photography plus press red rocks run school
    science services sex social software solutions space studio support swiss systems team
    technology tips today tokyo tools tours training university uno vip website wiki win work
    works world zone
"""
_TOPS = frozenset(_GENERIC.split())
_FILES = frozenset({"js", "ts", "md", "py", "cc", "rs", "sh", "gz"})  # not countries, after an @
_MACHINES = frozenset({"git", "hg", "svn", "noreply", "no-reply", "donotreply"})

_KEYS: dict[str, tuple[tuple[str, re.Pattern[str]], ...]] = {
    "aws_key": (
        ("AKIA", re.compile(r"AKIA[0-9A-Z]{16}(?![0-9A-Za-z_])")),
        ("ASIA", re.compile(r"ASIA[0-9A-Z]{16}(?![0-9A-Za-z_])")),
    ),
    "github_token": (
        *((f"gh{k}_", re.compile(rf"gh{k}_[A-Za-z0-9]{{36,255}}+")) for k in "pousr"),
        ("github_pat_", re.compile(r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?![A-Za-z0-9])")),
    ),
    "slack_token": (
        *(
            (f"xox{k}-", re.compile(rf"xox{k}-[0-9]{{6,14}}+-[A-Za-z0-9-]{{10,200}}+"))
            for k in "abposre"
        ),
        (
            "hooks.slack.com/services/",
            re.compile(
                r"hooks\.slack\.com/services/"
                r"T[A-Z0-9]{6,12}+/B[A-Z0-9]{6,12}+/[A-Za-z0-9]{20,40}+"
            ),
        ),
    ),
    "google_key": (
        ("AIza", re.compile(r"AIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])")),
        ("GOCSPX-", re.compile(r"GOCSPX-[0-9A-Za-z_-]{28}(?![0-9A-Za-z_-])")),
    ),
    "model_key": (
        ("sk-", re.compile(r"sk-[A-Za-z0-9]{32,64}+(?![A-Za-z0-9_-])")),
        *(
            (mark, re.compile(rf"{mark}[A-Za-z0-9_-]{{32,200}}+"))
            for mark in ("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-ant-", "sk-or-v1-")
        ),
        ("hf_", re.compile(r"hf_[A-Za-z0-9]{34}(?![A-Za-z0-9])")),
    ),
}
_AWS_SECRET = re.compile(
    r"(?:ecret|ECRET)_?(?:[aA]ccess|ACCESS)_?(?:[kK]ey|KEY)[\"'\s:=>]{1,8}+"
    r"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
)
_LEAST_VARIETY = 8  # different characters after the mark
_BEGIN = re.compile(r"-----BEGIN (?:[A-Z]{2,9}+ )?PRIVATE KEY(?: BLOCK)?-----")
_END = re.compile(r"-----END (?:[A-Z]{2,9}+ )?PRIVATE KEY(?: BLOCK)?-----")
_LONGEST_KEY = 1 << 15
_BODY = re.compile(r"(?:[A-Za-z0-9+/=]{16,}+(?:\s|\\[nr]){0,8}+)++")
_JWT = re.compile(
    r"eyJ(?<![A-Za-z0-9_\-]eyJ)[A-Za-z0-9_-]{10,4096}+\.eyJ[A-Za-z0-9_-]{10,16384}+\.[A-Za-z0-9_-]{10,2048}+"
)
_SHOWN_JWT = "eyJzdWIiOiIxMjM0NTY3ODkwIi"  # "sub": "1234567890", as all introductions have it


def emails(text: str) -> Spans:
    """Addresses of people; none of machines (`git@`), file names, or domains for examples."""
    at = text.find("@")
    while at >= 0:
        start = at
        while start > max(0, at - _LONGEST_LOCAL - 1) and text[start - 1] in _LOCAL:
            start -= 1
        if start < at and (end := _domain_end(text, at + 1)) and _is_local(text[start:at]):
            first = start + len(text[start:at]) - len(text[start:at].lstrip("._%+-"))
            yield first, end
        at = text.find("@", at + 1)


def _is_local(local: str) -> bool:
    bare = local.lstrip("._%+-")
    if not bare or len(local) > _LONGEST_LOCAL or bare.lower() in _MACHINES:
        return False
    return not bare.endswith(".") and ".." not in bare


def _domain_end(text: str, start: int) -> int | None:
    """Where the domain that begins at `start` ends; None where there is none of anybody's."""
    match = _DOMAIN.match(text, start)
    if match is None:
        return None
    domain = match[0].rstrip(".-")
    labels = domain.lower().split(".")
    end = start + len(domain)
    if len(labels) < 2 or not all(map(_LABEL.fullmatch, labels)):
        return None
    top = labels[-1]
    country = len(top) == 2 and top.isalpha() and top not in _FILES
    # `a@b.mT` is a product of matrices.
    in_one_case = domain[-len(top) :] in (top, top.upper())
    if not (country or top in _TOPS or top.startswith("xn--")) or not in_one_case:
        return None
    if labels[-2] == "example" and top in _EXAMPLES:
        return None
    return None if text[end : end + 1] in ("@", "_") and end < len(text) else end


def keys(text: str, kind: str) -> Spans:
    """Keys and tokens of one kind of `_KEYS`, by the mark that they begin with."""
    for mark, pattern in _KEYS[kind]:
        at = text.find(mark)
        while at >= 0:
            match = None
            if not (at and (text[at - 1].isalnum() or text[at - 1] in "_-")):
                match = pattern.match(text, at)
            if match is not None and _is_secret(match[0][len(mark) :], kind != "aws_key"):
                yield match.span()
            at = text.find(mark, match.end() if match else at + 1)
    if kind == "aws_key" and ("ecret" in text or "ECRET" in text):
        for match in _AWS_SECRET.finditer(text):
            if _is_secret(match[1], True):
                yield match.span(1)


def _is_secret(value: str, with_digits: bool) -> bool:
    """Whether it can be a key: of some variety, with a digit in it, and no example."""
    if with_digits and not any(map(str.isdigit, value)):
        return False
    return len(set(value)) >= _LEAST_VARIETY and "EXAMPLE" not in value.upper()


def private_keys(text: str) -> Spans:
    """Blocks of a private key in PEM or PGP armour, or as far as they go where the end is cut."""
    if "-----BEGIN" not in text:
        return
    at = 0
    while (begin := _BEGIN.search(text, at)) is not None:
        limit = min(len(text), begin.end() + _LONGEST_KEY)
        another = text.find("-----BEGIN", begin.end(), limit)
        limit = limit if another < 0 else another
        closing = _END.search(text, begin.end(), limit)
        body = _BODY.search(text, begin.end(), closing.start() if closing else limit)
        at = closing.end() if closing else begin.end()
        if body is None or len(body[0]) < 64 or len(set(body[0])) < 2 * _LEAST_VARIETY:
            continue
        if closing is None:
            at = body.start() + len(body[0].rstrip())
        yield begin.start(), at


def jwts(text: str) -> Spans:
    """JSON Web Tokens (RFC 7519) whose header says how they are signed."""
    if "eyJ" not in text:
        return
    for match in _JWT.finditer(text):
        header, payload, _ = match[0].split(".")
        if not payload.startswith(_SHOWN_JWT) and "alg" in _decoded(header):
            yield match.span()


def _decoded(part: str) -> dict[str, object]:
    try:
        value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
