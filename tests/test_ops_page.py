"""docs/ops.md has a section for every op, each with what it costs and where it comes from."""

import re
from pathlib import Path

import pytest

from longctx.registry import OPS

PAGE = Path(__file__).parents[1] / "docs" / "ops.md"
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^#{1,2} |\Z)", PAGE.read_text(), re.M | re.S))


def test_the_page_has_the_ops_and_no_others() -> None:
    assert set(SECTIONS) == set(OPS)


@pytest.mark.parametrize("name", OPS)
def test_a_section_says_something(name: str) -> None:
    assert len(SECTIONS[name].split()) >= 12
