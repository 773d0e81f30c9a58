"""Lay out what sessions recorded of machine, versions and code, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GROUPS = ("machine", "versions", "code", "ceilings", "declared")


def flattened(value: Any, path: str = "") -> dict[str, str]:
    """Flatten nested JSON to dotted names and text."""
    if isinstance(value, dict):
        flat: dict[str, str] = {}
        for key, inner in value.items():
            flat |= flattened(inner, f"{path}.{key}" if path else str(key))
        return flat
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, (dict, list)) for item in value):
            return flattened({str(i + 1): item for i, item in enumerate(value)}, path)
        return {path: ", ".join(map(str, value)) or "none"}
    return {path: written(path, value)}


def written(path: str, value: Any) -> str:
    """Write a recorded value; names that end in a unit get it."""
    if value is None:
        return "not recorded"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)) and path.endswith("bytes"):
        return wording.memory(value)
    if isinstance(value, float):
        return wording.significant(value, 4) if abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def environment(sessions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Make one table a group: a row a name, a column a session, marked where sessions differ."""
    groups = []
    for title in GROUPS:
        recorded = [flattened(session.get(title) or {}) for session in sessions]
        names = list(dict.fromkeys(name for flat in recorded for name in flat if name))
        rows = [
            {
                "name": name,
                "values": (values := [flat.get(name, "not recorded") for flat in recorded]),
                "differs": len(set(values)) > 1,
            }
            for name in names
        ]
        if rows:
            groups.append({"title": title, "rows": rows})
    return groups
