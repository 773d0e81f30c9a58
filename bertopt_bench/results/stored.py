"""What stored objects share: numbers not finite, fields that time cannot change, lines of JSON."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_WORDS = {"NaN": math.nan, "inf": math.inf, "-inf": -math.inf}


def _number(value: Any) -> Any:
    if isinstance(value, str) and value not in _WORDS:
        raise ValueError(f"{value!r} is no number")
    return _WORDS[value] if isinstance(value, str) else value


def _numbers(value: Any) -> Any:
    return [_number(part) for part in value] if isinstance(value, list | tuple) else value


def to_json(value: Any) -> Any:
    """Turn a value into what JSON can hold: numbers that are not finite become their words.

    >>> to_json({"loss": (1.5, float("nan"), float("-inf"))})
    {'loss': [1.5, 'NaN', '-inf']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    return value


Number = Annotated[float, BeforeValidator(_number)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
_FIXED: dict[str, Any] = {"deterministic": True}


def fixed(default: Any = None) -> Any:
    """Declare a field that cannot depend on time; ``...`` for one that must be given."""
    return Field(default, json_schema_extra=_FIXED)


class Stored(BaseModel):
    """A stored object: frozen, and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    def line(self) -> bytes:
        """Write itself as a line of JSON, every field in it, so that all lines have the same."""
        return _line(self.model_dump())


def _line(fields: dict[str, Any]) -> bytes:
    text = json.dumps(to_json(fields), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def is_fixed(model: type[BaseModel], name: str) -> bool:
    """Say whether a field was declared to be one that cannot depend on time."""
    return bool(model.model_fields[name].json_schema_extra == _FIXED)
