"""Remember how much of a prepared text is padding, so that a plan can forecast ragged layouts.

Planning prepares nothing: it takes the share that was seen when the text was last prepared here.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FOLDER = "padding"
_DECIDING = (
    "corpus", "vocabulary_size", "seq_len", "lower_case", "held_out_fraction", "train_tokens",
)  # fmt: skip
_SPECIAL_TOKENS = 2  # [CLS] and [SEP] of every sequence


def note_padding(workload: Mapping[str, Any], sequences: int, tokens: int, cache: Path) -> None:
    """Keep the share of padding of a text that was cut into ``sequences`` with ``tokens`` pieces.

    Pairs of the next-sentence task are drawn anew and are not counted.
    """
    if workload.get("next_sentence") or not sequences:
        return
    real = tokens + _SPECIAL_TOKENS * sequences
    share = max(0.0, 1.0 - real / (sequences * workload["seq_len"]))
    file = _file(workload, cache)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"padding": share}), encoding="utf-8")


def known_padding(workload: Mapping[str, Any], cache: Path) -> float:
    """Give the share of padding in [0, 1) as it was when the text was last prepared; else 0."""
    try:
        share: float = json.loads(_file(workload, cache).read_text(encoding="utf-8"))["padding"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
    return share


def _file(workload: Mapping[str, Any], cache: Path) -> Path:
    key = json.dumps({name: workload.get(name) for name in _DECIDING}, sort_keys=True)
    return cache / _FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
