"""The page's sentences, read as text."""

from __future__ import annotations

import pandas as pd
import pytest

from bertopt_bench.report import sentences
from bertopt_bench.stats.estimates import LOSS
from bertopt_bench.stats.facts import gather


@pytest.mark.parametrize(
    ("shift", "told"),
    [
        (2e-7, ", and no comparison moved it by 0.0005 nats or more (medians)"),
        (0.2, ", and the layout moved it most: packed against padded by +0.200 nats"),
    ],
)
def test_what_is_rounding_moved_nothing(shift: float, told: str) -> None:
    """Oracle: two layouts whose losses differ by a rounding error, or by a fifth of a nat."""
    trials = [
        {
            "trial": 0, "cell_id": f"{layout}{corpus}", "label": layout, "seed": 1, "replicate": 0,
            "session": "one", "status": "ok", "reason": None, "steps": 10, "layout": layout,
            "corpus": corpus, "final_loss": 5.0 + shift * (layout == "packed"),
            "evaluation_sha256": corpus, "batches_sha256": corpus, "initial_weights_sha256": "w",
        }
        for corpus in ("news", "docs")
        for layout in ("padded", "packed")
    ]  # fmt: skip

    assert sentences.strongest(gather(pd.DataFrame(trials)), LOSS).startswith(told)
