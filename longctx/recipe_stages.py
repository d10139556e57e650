"""What stages of a recipe ask of one another: columns that an earlier one writes, and places."""

from collections.abc import Sequence
from typing import Any

from longctx.engine.op import Op
from longctx.recipe_errors import Located
from longctx.registry import OPS, did_you_mean, resolve
from longctx.schema import DOCUMENTS

# What an op says of its files that ends a recipe in something else than windows.
_NO_WINDOWS = {
    "documents": "`{}` has a field `format` of its own",
    "rows": "`{}` writes Parquet and JSON lines, leave `format` out",
    "packs": "`{}` writes Parquet, leave `format` out",
}


def misplaced(stages: list[Any], ops: list[Op | None], located: Located) -> list[str]:
    """What single fields cannot tell: columns that an earlier stage must write, and the last stage.

    A stage that is wrong in itself is only asked for what it writes.
    """
    named = [s.get("op") if isinstance(s, dict) else None for s in stages]
    names = [name if isinstance(name, str) else None for name in named]
    problems = [
        f"{located.at(('stages', i))}: `{name}` must be the last stage"
        for i, name in enumerate(names[:-1])
        if name in OPS and resolve(name).ends
    ]
    known = set(DOCUMENTS.names)
    for index, (name, op) in enumerate(zip(names, ops, strict=True)):
        absent = [c for c in op.reads_columns() if c not in known] if op else []
        others = {c: op.alternatives(c) for c in absent} if op else {}
        hints = {c: _remedy(c, known, names[index + 1 :], others[c]) for c in absent}
        for hint in dict.fromkeys(hints.values()):
            columns = ", ".join(f"`{c}`" for c in absent if hints[c] == hint)
            problems.append(
                f"{located.at(('stages', index))}: {name} reads {columns}, which no earlier stage "
                f"writes{hint}"
            )
        late = [n for n in names[:index] if op and n in OPS and _writes_any(n, op.precedes())]
        if op and late:
            problems.append(
                f"{located.at(('stages', index))}: {name} {op.why_early.format(late[0])}; move "
                f"{name} before it"
            )
        # One missing stage is one problem, however many stages need it.
        known |= set(absent)
        if name not in OPS:
            # It may write anything; what follows cannot be judged.
            break
        known |= set(op.writes_columns() if op else resolve(name).writes)
    return problems


def out_of_turn(ops: list[Op | None], located: Located) -> list[str]:
    """Ops of which a recipe has one at most, and ops that may not follow another."""
    problems = []
    for index, op in enumerate(ops):
        for before in ops[:index]:
            if op is None or before is None:
                continue
            place = located.at(("stages", index))
            if op.once and op.once == before.once:
                problems.append(
                    f"{place}: a recipe has one {op.once} at most, and `{before.op}` stands before "
                    f"{op.op}; keep one of them"
                )
            elif before.last_of and op.op.startswith(before.last_of):
                problems.append(f"{place}: {op.op} {before.why_late}; move it before `{before.op}`")
    return list(dict.fromkeys(problems))


def unknown_sources(body: Any, ops: list[Op | None], located: Located) -> list[str]:
    """Sources that a stage names and no input has, where every input says its source itself."""
    inputs = [(entry.source, entry.source_field) for entry in body.input]
    if any(field is not None for _, field in inputs):
        return []
    known = sorted({source for source, _ in inputs})
    return [
        f"{located.at(('stages', index, *field.split('.')))}: no input has the source "
        f"`{source}`{did_you_mean(source, known)}; sources: {', '.join(known)}"
        for index, op in enumerate(ops)
        if op is not None
        for field, named in op.named_sources().items()
        for source in named
        if source not in known
    ]


def unread_fields(body: Any, ops: list[Op | None], located: Located) -> list[str]:
    """Fields that a stage needs as they were read: not kept by an input, or of a text made anew."""
    problems = []
    for index, op in enumerate(ops):
        fields = op.reads_meta() if op is not None else ()
        if op is None or not fields:
            continue
        for number, entry in enumerate(body.input):
            if absent := [name for name in fields if name not in entry.meta]:
                kept = ", ".join([*entry.meta, *absent])
                problems.append(
                    f"{located.at(('input', number))}: {op.op} reads `{absent[0]}` of every row; "
                    f"give this input `meta: [{kept}]`"
                )
        anew = next((o.op for o in ops[:index] if o and "text" in o.writes_columns()), None)
        if anew is not None:
            problems.append(
                f"{located.at(('stages', index))}: {anew} writes texts anew, and {op.op} takes "
                f"`{fields[0]}` as it was read; run {anew} in a recipe of its own"
            )
    return problems


def unused_formats(output: Any, ops: list[Op | None], located: Located) -> list[str]:
    """Formats of windows in a recipe that ends in documents, rows or packs."""
    named = output.get("format") if isinstance(output, dict) else None
    last = next((op for op in ops if op is not None and op.ends in _NO_WINDOWS), None)
    if named in (None, ["parquet"]) or last is None:
        return []
    instead = _NO_WINDOWS[last.ends].format(last.op)
    return [f"{located.at(('output', 'format'))}: these are formats of windows; {instead}"]


def _writes_any(name: str, columns: Sequence[str]) -> bool:
    return bool(columns) and not set(columns).isdisjoint(resolve(name).writes)


def _remedy(
    column: str, known: set[str], later: Sequence[str | None], others: Sequence[str]
) -> str:
    """What to do about a column that is not there yet. Imports every op: only for an error.

    `others` are names that are no columns and could stand in its place.
    """
    writers = [name for name in OPS if column in resolve(name).writes]
    if moved := next((name for name in later if name in writers), None):
        return f"; move `{moved}` before it"
    if writers:
        return f"; add `{writers[0]}` before it"
    every = known.union(others, *(resolve(name).writes for name in OPS))
    if close := did_you_mean(column, sorted(every)):
        return close
    return "; no op writes it" + (f"; derived scores: {', '.join(others)}" if others else "")
