"""Text and attribute values are escaped where markup is made, whoever makes it."""

from longctx.report.markup import join, tag, text
from tests.report.example import HOSTILE
from tests.report.page import Page


def test_text_and_attributes_give_back_what_went_in() -> None:
    parsed = Page(tag("p", text(HOSTILE), title=HOSTILE, aria_label="'\"<>&"))
    (paragraph,) = parsed.elements
    assert paragraph.text == HOSTILE
    assert paragraph.attributes == {"title": HOSTILE, "aria-label": "'\"<>&"}
    assert parsed.faults == []


def test_null_attributes_are_left_out_and_numbers_are_short() -> None:
    assert tag("rect", class_=None, x=1 / 3, data_count=0) == (
        '<rect x="0.333333" data-count="0"></rect>'
    )


def test_void_elements_are_not_closed() -> None:
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_what_stands_between_parts_is_escaped_too() -> None:
    assert join([text("a"), text("b")], " < ") == "a &lt; b"
