"""A limit on train text and a sample of it: held-out text and other batches stay as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bertopt_bench.workload.prepare import limited, prepare
from bertopt_bench.workload.tokens import TokenText

WORKLOAD = {
    "name": "mlm", "corpus": "python_docs", "vocabulary_size": 300, "seq_len": 32,
    "batch_size": 4, "mask_rate": 0.15, "evaluation_batches": 1, "held_out_fraction": 0.1,
    "lower_case": True,
}  # fmt: skip


def test_a_limit_keeps_the_first_tokens_and_their_documents() -> None:
    """Oracle: by hand: documents of 3, 4 and 5 tokens, of which 5 tokens are two documents."""
    text = TokenText(np.arange(12, dtype=np.int32), np.asarray([0, 3, 7, 12]))

    kept = limited(text, 5)
    assert kept.ids.tolist() == [0, 1, 2, 3, 4]
    assert kept.starts.tolist() == [0, 3, 5]
    assert limited(text, 0) is text
    assert limited(text, 7).starts.tolist() == [0, 3, 7]
    assert limited(text, 99).starts.tolist() == [0, 3, 7, 12]


def test_a_limit_and_a_sample_change_nothing_else(tmp_path: Path) -> None:
    """Oracle: hashes of the batches without them; all tokens of the sample are train text."""
    options: dict[str, Any] = {"steps": 2, "cache": tmp_path, "progress": lambda *_: None}
    plain = prepare(WORKLOAD, [1], **options)
    sampled = prepare(WORKLOAD, [1], train_batches=3, **options)
    little = prepare({**WORKLOAD, "train_tokens": 1000}, [1], train_batches=3, **options)

    assert plain.train_sample is None
    assert sampled.batches == plain.batches
    assert sampled.evaluation == little.evaluation == plain.evaluation
    assert little.batches != plain.batches
    assert little.train_tokens == 1000
    assert little.tokenizer_sha256 == plain.tokenizer_sha256
    assert sampled.train_sample is not None
    assert sampled.train_sample != sampled.evaluation
    ids = np.load(Path(sampled.train_sample["folder"]) / "input_ids.npy")
    assert ids.shape == (3, 4, 32)
    again = prepare({**WORKLOAD, "train_tokens": 1000}, [2], train_batches=3, **options)
    assert again.train_sample == little.train_sample, "the same for every seed"
