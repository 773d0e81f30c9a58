"""Remember what was seen when a text was prepared, for a plan's forecast.

Planning prepares nothing: it takes the vocabulary and the shares of a micro-batch that each layout
computes as they were when the text was last prepared here.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from bertopt_bench.workload.filling import WHOLE, Filled, expected_most, filled

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_FOLDER = "known_texts"
_DECIDING = (
    "corpus", "vocabulary_size", "seq_len", "lower_case", "held_out_fraction", "train_tokens",
    "batch_size", "micro_batches", "next_sentence",
)  # fmt: skip
_DRAWS = 256  # micro-batches on which the sequences are placed
_SHARES = {part.name for part in fields(Filled)}
_COUNTS = tuple(2**power for power in range(9))


@dataclass(frozen=True, slots=True)
class KnownText:
    """What is known of a workload's text; None is not known.

    Attributes:
        filled: what the layout is expected to compute of the fullest micro-batch of a trial, by
            which memory goes.
        vocabulary_size: how many pieces there are: a text may yield fewer than were asked for.
    """

    filled: Filled | None = None
    vocabulary_size: int | None = None


def note_text(
    workload: Mapping[str, Any], vocabulary_size: int, lengths: NDArray[Any] | None, cache: Path
) -> None:
    """Keep the vocabulary, and the most of a micro-batch that each layout computes.

    Args:
        workload: canonical.
        vocabulary_size: of the text as it was prepared.
        lengths: [N] of all train sequences, special tokens counted; None where they are drawn anew
            for each batch.
        cache: its folder.
    """
    shares = {} if lengths is None else _shares(workload, lengths)
    file = _file(workload, cache)
    file.parent.mkdir(parents=True, exist_ok=True)
    seen = {"vocabulary_size": vocabulary_size, "shares": shares}
    file.write_text(json.dumps(seen), encoding="utf-8")


def _shares(workload: Mapping[str, Any], lengths: NDArray[Any]) -> dict[str, Any]:
    """Give what the fullest of so many micro-batches may be expected to compute, by layout."""
    import numpy as np

    from bertopt_bench.workload.packing import PLACES

    size, row = workload["batch_size"] // workload.get("micro_batches", 1), workload["seq_len"]
    drawn = np.random.default_rng(0).choice(lengths, (_DRAWS, size)).astype(np.int64)
    found = {
        layout: [filled(one, place(one, row), row) for one in drawn]
        for layout, place in PLACES.items()
    }
    return {
        layout: {count: asdict(expected_most(seen, count)) for count in _COUNTS}
        for layout, seen in found.items()
    }


def known_text(workload: Mapping[str, Any], cache: Path) -> KnownText:
    """Give what was seen when a workload's text was last prepared; `padded` leaves out nothing."""
    layout = workload.get("layout", "padded")
    nothing = WHOLE if layout == "padded" else None
    try:
        seen = json.loads(_file(workload, cache).read_text(encoding="utf-8"))
        vocabulary, shares = seen["vocabulary_size"], seen["shares"].get(layout, {})
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return KnownText(nothing)
    share = shares.get(_count(workload)) if isinstance(shares, dict) else None
    if not isinstance(share, dict) or set(share) != _SHARES:  # of another version
        return KnownText(nothing, vocabulary)
    return KnownText(Filled(**share), vocabulary)


def _count(workload: Mapping[str, Any]) -> str:
    """Give the noted count next to that of a trial's micro-batches."""
    sought = math.log2(workload.get("steps", 1) * workload.get("micro_batches", 1))
    return str(min(_COUNTS, key=lambda count: abs(math.log2(count) - sought)))


def _file(workload: Mapping[str, Any], cache: Path) -> Path:
    key = json.dumps({name: workload.get(name) or None for name in _DECIDING}, sort_keys=True)
    return cache / _FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
