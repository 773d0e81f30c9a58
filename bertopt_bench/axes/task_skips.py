"""Skip rules of tasks: what a classifier does not have, or was not built for (``axes.skips``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.asking import kernel_name, layout_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    Cell = Mapping[str, Any]
    Capabilities = Mapping[str, Any]

CLASSIFICATION = "classification"
_PRETRAINED = ("minilm", "checkpoint:")


def classifier_infers_nothing(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip inference of a classifier, which is not built."""
    if not _classifies(cell) or cell["workload"].get("mode") != "inference":
        return None
    return "inference mode runs the MLM workload only: a classifier trains"


def classifier_is_padded(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip other layouts than padded for a classifier, whose pooling reads rows."""
    layout = layout_of(cell)
    if not _classifies(cell) or layout == "padded":
        return None
    return f"layout {layout} is of the MLM workload: a classifier pools padded rows"


def classifier_has_no_mlm_loss(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip kernels of the MLM loss for a classifier, which has none."""
    name = kernel_name(cell, "mlm_loss")
    if not _classifies(cell) or name in {None, "sparse"}:
        return None
    return f"mlm_loss {name} does not apply: a classifier has no MLM loss"


def classifier_is_not_captured(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip the graph of a whole step for a classifier, which is not built."""
    name = kernel_name(cell, "cuda_graph")
    if not _classifies(cell) or name in {None, "off"}:
        return None
    return "cuda_graph captures steps of the MLM workload only"


def weights_of_another_tokenizer(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip pretrained weights with another tokenizer than theirs: every word would be another."""
    workload = cell["workload"]
    if not _pretrained(cell) or workload["tokenizer"] == workload["weights"]:
        return None
    return (
        f"weights {workload['weights']} were trained with their own tokenizer, not with "
        f"{workload['tokenizer']}: set tokenizer = 'own'"
    )


def weights_of_another_model(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip pretrained weights in a model of other sizes or positions."""
    if not _pretrained(cell):
        return None
    workload = cell["workload"]
    if workload["position_embedding"] != "learned":
        return f"weights {workload['weights']} have learned positions"
    model = workload["model"]
    if workload["weights"] == "minilm" and isinstance(model, str) and model != "minilm":
        return f"weights minilm do not fit model {model}: set model = 'minilm'"
    return None


def _classifies(cell: Cell) -> bool:
    return bool(cell["workload"].get("name") == CLASSIFICATION)


def _pretrained(cell: Cell) -> bool:
    return _classifies(cell) and str(cell["workload"]["weights"]).startswith(_PRETRAINED)
