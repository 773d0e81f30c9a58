"""Check a value against the part of JSON Schema that pydantic's models make of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
TOLD = {"title", "description", "default", "$defs", "$schema", "type", "properties"}


def faults(
    value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$"
) -> Iterator[str]:
    """Say what does not agree; a keyword that is not known here is a fault too."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "type" in schema and not _is(value, schema["type"]):
        yield f"{at}: no {schema['type']}"
        return
    for name, part in schema.get("properties", {}).items():
        if name in value:
            yield from faults(value[name], part, root, f"{at}.{name}")
    for keyword in set(schema) - TOLD:
        yield from _checked(keyword, value, schema, root, at)


def _is(value: Any, kind: str) -> bool:
    numeric = kind in {"integer", "number"}
    return isinstance(value, KINDS[kind]) and not (numeric and isinstance(value, bool))


def _checked(
    keyword: str, value: Any, schema: dict[str, Any], root: dict[str, Any], at: str
) -> Iterator[str]:
    rule = schema[keyword]
    simple = {
        "enum": lambda: value in rule,
        "const": lambda: value == rule,
        "minimum": lambda: value >= rule,
        "required": lambda: set(rule) <= set(value),
        "additionalProperties": lambda: rule or set(value) <= set(schema.get("properties", {})),
        "anyOf": lambda: any(not list(faults(value, one, root, at)) for one in rule),
    }
    if keyword == "items":
        for index, item in enumerate(value):
            yield from faults(item, rule, root, f"{at}[{index}]")
    elif keyword not in simple:
        yield f"{at}: unknown keyword {keyword}"
    elif not simple[keyword]():
        yield f"{at}: {keyword} is violated"
