"""What a call must do at least, counted by hand; BERT's mix of tensors, counted by the model."""

from __future__ import annotations

import pytest

from bertopt_bench.trial.micro.stepping import SMALL_TENSOR, bert_shapes, shapes_of
from bertopt_bench.workload.formulas import parameter_count
from bertopt_bench.workload.operation_work import (
    FORMULAS,
    bert_like,
    buffer_bytes,
    masked_slots_of,
    operation_work,
)

SHAPES = {
    "attention": {"batch_size": 2, "heads": 3, "seq_len": 5, "head_size": 7},
    "layer_norm": {"batch_size": 2, "seq_len": 3, "hidden_size": 5},
    "gelu": {"batch_size": 2, "seq_len": 3, "hidden_size": 5},
    "mlm_loss": {
        "batch_size": 2, "seq_len": 20, "hidden_size": 5, "vocabulary_size": 11, "mask_rate": 0.15,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "direction", "moved", "computed"),
    [
        # 2*3*5*7 = 210 numbers in each of Q, K, V, O; 2 products of 2*210*5 FLOPs forwards
        ("attention", "forward", 4 * 210 * 4, 2 * 2 * 210 * 5),
        ("attention", "backward", 8 * 210 * 4, 4 * 2 * 210 * 5),
        ("attention", "both", 12 * 210 * 4, 6 * 2 * 210 * 5),
        # 30 numbers in, 30 out, weight and bias of 5
        ("layer_norm", "forward", (30 + 30 + 5 + 5) * 4, 7 * 30),
        ("layer_norm", "backward", (30 + 30 + 5 + 30 + 5 + 5) * 4, 13 * 30),
        ("gelu", "forward", (30 + 30) * 4, 5 * 30),
        ("gelu", "both", (30 + 30 + 30 + 30 + 30) * 4, (5 + 11) * 30),
        # 3 of 20 slots masked in each of 2 sequences: 6 rows; labels and indices of 8 bytes each
        ("mlm_loss", "forward", (6 * 5 + 11 * 5 + 11 + 1) * 4 + 16 * 6, 2 * 6 * 5 * 11 + 5 * 66),
        (
            "mlm_loss",
            "backward",
            (6 * 5 + 11 * 5 + 40 * 5 + 11 * 5 + 11) * 4 + 16 * 6,
            4 * 6 * 5 * 11 + 3 * 66,
        ),
    ],
)
def test_bytes_and_flops_are_those_counted_by_hand(
    operation: str, direction: str, moved: int, computed: int
) -> None:
    """Oracle: arithmetic on small shapes, tensor by tensor."""
    options = {**SHAPES[operation], "dtype": "float32", "direction": direction}
    work = operation_work(operation, options)

    assert (work.bytes, work.flops) == (moved, computed)


def test_padding_is_no_work() -> None:
    """Oracle: by hand: half padding of 5 slots are lengths of 1 (never 0) and 5: 26 pairs."""
    options = {**SHAPES["attention"], "dtype": "float32", "direction": "forward", "padding": 0.5}
    work = operation_work("attention", options)

    assert (work.bytes, work.flops) == (4 * 6 * 21 * 4, 2 * 2 * 26 * 21)


def test_a_dtype_of_half_the_size_moves_half_the_bytes() -> None:
    """Oracle: bfloat16 has two bytes where float32 has four; FLOPs stay."""
    options = {**SHAPES["gelu"], "direction": "both"}
    wide = operation_work("gelu", {**options, "dtype": "float32"})
    narrow = operation_work("gelu", {**options, "dtype": "bfloat16"})

    assert narrow.bytes * 2 == wide.bytes
    assert narrow.flops == wide.flops


def test_an_adamw_step_moves_28_bytes_a_parameter() -> None:
    """Oracle: four arrays read and three written, four bytes each."""
    work = operation_work("optimizer_step", {"dtype": "float32"}, parameters=1000)

    assert work.bytes == 28_000
    assert "7 P e" in work.bytes_formula


def test_every_formula_is_stated() -> None:
    """Oracle: each direction of each operation has both texts, and both name both parts."""
    for operation, directions in FORMULAS.items():
        for moved, computed in directions.values():
            assert "read" in moved, operation
            assert computed[0].isdigit()
    both = operation_work("gelu", {**SHAPES["gelu"], "dtype": "float32", "direction": "both"})

    assert both.bytes_formula.count("B L H") == 2


def test_masked_slots_are_the_same_in_every_sequence_and_never_none() -> None:
    """Oracle: 15 % of 20 are 3; of 2 slots one."""
    assert masked_slots_of(SHAPES["mlm_loss"]) == 6
    assert masked_slots_of({"batch_size": 4, "seq_len": 2, "mask_rate": 0.15}) == 4


def test_the_bert_mix_has_berts_tensors_and_the_others_as_many_parameters() -> None:
    """Oracle: the parameter formula, which its own tests hold against the model; base has ~200."""
    options = {"hidden_size": 64}
    size, vocabulary = bert_like(64)
    total = parameter_count(size, vocabulary=vocabulary)
    shapes = shapes_of({**options, "mix": "bert"})

    assert sum(shape.numel() for shape in shapes) == total
    assert 195 <= len(shapes) <= 210
    assert [shape.numel() for shape in shapes_of({**options, "mix": "flat"})] == [total]
    small = [shape.numel() for shape in shapes_of({**options, "mix": "small"})]
    assert sum(small) == total
    assert set(small[:-1]) == {SMALL_TENSOR}


def test_at_768_the_mix_is_bert_base() -> None:
    """Oracle: Devlin et al.: 30,522 words, 110 million parameters."""
    size, vocabulary = bert_like(768)

    assert (vocabulary, size.layers, size.intermediate) == (30_522, 12, 3072)
    assert 109e6 < sum(shape.numel() for shape in bert_shapes(768)) < 111e6


def test_buffers_are_inputs_and_the_gradient_that_comes_in() -> None:
    """Oracle: by hand: Q, K, V and dO; four arrays of an optimizer."""
    options = {**SHAPES["attention"], "dtype": "float32"}

    assert buffer_bytes("attention", options) == 4 * 210 * 4
    assert buffer_bytes("optimizer_step", {"dtype": "float32"}, 10) == 160
