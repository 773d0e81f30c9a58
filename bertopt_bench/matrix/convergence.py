"""What a matrix declares of convergence before it runs: targets of the loss, and the baseline.

Keys of ``[convergence]``: ``targets``, a list of losses in nats, and ``baseline``, the submission
that others are compared with.
"""

from __future__ import annotations

import math
import tomllib
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.keys import Key, came

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.matrix.keys import Place

KEYS = {"targets": Key("list"), "baseline": Key("str", "")}


def check(table: Mapping[str, Any], place: Place, *, trains: bool = True) -> None:
    """Refuse keys that there are not, targets that are no finite numbers, and all without training.

    Args:
        table: as it was written.
        place: where it stands.
        trains: whether a cell of the matrix does.
    """
    place.known(table, KEYS)
    if table and not trains:
        raise place.error("is about training; inference trains nothing. Leave it out.")
    for key, value in table.items():
        KEYS[key].read(value, place.at(key))
    for index, target in enumerate(table.get("targets", [])):
        is_number = isinstance(target, int | float) and not isinstance(target, bool)
        if not is_number or not math.isfinite(target):
            raise (
                place.at("targets")
                .item(index)
                .error(f"is {came(target)}; a target is a loss in nats, as 4.5.")
            )


def declared(sources: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """Read targets and baseline in the text of the first session's matrix: it stood before all.

    A text that is no matrix of ours declares nothing.
    """
    try:
        table = tomllib.loads(sources[0] if sources else "").get("convergence", {})
    except tomllib.TOMLDecodeError:
        return (), None
    if not isinstance(table, dict):
        return (), None
    targets = table.get("targets", [])
    return tuple(map(str, targets)) if isinstance(targets, list) else (), table.get("baseline")
