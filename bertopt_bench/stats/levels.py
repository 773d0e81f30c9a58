"""Which columns of a table of trials are axes, and which of their levels are the usual ones."""

from __future__ import annotations

from bertopt_bench.matrix.choices import DEFAULTS

WORKLOAD_AXES = (
    "workload",
    "mode",
    "model",
    "corpus",
    "dataset",
    "weights",
    "tokenizer",
    "pooling",
    "criterion",
    "class_weights",
    "vocabulary_size",
    "seq_len",
    "batch_size",
    "micro_batches",
    "steps",
    "position_embedding",
    "mask_rate",
    "evaluate_every",
    "evaluation_batches",
    "held_out_fraction",
    "held_out_part",
    "lower_case",
    "layout",
    "next_sentence",
    "train_tokens",
)
CHOICE_AXES = ("optimizer", "schedule", "regularizer", "precision", "device", "parallelism")
USUAL_LEVELS = {
    **DEFAULTS,
    "mode": "training",
    "parallelism": "single",
    "model": "tiny",
    "corpus": "python_docs",
    "dataset": "reuters_r8",
    "weights": "random",
    "pooling": "mean",
    "criterion": "cross_entropy",
    "class_weights": "none",
    "position_embedding": "learned",
    "held_out_part": "all",
    "layout": "padded",
    "next_sentence": "false",
    "train_tokens": "0",
}
"""What a matrix means when it is silent: the level that others are compared with."""
