"""docs/operations.md knows every error that a run can end with.

Of each message in the code the longest part that never varies must stand on the page. A message
that is all variable (what a library said) has none and is left out.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "operations.md"
ERRORS = ("RunError", "DamagedFileError")
SHORTEST = 6


def fixed_parts(node: ast.AST) -> list[str]:
    """The constant pieces of a message, between what is filled in; none of what a call returns."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        pieces = (v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
        return "".join(map(str, pieces)).split("\0")
    if isinstance(node, ast.BinOp | ast.IfExp):
        return [part for child in ast.iter_child_nodes(node) for part in fixed_parts(child)]
    return []


def plain(text: str) -> str:
    return text.replace("`", "")


def messages(source: str) -> Iterator[tuple[int, str]]:
    """Line and longest fixed part of every error that is made in a module."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        if node.func.id in ERRORS:
            parts = (plain(p).strip(" \n.,:;()") for p in fixed_parts(node.args[0]))
            if len(longest := max(parts, key=len, default="")) >= SHORTEST:
                yield node.lineno, longest


def test_every_error_of_a_run_is_on_the_page() -> None:
    page = plain(PAGE.read_text())
    files = sorted((ROOT / "longctx").rglob("*.py"))
    found = [(f.relative_to(ROOT), *m) for f in files for m in messages(f.read_text())]
    missing = [f"{file}:{line}: {part}" for file, line, part in found if part not in page]
    assert len(found) > 50
    assert not missing, "add to docs/operations.md what to do about:\n" + "\n".join(missing)


def test_what_never_varies_is_found() -> None:
    source = 'raise RunError(f"{a} of {b} rows were lost " "on the way", where=x)\nRunError(text)'
    assert list(messages(source)) == [(1, "rows were lost on the way")]
