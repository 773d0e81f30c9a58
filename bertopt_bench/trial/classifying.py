"""A classifier's trial: its batches, its model from a cell, its evaluations, its test at the end.

Shapes: N batches, B sequences a batch, b a micro-batch, S slots, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bertopt_bench.trial.live import Evaluation, Trial
from bertopt_bench.workload import classification_metrics, classifier_formulas
from bertopt_bench.workload.classifier import BertForClassification, summed_loss, weight_sums
from bertopt_bench.workload.filling import WHOLE, Filled
from bertopt_bench.workload.formulas import TRAIN_FACTOR, model_size
from bertopt_bench.workload.labelled import NO_LABEL
from bertopt_bench.workload.model import BertConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """One micro-batch.

    ``input_ids`` is [b, S] int32, ``attention_mask`` [b, 1, 1, S] bool or None where nothing is
    padded, ``labels`` [b] int64 (-100: a row that fills the last batch up).
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    labels: Tensor
    masked_index: None = None
    first_index: None = None


class LabelledBatches:
    """The batches of one seed, of validation or of test, in order; attributes as ``Batches`` has.

    ``masked_tokens`` are what the loss is a mean over: texts, one label each.
    """

    def __init__(self, folder: Path, device: torch.device, micro_batches: int = 1) -> None:
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="c")
            for name in ("input_ids", "lengths", "labels")
        }
        self.count, batch_size, seq_len = arrays["input_ids"].shape
        self.micro_batches, self.micro_size = micro_batches, batch_size // micro_batches
        real = arrays["labels"] != NO_LABEL
        self.masked_tokens: list[int] = real.sum(axis=1).tolist()
        self.real_tokens: list[int] = (arrays["lengths"] * real).sum(axis=1).tolist()
        self.slot_tokens = [batch_size * seq_len] * self.count
        self.head_slots = [batch_size] * self.count
        self.attended_pairs = [batch_size * seq_len * seq_len] * self.count
        placed = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        self.labels = placed["labels"]
        self._input_ids = placed["input_ids"]
        padded = bool((arrays["lengths"] < seq_len).any())
        self._lengths = placed["lengths"] if padded else None
        self._positions = torch.arange(seq_len, dtype=torch.int32, device=device)

    def filled(self, _: int) -> Filled:
        """Give what a batch computes of a padded micro-batch: all of it."""
        return WHOLE

    def at(self, index: int, micro: int = 0) -> LabelledBatch:
        """Give micro-batch ``micro`` of batch ``index``; no copy on CPU, no host sync on CUDA."""
        rows = slice(micro * self.micro_size, (micro + 1) * self.micro_size)
        mask = None
        if self._lengths is not None:
            mask = (self._positions < self._lengths[index, rows][:, None])[:, None, None, :]
        return LabelledBatch(self._input_ids[index, rows], mask, self.labels[index, rows])


@dataclass(slots=True, kw_only=True)
class Classified(Evaluation):
    """A part looked at: mean unweighted loss and accuracy, and what all measures follow from.

    ``confusion`` has true classes as rows; ``calibration`` is ``classification_metrics``'.
    """

    confusion: list[list[int]]
    calibration: list[dict[str, Any]]


class ClassifyingTrial(Trial):
    """A trial whose loss is a mean over texts, weighted by class where that is asked for."""

    diverged_factor = math.inf
    """A mean over few texts may be high for a batch: only a loss not finite has diverged."""
    divisors: list[float]
    test_batches: LabelledBatches
    classes: int

    def forward(self, batch: Any, index: int) -> Tensor:
        """Give the criterion of a micro-batch: its summed loss by the step's sum of weights."""
        return self.summed_loss(self, batch) / self.divisors[index]

    def evaluate(self) -> Classified:
        """Evaluate on the validation part: no dropout, no penalty, no weights, averaged model."""
        batches: Any = self.held_out
        return self.look_at(batches)

    @torch.no_grad()
    def look_at(self, batches: LabelledBatches) -> Classified:
        """Evaluate on all batches of a part; one sync at the end."""
        self.model.eval()
        found = []
        with self.regularizers.eval_weights():
            for index in range(batches.count):
                for micro in range(batches.micro_batches):
                    batch: Any = batches.at(index, micro)
                    found.append(self.logits(batch).to(torch.float32, copy=True))
        self.model.train()
        logits, labels = torch.cat(found).cpu(), batches.labels.cpu().flatten()
        real = labels != NO_LABEL
        return _classified(logits[real], labels[real], self.classes)


def _classified(logits: Tensor, labels: Tensor, classes: int) -> Classified:
    """Summarise logits [n, C] of texts with labels [n]."""
    loss = torch.nn.functional.cross_entropy(logits.double(), labels)
    confidences, predictions = torch.softmax(logits.double(), dim=-1).max(dim=-1)
    correct = predictions == labels
    confusion = classification_metrics.confusion_matrix(
        labels.numpy(), predictions.numpy(), classes
    )
    return Classified(
        loss=loss.item(),
        masked_accuracy=correct.double().mean().item(),
        confusion=confusion.tolist(),
        calibration=classification_metrics.calibration(confidences.numpy(), correct.numpy()),
    )


def build_model(
    cell: Mapping[str, Any],
    text: Mapping[str, Any],
    options: Mapping[str, Any],
    replaced: Mapping[str, Any],
) -> BertForClassification:
    """Build the network of a cell; ``replaced`` are the kernels that its operations call."""
    workload = cell["workload"]
    config = BertConfig(
        vocabulary_size=text["vocabulary_size"],
        size=model_size(workload["model"]),
        position_embedding=workload["position_embedding"],
        pooler=workload["pooling"] == "cls",
        **options,
    )
    kept = {name: value for name, value in replaced.items() if name != "mlm_loss"}
    return BertForClassification(config, len(text["classes"]), pooling=workload["pooling"], **kept)


def load_weights(model: torch.nn.Module, text: Mapping[str, Any]) -> None:
    """Put pretrained weights into the encoder, where there are some; the head stays as drawn."""
    if text.get("weights_folder"):
        from bertopt_bench.workload import (
            checkpoints,  # needs safetensors, which no other trial does
        )

        checkpoints.load_encoder(model, Path(text["weights_folder"]))


def open_parts(
    text: Mapping[str, Any], seed: int, device: torch.device, micro_batches: int
) -> tuple[LabelledBatches, LabelledBatches]:
    """Open the batches of a seed, and the validation part's."""
    opened = partial(LabelledBatches, device=device, micro_batches=micro_batches)
    places = (text["batches"][str(seed)], text["evaluation"])
    train, validation = (opened(Path(place["folder"])) for place in places)
    return train, validation


def criterion_of(cell: Mapping[str, Any], text: Mapping[str, Any], device: torch.device) -> Any:
    """Give the cell's criterion with its class weights."""
    given = text["class_weights"]
    weight = None if given is None else torch.tensor(given, device=device)
    return partial(summed_loss, criterion=cell["workload"]["criterion"], weight=weight)


def complete(trial: ClassifyingTrial, text: Mapping[str, Any]) -> None:
    """Give an assembled trial what only a classifier has: its divisors and its test part."""
    given = text["class_weights"]
    weight = None if given is None else torch.tensor(given)
    labels: Any = trial.batches
    trial.divisors = weight_sums(labels.labels.cpu(), weight)
    trial.classes = len(text["classes"])
    trial.test_batches = LabelledBatches(
        Path(text["test"]["folder"]), trial.device.torch_device, trial.batches.micro_batches
    )


def classified_work(trial: Trial, request: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of a record about what the steps hold (see ``trial.work``)."""
    workload, batches, steps = request["cell"]["workload"], trial.batches, trial.steps
    classes = len(request["text"]["classes"])
    return {
        "flops_per_step": TRAIN_FACTOR
        * classifier_formulas.forward_flops(workload, classes=classes),
        "slot_tokens_per_step": batches.slot_tokens[0],
        "real_tokens": batches.real_tokens[:steps],
        "masked_tokens": batches.masked_tokens[:steps],
        "ragged": None,
    }


def take_test(trial: Trial, request: Mapping[str, Any]) -> dict[str, Any]:
    """Look at the test part, once, where the schedule has come to its end; else give nothing.

    The fields are those of ``results.record.Classification``.
    """
    whole = request["cell"]["workload"]["steps"]
    if not isinstance(trial, ClassifyingTrial) or trial.steps != whole:
        return {}
    begin = perf_counter()
    seen = trial.look_at(trial.test_batches)
    text = request["text"]
    return {
        "classification": {
            "classes": text["classes"],
            "training_counts": text["counts"]["train"],
            "test_sha256": text["test"]["sha256"],
            "weights_sha256": text["weights_sha256"],
            "loss": seen.loss,
            "accuracy": seen.masked_accuracy,
            "confusion": seen.confusion,
            "calibration": seen.calibration,
        },
        "test_seconds": perf_counter() - begin,
    }
