"""What a BERT's traced step is made of: its products against the formula of its model FLOPs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sized_trials import VOCABULARY, Sized, live

from bertopt_bench.measure.operation_sums import StepSpans
from bertopt_bench.measure.traces import Node
from bertopt_bench.results.record_parts import Operations
from bertopt_bench.trial import passes
from bertopt_bench.trial.operations import kind_of, operations_record
from bertopt_bench.workload import formulas

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.results.record_parts import OperationKind

NO_SHAPES = {"shapes": [], "types": []}
PRODUCT = {"shapes": [[8, 4], [4, 2]], "types": ["float", "float"]}


def operations(folder: Path, sized: Sized) -> tuple[dict[str, OperationKind], int]:
    """Trace a trial's step as the worker does; give its kinds and its model FLOPs."""
    trial = live(folder, sized)
    trial.step(0)
    traced, _ = passes.trace(trial)
    found = Operations.model_validate(operations_record(trial, traced.spans))
    flops = formulas.mean_flops(
        formulas.model_size(sized.model),
        vocabulary=VOCABULARY,
        slots=trial.batches.slot_tokens[1:2],
        pairs=trial.batches.attended_pairs[1:2],
        masked=trial.batches.head_slots[1:2],
    )
    trial.close()
    return {one.kind: one for one in found.kinds}, flops


@pytest.mark.parametrize("name", ["torch_attn::_varlen_attn", "aten::_flash_attention_forward"])
def test_attention_by_borders_is_attention(name: str) -> None:
    """Oracle: the operators' names in torch 2.13, nn/attention/varlen.py and its native ones."""
    assert kind_of(name, [[40, 2, 64]] * 3, vocabulary=4096, sizes=(128, 512)) == "attention"


@pytest.mark.parametrize("sized", [Sized(), Sized(precision="bf16", micro_batches=2)], ids=str)
def test_products_are_the_models_flops(tmp_path: Path, sized: Sized) -> None:
    """Oracle: model FLOPs by formula; fused attention's backward pass computes a product again.

    Of attention two products of seven forward, five backward, where the formula counts six.
    """
    kinds, flops = operations(tmp_path, sized)
    attention = kinds["attention"].flops * 6 / 7
    found = kinds["linear"].flops + attention + kinds["mlm_loss"].flops

    assert found == pytest.approx(flops, rel=2e-3)  # the loss' own exponentials besides
    assert kinds.keys() == {
        "linear", "attention", "layer_norm", "gelu", "mlm_loss", "optimizer", "other",
    }  # fmt: skip


def test_an_update_is_counted_by_formula_or_not_at_all(tmp_path: Path) -> None:
    """Oracle: AdamW's 7 numbers of 4 bytes and 14 FLOPs a weight; Muon has no count, but a time."""
    parameters = formulas.parameter_count(formulas.model_size("tiny"), vocabulary=VOCABULARY)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    update = operations(tmp_path / "a", Sized())[0]["optimizer"]
    muon = operations(tmp_path / "b", Sized(optimizer="muon"))[0]["optimizer"]

    assert (update.bytes, update.flops) == (28 * parameters, 14 * parameters)
    assert update.counted_seconds == update.seconds
    assert (muon.bytes, muon.counted_seconds) == (0, 0)
    assert muon.seconds > 0


def test_an_update_that_shows_no_operator_has_no_row(tmp_path: Path) -> None:
    """Oracle: a range on a device that launched nothing itself, as where a graph is replayed."""
    trial = live(tmp_path, Sized())
    step = Node("Optimizer.step#AdamW.step", "user_annotation", (0, 1), 0.0, 0.5, NO_SHAPES)
    product = Node("aten::mm", "cpu_op", (0, 1), 0.5, 0.6, PRODUCT)
    spans = StepSpans(1.0, [step, product], {id(product): 0.25}, on_device=True)

    record = operations_record(trial, spans)

    assert [(row["kind"], row["seconds"]) for row in record["kinds"]] == [("linear", 0.25)]


@pytest.mark.parametrize(
    ("name", "shapes", "kind"),
    [
        ("aten::mm", [[96, 128], [128, 64]], "linear"),
        ("aten::mm", [[4096, 96], [96, 128]], "mlm_loss"),
        ("aten::addmm", [[512], [96, 128], [128, 512]], "linear"),
        ("aten::bmm", [[8, 64, 64], [8, 64, 32]], "attention"),
        ("autograd::engine::evaluate_function: NativeLayerNormBackward0", [], "layer_norm"),
        ("GeluBackward0", [], "gelu"),
        ("_CrossEntropyBackward", [], "mlm_loss"),
        ("aten::mul_", [[96, 4096], [96, 1]], "mlm_loss"),
        ("aten::add_", [[4096, 128], [4096, 128]], ""),  # the words' gradient
        ("aten::native_dropout", [[96, 128]], ""),
    ],
)
def test_an_operator_is_known_by_its_name_and_shapes(
    name: str, shapes: list[list[int]], kind: str
) -> None:
    """Oracle: by hand, of a model of 128 and 512 with 4,096 words."""
    assert kind_of(name, shapes, vocabulary=4096, sizes=(128, 512, 64)) == kind


def test_a_vocabulary_as_large_as_a_layer_tells_no_decoder() -> None:
    """Oracle: the docstring: such a decoder counts as linear."""
    assert kind_of("aten::mm", [[9, 512]], vocabulary=512, sizes=(128, 512, 64)) == "linear"
