"""From a validation failure to the line of the recipe that caused it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from longctx.errors import RecipeError
from longctx.registry import did_you_mean


@dataclass(frozen=True)
class Located:
    """Plain data together with the YAML nodes it came from, to name lines in errors."""

    value: Any
    origin: str
    node: yaml.Node | None

    @classmethod
    def parse(cls, text: str, origin: str) -> "Located":
        """Parse YAML safely. Raises RecipeError with the line of a syntax error."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            value = yaml.load(text, Loader=_UniqueKeys)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            raise RecipeError(
                f"not valid YAML: {error.problem or error}",
                where=f"{origin}{line}",
                remedy="check indentation, quotes and colons near this line",
            ) from None
        except yaml.YAMLError as error:
            raise RecipeError(f"not valid YAML: {error}", where=origin) from None
        return cls(value, origin, node)

    def at(self, place: Sequence[str | int]) -> str:
        """`file:line: field.path` of a place, as near as the file knows it."""
        field = ".".join(str(p) for p in place)
        line = self._line(place)
        return f"{self.origin}{f':{line}' if line else ''}: {field}"

    def _line(self, place: Sequence[str | int]) -> int | None:
        node = self.node
        line = node.start_mark.line + 1 if node is not None else None
        for step in place:
            node, key_line = _child(node, step)
            if node is None:
                break
            line = key_line
        return line


class _UniqueKeys(yaml.SafeLoader):
    """Safe loader that refuses a key written twice, which plain YAML silently overrides."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node | None, int]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return value, key.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        child = node.value[step]
        return child, child.start_mark.line + 1
    return None, 0


def explain(
    error: ValidationError, located: Located, prefix: tuple[str | int, ...], model: type[BaseModel]
) -> list[str]:
    """One line for each problem: where, what was expected, what came, the nearest valid name."""
    lines = []
    for problem in error.errors(include_url=False):
        place = prefix + tuple(p for p in problem["loc"] if not str(p).startswith("function-"))
        lines.append(f"{located.at(_visible(place, located))}: {_message(problem, model)}")
    return list(dict.fromkeys(lines))


def _visible(place: tuple[str | int, ...], located: Located) -> tuple[str | int, ...]:
    # Union branches add their type's name to the location; they are not in the file.
    return tuple(p for p in place if not (isinstance(p, str) and ("[" in p or p == "str")))


def _message(problem: Any, model: type[BaseModel]) -> str:
    kind, got = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        known = _fields(model, problem["loc"][:-1])
        name = str(problem["loc"][-1])
        listed = f"; fields: {', '.join(sorted(known))}" if known else ""
        return f"unknown field{did_you_mean(name, known)}{listed}"
    if kind == "missing":
        return "this field is required"
    text = problem["msg"].removeprefix("Value error, ")
    shown = repr(got)
    return f"{text[0].lower()}{text[1:]}, got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _fields(model: type[BaseModel], place: Sequence[str | int]) -> set[str]:
    """Names of the fields that are allowed at a place inside a model."""
    current: Any = model
    for step in place:
        if isinstance(step, int) or not (
            isinstance(current, type) and hasattr(current, "model_fields")
        ):
            continue
        field = current.model_fields.get(str(step))
        current = _model_in(field.annotation) if field else None
    return set(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (found := _model_in(inner)) is not None:
            return found
    return None
