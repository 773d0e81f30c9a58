"""Count parameters and FLOPs of a classifier and forecast its bytes, without torch.

Letters as in ``workload.formulas``; B texts a batch, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.workload import formulas

if TYPE_CHECKING:
    from collections.abc import Mapping

CLASSIFICATION = "classification"
"""The name of a classifier's workload."""

USUAL_CLASSES = 20
"""Taken before the data are read: a head of so few rows does not matter beside the encoder."""
EVALUATION_BATCHES = 20
"""Taken for an evaluation before the data are read, the test part included."""
PRETRAINED_VOCABULARY = 30_522
"""Of BERT's own uncased vocabulary, and of nearly every checkpoint made after it."""


def is_classification(cell: Mapping[str, Any]) -> bool:
    """Say whether a canonical cell trains a classifier."""
    return bool(cell["workload"].get("name") == CLASSIFICATION)


def vocabulary_size(workload: Mapping[str, Any]) -> int:
    """Give the size of the vocabulary as far as a plan can know it."""
    size: int = workload.get("vocabulary_size", PRETRAINED_VOCABULARY)
    return size


def parameter_count(workload: Mapping[str, Any], *, vocabulary: int, classes: int) -> int:
    """Count the trainable parameters: embeddings, layers, perhaps a pooler, ``hC + C``."""
    size = formulas.model_size(workload["model"])
    encoder = formulas.parameter_count(
        size,
        vocabulary=vocabulary,
        position_embedding=workload["position_embedding"],
        pooler=workload["pooling"] == "cls",
        mlm=False,
    )
    return encoder + size.hidden * classes + classes


def forward_flops(workload: Mapping[str, Any], *, classes: int) -> int:
    """Count a forward pass: the encoder's, ``2Bhh`` for a pooler, ``2BhC`` for the head."""
    size = formulas.model_size(workload["model"])
    batch: int = workload["batch_size"]
    encoder = formulas.forward_flops(
        size, vocabulary=0, batch=batch, seq_len=workload["seq_len"], masked=0
    )
    pooler = 2 * batch * size.hidden**2 if workload["pooling"] == "cls" else 0
    return encoder + pooler + 2 * batch * size.hidden * classes


def step_flops(cell: Mapping[str, Any]) -> tuple[int, int]:
    """Count a training step's model FLOPs, and what it computes, before the data are read."""
    forward = forward_flops(cell["workload"], classes=USUAL_CLASSES)
    flops = formulas.TRAIN_FACTOR * forward
    return flops, flops + (forward if formulas.recomputes_layers(cell) else 0)


def as_mlm(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Give the MLM cell whose encoder is this classifier's, which forecasts of bytes stand on."""
    workload = cell["workload"]
    mlm = {"name": "mlm", "mask_rate": 0.15, "vocabulary_size": vocabulary_size(workload)}
    return {**cell, "workload": {**workload, **mlm}}
