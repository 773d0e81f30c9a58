"""Name content by a hash of its canonical JSON: the same in any order of keys."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def canonical_json(value: Any) -> str:
    """Write JSON with sorted keys and no blanks; what JSON has no word for is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def cell_id(content: Mapping[str, Any]) -> str:
    """Give the first 12 hexadecimal digits of the SHA-256 of a cell's canonical JSON."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:12]
