"""How a trial computes the summed loss of a micro-batch: one function for each kind of MLM loss.

Shapes: M masked slots of the micro-batch, T all its slots, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertopt_bench.workload.masking import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from bertopt_bench.trial.batches import Batch
    from bertopt_bench.trial.live import Trial


def gathered(trial: Trial, batch: Batch) -> Tensor:
    """Write the logits [M, V] of the masked slots and sum their cross entropy."""
    return trial.criterion(trial.logits(batch), batch.labels, label_smoothing=trial.label_smoothing)


def all_slots(trial: Trial, batch: Batch) -> Tensor:
    """Write the logits [T, V] of every slot; those without a label count for nothing."""
    logits = trial.run(trial.compiled, batch, None)
    labels = spread_labels(batch, len(logits))
    return trial.criterion(logits, labels, label_smoothing=trial.label_smoothing)


def within_the_model(trial: Trial, batch: Batch) -> Tensor:
    """Let the model's own loss compute decoder and cross entropy together."""
    return trial.run(trial.compiled, batch, batch.masked_index, labels=batch.labels)


def spread_labels(batch: Batch, slots: int) -> Tensor:
    """Put the labels [M] where they belong among all slots [T], -100 elsewhere.

    Unused places of M point at a slot that is never masked ([CLS]) and carry -100 there.
    """
    spread = batch.labels.new_full((slots,), IGNORED)
    return spread.scatter_(0, batch.masked_index.long(), batch.labels)
