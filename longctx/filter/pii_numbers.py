"""Numbers that belong to somebody: addresses on the Internet, telephones, cards, bank accounts.

Each finder yields the spans [start, end) of one kind. A pattern with possessive repeats only brings
candidates, in one pass; what a pattern cannot tell (check digits, ranges that belong to nobody,
version numbers) is computed on the candidate. Sources: RFC 1918, 5737, 5771 and 6890 for IPv4,
RFC 3849 and 4291 for IPv6, E.164 and the North American, Korean and Chinese numbering plans, ISO
7812 (Luhn), ISO 13616 (IBAN).

Not found: numbers of other plans without `+` and country code, Chinese mobile numbers in one piece
without a word such as 电话 before them, digits outside of ASCII.
"""

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

Spans = Iterator[tuple[int, int]]

# The first digit stands before the lookbehind that guards it: so the engine looks for digits alone.
_IPV4 = re.compile(
    r"[0-9](?<![0-9A-Za-z_.][0-9])[0-9]{0,2}+\.[0-9]{1,3}+\.[0-9]{1,3}+\.[0-9]{1,3}+"
    r"(?![0-9A-Za-z_]|[.][0-9A-Za-z]|-[A-Za-z])"
)
_NOBODYS_4 = [
    IPv4Network(n)
    for n in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
]
_RESOLVERS = frozenset(
    {
        *("1.0.0.1", "1.1.1.1", "4.2.2.1", "4.2.2.2", "4.2.2.3", "4.2.2.4", "4.4.4.4"),
        *("8.8.4.4", "8.8.8.8", "9.9.9.9", "208.67.220.220", "208.67.222.222"),
    }
)
# What makes four numbers a version, just before them.
_VERSION = re.compile(
    r"(?:\b(?:version|ver|v|release|rev|revision|build|firmware|driver|sdk)\b[\"'\s:=(]{0,4}"
    r"|[<>=~!^]=\s?[\"']?|[~^_-])\Z",
    re.IGNORECASE,
)
_SECTION = re.compile(
    r"(?:\b(?:section|sec\.|chapter|table|figure|fig\.|rfc ?[0-9]{1,5},?)|§)\s?\Z", re.IGNORECASE
)
_SECTIONS = 40  # no section has a higher number
_LOOK_BACK = 24
_OIDS = ("1.3.6.1", "2.5.29.")

_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}+:")
_HEX = frozenset("0123456789abcdefABCDEF:")
_LONGEST_6 = 39
_GLOBAL_6 = IPv6Network("2000::/3")
_NOBODYS_6 = [IPv6Network(n) for n in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]

_PHONES = (
    re.compile(  # North America
        r"[2-9](?<![0-9A-Za-z_.+\-/#$][2-9])[0-9]{2}([-. ])[2-9][0-9]{2}\1[0-9]{4}"
        r"(?![0-9A-Za-z_]|[-.][0-9])"
    ),
    re.compile(r"\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[-. ][0-9]{4}(?![0-9A-Za-z_])"),
    re.compile(  # Korea
        r"0(?<![0-9A-Za-z_.+\-/]0)(?:1[016789]|2|[3-6][1-5]|70)([-. ])[0-9]{3,4}+\1[0-9]{4}"
        r"(?![0-9A-Za-z_]|[-.][0-9])"
    ),
    re.compile(  # China, mobile
        r"1(?<![0-9A-Za-z_.+\-/]1)[3-9][0-9]([- ]?)[0-9]{4}\1[0-9]{4}(?![0-9A-Za-z_]|[-.][0-9])"
    ),
)
_LEAST_VARIETY = 3  # different digits; 555-555-5555 is nobody's
_FICTION = re.compile(r"[0-9]{3}55501[0-9]{2}")
_CALLED = re.compile(r"(?:电话|手机|電話|手機|联系|聯繫|热线|tel|phone|mobile|call)\W{0,6}\Z", re.I)
_WITH_CODE = re.compile(r"\+[1-9](?<![0-9A-Za-z_)\]]\+[1-9])[0-9 ().\-/]{6,22}+")

_CARDS = (
    re.compile(r"[2-6](?<![0-9A-Za-z_.\-/][2-6])[0-9]{12,18}+(?![0-9A-Za-z_]|[.-][0-9])"),
    re.compile(
        r"[2-6](?<![0-9A-Za-z_.\-/][2-6])[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?![0-9A-Za-z_])"
    ),
    re.compile(r"3(?<![0-9A-Za-z_.\-/]3)[0-9]{3}([ -])[0-9]{6}\1[0-9]{4,5}+(?![0-9A-Za-z_])"),
)
_ISSUERS = re.compile(
    r"4|5[1-5]|2(?:2[2-9]|[3-6]|7[01]|720)|3[47]|3(?:0[0-5]|[689])|6011|64[4-9]|65|35(?:2[89]|[3-8])"
)
# What issuers and payment services print in their manuals.
_PRINTED = """
    4111111111111111 4242424242424242 4012888888881881 4222222222222 4000056655665556
    5555555555554444 5105105105105100 5200828282828210 2223003122003222 378282246310005
    371449635398431 378734493671000 6011111111111117 6011000990139424 6011000000000004
    30569309025904 38520000023237 3530111333300000 3566002020360505
"""
_TEST_CARDS = frozenset(_PRINTED.split())

_IBAN = re.compile(r"[A-Z][A-Z](?<![A-Za-z0-9_][A-Z][A-Z])[0-9]{2}(?: ?[A-Z0-9]){11,30}+")
_IBAN_LENGTHS = {
    name: int(length)
    for name, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18"
        "FO18FR27GB22GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LI21LT20LU20"
        "LV21LY25MC27MD24ME22MK19MR27MT31MU30NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SE24SI19"
        "SK24SM27ST25SV28TL23TN24TR26UA29VA22VG24XK20",
    )
}
_SHOWN_IBANS = frozenset({"GB82WEST12345698765432", "DE89370400440532013000"})


def ipv4(text: str) -> Spans:
    """Addresses that the whole Internet knows; no networks, no versions, no section numbers."""
    for match in _IPV4.finditer(text):
        start, end = match.span()
        if _is_somebodys(match[0]) and not _is_numbering(text, start, end):
            yield start, end


def _is_somebodys(address: str) -> bool:
    parts = address.split(".")
    if any(int(p) > 255 or (p[0] == "0" and len(p) > 1) for p in parts) or parts[-1] == "0":
        return False
    if address in _RESOLVERS or address.startswith(_OIDS):
        return False
    value = IPv4Address(address)
    return not any(value in network for network in _NOBODYS_4)


def _is_numbering(text: str, start: int, end: int) -> bool:
    """Whether four numbers are a version or number a section, as far as what is around tells."""
    before = text[max(0, start - _LOOK_BACK) : start]
    if _VERSION.search(before):
        # The minus between two addresses makes a range of them.
        return not (before.endswith("-") and before[-2:-1].isdigit())
    if max(map(int, text[start:end].split("."))) > _SECTIONS:
        return False
    head = before[before.rfind("\n") + 1 :]
    if _SECTION.search(head):
        return True
    begins = not head.strip(" \t#*>") and (start <= _LOOK_BACK or "\n" in before)
    return begins and text[end : end + 1] == " " and text[end + 1 : end + 2].isalpha()


def ipv6(text: str) -> Spans:
    """Global unicast addresses, as RFC 4291 writes them."""
    at = 0
    while (anchor := _COLONS.search(text, at)) is not None:
        start, end = anchor.span()
        least, most = start - _LONGEST_6, end + _LONGEST_6
        while start > max(0, least) and text[start - 1] in _HEX:
            start -= 1
        while end < min(len(text), most) and text[end] in _HEX:
            end += 1
        at = end
        if _is_part(text, start - 1, "_.-") or _is_part(text, end, "_"):
            continue
        address = text[start:end]
        if address[-1] == ":" and address[-2:] != "::":
            address = address[:-1]
        if _is_global(address):
            yield start, start + len(address)


def _is_global(address: str) -> bool:
    try:
        value = IPv6Address(address)
    except AddressValueError:
        return False
    is_network = not int(value) & (1 << 64) - 1
    is_nobodys = any(value in network for network in _NOBODYS_6)
    return value in _GLOBAL_6 and not is_nobodys and not is_network


def phones(text: str) -> Spans:
    """Numbers with a country code, and those of North America, Korea and China without one."""
    for match in _WITH_CODE.finditer(text):
        number = match[0].rstrip(" ().-/")
        start, end = match.start(), match.start() + len(number)
        if _is_international(number) and not _is_part(text, end):
            yield start, end
    for pattern in _PHONES:
        for match in pattern.finditer(text):
            start, end = match.span()
            digits = _digits(match[0])
            if _FICTION.fullmatch(digits) or len(set(digits)) < _LEAST_VARIETY:
                continue
            if match[0].isdigit() and not _CALLED.search(text[max(0, start - 16) : start]):
                continue
            yield start, end


def _is_international(number: str) -> bool:
    """At least nine digits, after a country's code of at most three or all in one piece."""
    groups = re.findall(r"[0-9]+", number)
    digits = "".join(groups)
    if not 9 <= len(digits) <= 15 or len(set(digits)) < _LEAST_VARIETY or "  " in number:
        return False
    if _FICTION.fullmatch(digits[-10:]) or _IPV4.fullmatch(number[1:]):
        return False
    return len(groups) == 1 or (len(groups[0]) <= 3 and max(map(len, groups)) <= 10)


def cards(text: str) -> Spans:
    """Numbers of payment cards: issuer, length, grouping and check digit agree."""
    for pattern in _CARDS:
        for match in pattern.finditer(text):
            digits = _digits(match[0])
            if _ISSUERS.match(digits) and is_luhn(digits) and digits not in _TEST_CARDS:
                yield match.span()


def is_luhn(digits: str) -> bool:
    """Whether the last digit checks the others (ISO 7812)."""
    doubled = (sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return (sum(int(d) for d in digits[-1::-2]) + sum(doubled)) % 10 == 0


def ibans(text: str) -> Spans:
    """International bank account numbers: the country's length, and check digits (mod 97)."""
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2], 0)
        places = [i for i, char in enumerate(match[0]) if char != " "]
        if not length or len(places) < length:
            continue
        end = match.start() + places[length - 1] + 1
        number = text[match.start() : end].replace(" ", "")
        if not _is_part(text, end) and is_iban(number) and number not in _SHOWN_IBANS:
            yield match.start(), end


def is_iban(number: str) -> bool:
    """Whether the check digits of an IBAN without spaces are right (ISO 13616)."""
    turned = number[4:] + number[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def _is_part(text: str, at: int, more: str = "") -> bool:
    """Whether an ASCII letter, a digit or one of `more` stands at a place of a text."""
    return 0 <= at < len(text) and text[at].isascii() and (text[at].isalnum() or text[at] in more)


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())
