"""Remember how many slots of a prepared text each layout leaves out, for a plan's forecast.

Planning prepares nothing: it takes the shares that were seen when the text was last prepared here.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_FOLDER = "padding"
_DECIDING = (
    "corpus", "vocabulary_size", "seq_len", "lower_case", "held_out_fraction", "train_tokens",
    "batch_size", "micro_batches",
)  # fmt: skip
_DRAWS = 64  # micro-batches on which the sequences are placed


def note_padding(workload: Mapping[str, Any], lengths: NDArray[Any], cache: Path) -> None:
    """Keep the share of slots that each layout leaves out of a micro-batch, in the mean.

    Args:
        workload: canonical.
        lengths: [N] of all train sequences, special tokens counted.
        cache: its folder.
    """
    import numpy as np

    from bertopt_bench.workload.packing import PLACES

    size = workload["batch_size"] // workload.get("micro_batches", 1)
    drawn = np.random.default_rng(0).choice(lengths, (_DRAWS, size)).astype(np.int64)
    slots = size * workload["seq_len"]
    shares = {
        layout: float(np.mean([1 - place(one, workload["seq_len"]).slots / slots for one in drawn]))
        for layout, place in PLACES.items()
    }
    file = _file(workload, cache)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(shares), encoding="utf-8")


def known_padding(workload: Mapping[str, Any], cache: Path) -> float | None:
    """Give the share in [0, 1) that a workload's layout left out when its text was last prepared.

    None where it is not known; `padded` leaves out nothing.
    """
    layout = workload.get("layout", "padded")
    if layout == "padded":
        return 0.0
    try:
        shares = json.loads(_file(workload, cache).read_text(encoding="utf-8"))
        share: float | None = shares.get(layout)
    except (OSError, ValueError, AttributeError):
        return None
    return share


def _file(workload: Mapping[str, Any], cache: Path) -> Path:
    key = json.dumps({name: workload.get(name) for name in _DECIDING}, sort_keys=True)
    return cache / _FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
