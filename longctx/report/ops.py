"""The list of ops, and one op with its fields, for the terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longctx.engine.op import Op
from longctx.registry import OPS, resolve


def ops_view() -> RenderableType:
    """All ops with one line each, in the order of the main route."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True, style="dim")
    table.add_column()
    for name in OPS:
        op = resolve(name)
        table.add_row(name, op.kind, Text(op.summary))
    return Group(table, Text("\n`longctx ops NAME` shows fields, cost and source.", style="dim"))


def op_view(name: str) -> RenderableType:
    """One op: what it does, its fields with defaults, its columns, its cost and its source."""
    op = resolve(name)
    parts: list[RenderableType] = [Text.assemble((name, "bold"), f"  {op.summary}\n")]
    if op.__doc__:
        parts.append(Text(f"{_paragraphs(op.__doc__)}\n"))
    return Group(*parts, _fields(op), _facts(op))


def _paragraphs(doc: str) -> str:
    """A docstring without its indentation, lines joined so that the terminal wraps them."""
    blocks = [" ".join(b.split()) for b in doc.strip().split("\n\n")]
    return "\n\n".join(blocks).replace("`", "")


def _fields(op: type[Op]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("field", no_wrap=True)
    table.add_column("type", overflow="fold")
    table.add_column("default", overflow="fold")
    schema = op.model_json_schema()
    for field, info in schema["properties"].items():
        if field != "op":
            table.add_row(field, Text(_type(info)), Text(_default(info)))
    return table


def _type(info: dict[str, object]) -> str:
    if "enum" in info:
        return " | ".join(str(v) for v in info["enum"])  # type: ignore[attr-defined]
    if "anyOf" in info:
        return " | ".join(_type(i) for i in info["anyOf"])  # type: ignore[attr-defined]
    limits = {
        "minimum": ">=",
        "exclusiveMinimum": ">",
        "maximum": "<=",
        "exclusiveMaximum": "<",
    }
    bounds = [f"{sign} {_number(info[k])}" for k, sign in limits.items() if k in info]
    kind = str(info.get("type", "mapping" if {"$ref", "oneOf"} & set(info) else "value"))
    kind = {"object": "mapping", "array": "list", "null": "none"}.get(kind, kind)
    return f"{kind} {', '.join(bounds)}".strip()


def _number(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _default(info: dict[str, object]) -> str:
    if "default" not in info:
        return "{}" if info.get("type") == "object" else "required"
    value = info["default"]
    return (
        "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def _facts(op: type[Op]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = [
        ("kind", op.kind),
        ("reads", ", ".join(op.reads) or "the columns that its fields name"),
        ("writes", ", ".join(op.writes) or op.ends),
        ("cost", op.cost),
        ("source", op.source),
    ]
    for label, value in rows:
        table.add_row(label, Text(value))
    return table
