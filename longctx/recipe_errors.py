"""From a validation failure to the line of the recipe that caused it."""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from longctx.credentials import REMEDY, found_in, masked
from longctx.errors import RecipeError
from longctx.registry import did_you_mean

_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Located:
    """Plain data together with the YAML nodes it came from, to name lines in errors.

    `overridden` are the places that the command line set, with the argument that did.
    """

    value: Any
    origin: str
    node: yaml.Node | None
    overridden: tuple[tuple[tuple[str, ...], str], ...] = ()

    @classmethod
    def parse(cls, text: str, origin: str) -> "Located":
        """Parse YAML safely. Raises RecipeError with the line of a syntax error."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            value = yaml.load(text, Loader=_UniqueKeys)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            problem = ", ".join(p for p in (error.context, error.problem) if p) or str(error)
            raise RecipeError(
                f"not valid YAML: {problem}", where=f"{origin}{line}", remedy=_yaml_remedy(problem)
            ) from None
        except RecursionError:
            raise RecipeError(
                "not valid YAML: nested too deeply", where=origin, remedy="give a recipe"
            ) from None
        except (yaml.YAMLError, ValueError) as error:
            raise RecipeError(
                f"not valid YAML: {error}",
                where=origin,
                remedy="put values that are meant as text in quotes",
            ) from None
        return cls(value, origin, node)

    def override(self, overrides: Sequence[str]) -> "Located":
        """The same data with `key.path=value` applied in order; list elements go by number.

        Raises RecipeError for an override that has no place in the data.
        """
        value, places = copy.deepcopy(self.value), list(self.overridden)
        for override in overrides:
            places.append((_override(value, override), f"--set {override}"))
        return replace(self, value=value, overridden=tuple(places))

    def at(self, place: Sequence[str | int]) -> str:
        """`file:line: field.path` of a place, as near as the file knows it."""
        names = tuple(str(p) for p in place)
        field = ".".join(names)
        for keys, argument in reversed(self.overridden):
            if names[: len(keys)] == keys or (keys[: len(names)] == names and not self._has(place)):
                return f"{argument}: {field}"
        line = self._line(place)
        return f"{self.origin}{f':{line}' if line else ''}: {field}"

    def _has(self, place: Sequence[str | int]) -> bool:
        """Whether the file itself has a place."""
        node = self.node
        for step in place:
            node, _ = _child(node, step)
        return node is not None

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
            if key_node.tag == _MERGE or not isinstance(key_node, yaml.ScalarNode):
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _yaml_remedy(problem: str) -> str:
    if "\\t" in problem:
        return "indent with spaces: YAML does not allow tabs"
    if "written twice" in problem:
        return "keep one of the two"
    return "check indentation, quotes and colons near this line"


def _override(data: Any, override: str) -> tuple[str, ...]:
    """Apply one `key.path=value` to plain data in place; returns the keys of the path."""
    path, equals, text = override.partition("=")
    where = f"--set {override}"
    keys = tuple(path.split("."))
    if not equals or not all(keys):
        raise RecipeError(
            "an override is `key.path=value`", where=where, remedy="for example --set seed=7"
        )
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(
            f"the value is not YAML: {' '.join(str(error).split())}",
            where=where,
            remedy="put text with special characters in quotes",
        ) from None
    node = data
    for depth, key in enumerate(keys):
        place = _place(node, key, ".".join(keys[:depth]), where)
        if depth == len(keys) - 1:
            node[place] = value
        elif isinstance(node, dict) and node.get(place) is None:
            node[place] = node = {}
        else:
            node = node[place]
    return keys


def _place(node: Any, key: str, path: str, where: str) -> str | int:
    if isinstance(node, dict):
        return key
    if not isinstance(node, list):
        raise RecipeError(
            f"`{path}` is a single value, it has no field `{key}`" if path else "no recipe to set",
            where=where,
            remedy=f"set `{path}` itself" if path else "start with a recipe that is a mapping",
        )
    if key.isdecimal() and int(key) < len(node):
        return int(key)
    names = [str(n.get("op", "")) if isinstance(n, dict) else "" for n in node]
    listed = ", ".join(f"{i} {name}".strip() for i, name in enumerate(names))
    raise RecipeError(
        f"`{path}` has no element `{key}`",
        where=where,
        remedy=f"use a number: {listed}" if listed else "the list is empty",
    )


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node | None, int]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return value, key.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        child = node.value[step]
        return child, child.start_mark.line + 1
    return None, 0


def refuse_credentials(located: Located) -> None:
    """Raise RecipeError for URLs with credentials: a recipe is recorded, reported and passed on."""
    found = [
        f"{located.at(place)}: the URL holds {kind}"
        for place, text in _texts(located.value, ())
        if (kind := found_in(text))
    ]
    if found:
        raise RecipeError("\n".join(found), remedy=REMEDY)


def _texts(value: Any, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """All strings of plain data with their places."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*place, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, (*place, number))


def explain(
    error: ValidationError, located: Located, prefix: tuple[str | int, ...], model: type[BaseModel]
) -> list[str]:
    """One line for each problem: where, what was expected, what came, the nearest valid name."""
    lines = []
    for problem in error.errors(include_url=False):
        place = _visible(prefix + problem["loc"], located.value)
        fields = _visible(problem["loc"], _at(located.value, prefix))
        lines.append(f"{located.at(place)}: {_message(problem, fields, model)}")
    return list(dict.fromkeys(lines))


def _visible(place: Sequence[str | int], value: Any) -> tuple[str | int, ...]:
    """A location without the names of union branches, which are not in the file."""
    found: list[str | int] = []
    for number, step in enumerate(place):
        last = number == len(place) - 1
        if isinstance(value, dict) and (step in value or last):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            continue
        found.append(step)
    return tuple(found)


def _at(value: Any, place: Sequence[str | int]) -> Any:
    for step in place:
        value = value[step]
    return value


def _message(problem: Any, place: tuple[str | int, ...], model: type[BaseModel]) -> str:
    kind, got = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        known = _fields(model, place[:-1])
        name = str(place[-1])
        listed = f"; fields: {', '.join(sorted(known))}" if known else ""
        return f"unknown field{did_you_mean(name, known)}{listed}"
    if kind == "missing":
        return "this field is required"
    if kind in ("model_type", "dict_type"):
        return f"should be a mapping of fields, got {shown(got)}"
    if kind == "union_tag_not_found":
        return f"needs a field {problem['ctx']['discriminator']}, got {shown(got)}"
    if kind == "union_tag_invalid":
        known, tag = problem["ctx"]["expected_tags"], str(problem["ctx"]["tag"])
        hint = did_you_mean(tag, re.findall(r"'([^']*)'", known))
        return f"{problem['ctx']['discriminator']} should be one of {known}, got '{tag}'{hint}"
    if kind == "too_short":
        return f"at least {problem['ctx']['min_length']} is needed, got {shown(got)}"
    text = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    text = f"{text[0].lower()}{text[1:]}"
    if kind == "value_error" and isinstance(got, (dict, BaseModel)):
        return text
    hint = ""
    if kind == "literal_error" and isinstance(got, str):
        hint = did_you_mean(got, re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    elif kind == "string_type" and isinstance(got, (bool, int, float, date)):
        hint = "; put text in quotes"
    return f"{text}, got {shown(got)}{hint}"


def shown(value: Any) -> str:
    """A value as Python writes it, without credentials, short enough for a message."""
    text = masked(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _fields(model: type[BaseModel], place: Sequence[str | int]) -> set[str]:
    """Names of the fields that are allowed at a place inside a model; of a union those of all."""
    current: list[Any] = [model]
    for step in place:
        if isinstance(step, int):
            continue
        # A step that is no field is a key of a dictionary of models.
        if fields := [m.model_fields[step] for m in current if step in m.model_fields]:
            current = [inner for field in fields for inner in _models_in(field.annotation)]
    return {name for m in current for name in m.model_fields}


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner = getattr(annotation, "__args__", ())
    return [model for one in inner for model in _models_in(one)]
