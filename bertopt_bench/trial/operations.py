"""Say what kinds of operation a BERT's step is made of, and give a traced step's record of them."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.measure.operation_sums import OPTIMIZER, OTHER
from bertopt_bench.workload import formulas
from bertopt_bench.workload.optimizer_work import step_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.measure.operation_sums import OperationSum, StepSpans
    from bertopt_bench.trial.live import Trial

KINDS = ("linear", "attention", "layer_norm", "gelu", "mlm_loss", OPTIMIZER, OTHER)
_NAMED = {
    "attention": (
        "scaled_dot_product", "ScaledDotProduct", "flash_attn", "flex_attention",
        "_flash_attention", "varlen_attn",
    ),
    "layer_norm": ("layer_norm", "LayerNorm"),
    "gelu": ("gelu", "Gelu"),
    "mlm_loss": (
        "CrossEntropy", "cross_entropy", "log_softmax", "LogSoftmax", "nll_loss", "NllLoss",
    ),
}  # fmt: skip
"""Parts of the names of operators and of autograd's nodes."""
_PRODUCTS = ("aten::mm", "aten::addmm")
_BATCHED = ("aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::_softmax_backward_data")


def kind_of(name: str, shapes: Sequence[Any], *, vocabulary: int, sizes: Sequence[int]) -> str:
    """Give an operator's kind, or an empty text where it has none of its own.

    The decoder is known by the vocabulary among its shapes, so only where no other of the model's
    ``sizes`` is as large; else it counts as linear.

    >>> kind_of("aten::mm", [[40, 128], [128, 4096]], vocabulary=4096, sizes=(128, 512))
    'mlm_loss'
    """
    for kind, parts in _NAMED.items():
        if any(part in name for part in parts):
            return kind
    known = vocabulary not in sizes
    if name in _PRODUCTS:
        return "mlm_loss" if known and any(vocabulary in shape for shape in shapes) else "linear"
    if name in _BATCHED:
        return "attention"
    logits = known and any(len(shape) == 2 and shape[-1] == vocabulary for shape in shapes)
    return "mlm_loss" if logits and name.startswith("aten::") else ""


def operations_record(trial: Trial, spans: StepSpans) -> dict[str, Any]:
    """Give the record's ``operations``: a traced step's seconds, and its sums by kind.

    The optimizer's FLOPs and bytes are the least that its update needs, where that is known. An
    update that was replayed as a CUDA graph shows no operator: it has no row, and is not 0 seconds.
    """
    workload = trial.cell["workload"]
    size = formulas.model_size(workload["model"])
    vocabulary = trial.model.get_parameter("bert.embeddings.word_embeddings.weight").shape[0]
    classify = partial(
        kind_of, vocabulary=vocabulary, sizes=(size.hidden, size.intermediate, workload["seq_len"])
    )
    sums = spans.sums(classify)
    if OPTIMIZER in sums and not sums[OPTIMIZER].seconds:
        del sums[OPTIMIZER]
    if OPTIMIZER in sums and not is_inference(trial.cell):
        _count_update(trial, sums[OPTIMIZER])
    kinds = [{"kind": kind, **asdict(sums[kind])} for kind in KINDS if kind in sums]
    return {"step_seconds": spans.seconds, "kinds": kinds}


def _count_update(trial: Trial, found: OperationSum) -> None:
    count = step_count(trial.cell["optimizer"])
    if count is None:
        return
    weights = [p for group in trial.groups for p in group["params"]]
    found.calls, found.counted_seconds = 1, found.seconds
    found.flops = float(count.flops * sum(p.numel() for p in weights))
    found.bytes = float(count.words * sum(p.numel() * p.element_size() for p in weights))
