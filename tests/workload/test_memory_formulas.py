"""Formulas of memory against what autograd saves, and against figures by hand."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bertopt_bench.workload import activation_memory, formulas, memory_formulas
from bertopt_bench.workload.filling import Filled
from bertopt_bench.workload.memory_formulas import memory_forecast, memory_forecast_bytes
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM, initialise

VOCABULARY, SEQUENCES, LENGTH, MASKED = 512, 4, 32, 20
HIDDEN, HEADS = 64, 4


def size_of(layers: int) -> formulas.ModelSize:
    return formulas.ModelSize(hidden=HIDDEN, layers=layers, heads=HEADS, intermediate=4 * HIDDEN)


def saved_bytes(layers: int, precision: str, backend: SDPBackend | None, dropout: float) -> int:
    """Count what autograd saves in one forward pass, each storage once, parameters left out."""
    config = BertConfig(VOCABULARY, size_of(layers), dropout=dropout, attention_dropout=dropout)
    model = BertForMaskedLM(config)
    initialise(model, torch.Generator().manual_seed(0))
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # so that no address comes twice
        return tensor

    ids = torch.randint(5, VOCABULARY, (SEQUENCES, LENGTH), dtype=torch.int32)
    mask = (torch.arange(LENGTH) < 20).expand(SEQUENCES, 1, 1, LENGTH)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    forced = nullcontext() if backend is None else sdpa_kernel(backend)
    with autocast, forced, hooks:
        model(ids, mask, torch.arange(MASKED))
    return sum(seen.values())


def step(precision: str = "fp32", **changed: Any) -> activation_memory.Step:
    """Give what the formulas read of the model above."""
    fields: dict[str, Any] = {
        "size": size_of(2),
        "vocabulary": VOCABULARY,
        "slots": SEQUENCES * LENGTH,
        "masked": MASKED,
        "pairs": SEQUENCES * LENGTH**2,
        "pairs_at_once": SEQUENCES * LENGTH**2,
        "weight": 4,
        "compute": 2 if precision == "bf16" else 4,
        "cuda": False,
        "attention": "default",
        "reduced": False,
        "dropout": False,
        "attention_dropout": False,
        "smoothing": False,
        "gradients_early": False,
        "gradients_stay": False,
    }
    return activation_memory.Step(**{**fields, **changed})


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("attention", ["default", "math"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_layers_activations_are_what_autograd_saves(
    precision: str, attention: str, dropout: float
) -> None:
    """Oracle: saved_tensors_hooks, the difference of three layers and two."""
    backend = SDPBackend.MATH if attention == "math" else None
    count = partial(saved_bytes, precision=precision, backend=backend, dropout=dropout)
    kept = activation_memory.activations(
        step(precision, attention=attention, dropout=dropout > 0, attention_dropout=dropout > 0)
    )

    assert count(3) - count(2) == pytest.approx(kept.layer, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_lies_around_the_layers_is_what_autograd_saves(precision: str) -> None:
    """Oracle: saved_tensors_hooks, two layers without those of two; the loss is not asked for."""
    count = partial(saved_bytes, precision=precision, backend=None, dropout=0.0)
    kept = activation_memory.activations(step(precision))

    around = count(2) - 2 * (count(3) - count(2))
    assert around == pytest.approx(kept.embedding + kept.head, rel=0.02)


def test_a_layer_in_numbers_by_hand() -> None:
    """Oracle: workload.md 4.3: 16 sbh numbers, of four bytes each, and figures of the norms."""
    kept = activation_memory.activations(step())
    statistics = 4 * (2 * 2 + HEADS)  # mean and deviation of two norms, one figure a head

    assert kept.layer == SEQUENCES * LENGTH * (64 * HIDDEN + statistics)


def cell(optimizer: str, way: str = "loop", **workload: object) -> dict[str, Any]:
    """Give as much of a cell as a forecast looks at."""
    return {
        "workload": {
            "model": "base",
            "vocabulary_size": 30_522,
            "seq_len": 8,
            "batch_size": 1,
            "micro_batches": 1,
            "mask_rate": 0.15,
            "position_embedding": "learned",
            **workload,
        },
        "optimizer": {"name": optimizer},
        "regularizer": [{"name": "none"}],
        "precision": {"name": "fp32"},
        "device": {"name": "cpu"},
        "kernel": {"attention": {"name": "default"}, "optimizer_step": {"name": way}},
    }


PARAMETERS = 109_514_298  # of base (transformers)
WORDS = 30_522 * 768


def test_the_forecast_counts_weights_gradients_and_state() -> None:
    """Oracle: by hand: of one short sequence AdamW takes 16 bytes a parameter, SGD 8.

    Besides, the words' gradient waits in two shares, the decoder's and the embeddings'.
    """
    for optimizer, way, each in (("adamw", "fused", 16), ("sgd", "loop", 8)):
        forecast = memory_forecast_bytes(cell(optimizer, way))
        assert forecast == pytest.approx(each * PARAMETERS + 2 * 4 * WORDS, rel=0.01)


@pytest.mark.parametrize(
    ("optimizer", "way", "numbers"),
    [
        ("nadam", "loop", 2 * WORDS),  # a quotient and its root, of the largest weight
        ("adamw", "loop", 2 * WORDS),  # the root and the denominator
        ("adamw", "foreach", 12 * 12 * 768**2),  # a root of every encoder matrix
        ("lion", "default", 12 * 12 * 768**2),
        ("adagrad", "foreach", 2 * 12 * 12 * 768**2),
        ("ademamix", "default", 2 * 12 * 12 * 768**2),  # its denominators and its updates
    ],
)
def test_what_a_step_makes_besides(optimizer: str, way: str, numbers: int) -> None:
    """Oracle: counts by hand from torch.optim's and pytorch-optimizer's sources."""
    in_16_bits = {**cell(optimizer, way), "precision": {"name": "bf16"}}
    found = memory_forecast(in_16_bits)

    assert found.moment == "optimizer"
    assert found.peak.temporary_bytes == 4 * numbers
    assert found.peak.gradient_bytes == 4 * PARAMETERS


def test_muon_keeps_one_moment_of_matrices_and_two_of_the_rest() -> None:
    """Oracle: 12 h h numbers a layer lose a moment."""
    states = [memory_forecast(cell(name)).peak.optimizer_state_bytes for name in ("adamw", "muon")]

    assert states[0] - states[1] == 4 * 12 * 12 * 768**2


def test_parts_sum_to_the_peak_and_none_exceeds_its_own_most() -> None:
    """Oracle: the sum itself."""
    found = memory_forecast(cell("adamw", batch_size=64, seq_len=128))

    assert found.moment in {"forward", "backward"}
    assert (
        found.peak.total_bytes
        == found.peak_bytes
        == memory_forecast_bytes(cell("adamw", batch_size=64, seq_len=128))
    )
    assert found.peak.activation_bytes <= found.largest.activation_bytes
    assert found.peak.gradient_bytes < found.largest.gradient_bytes == 4 * PARAMETERS


def kernels(**operations: str) -> dict[str, Any]:
    """Give base on 32 sequences of 512 slots, 76 of them masked, with these kernels."""
    plain = cell("adamw", batch_size=32, seq_len=512)
    chosen = {operation: {"name": name} for operation, name in operations.items()}
    return {**plain, "kernel": {**plain["kernel"], **chosen}}


@pytest.mark.parametrize(("precision", "numbers"), [("fp32", 4 + 2 * 4 * 4), ("bf16", 4 + 16)])
def test_gelus_backward_pass_makes_its_inputs_gradient_beside_its_results(
    precision: str, numbers: int
) -> None:
    """Oracle: by hand: two of 4 h numbers a slot beside the residual path's gradient, of h."""
    one = step(precision)
    found = memory_formulas.layer_moments(one, activation_memory.activations(one))

    assert found["gelu"].temporary == SEQUENCES * LENGTH * HIDDEN * numbers
    assert found["gelu"].activations > found["feed_forward"].activations


def test_math_attention_in_16_bits_holds_the_most_in_the_forward_pass() -> None:
    """Oracle: by hand, a slot: h numbers of four bytes, 3 h of two, 4 h widened, scores, a mask."""
    one = step("bf16", attention="math")
    kept = activation_memory.activations(one)
    found = memory_formulas.attention_moments(one, kept, kept.body(2))["forward:attention"]

    slot = HIDDEN * (4 + 3 * 2 + 4 * 4) + HEADS * LENGTH * (4 + 1)
    assert found.temporary == SEQUENCES * LENGTH * slot
    assert found.activations < kept.body(2)


def test_recomputed_layers_keep_their_inputs_and_one_is_run_again() -> None:
    """Oracle: by hand: 12 inputs of h numbers a slot; again 64 h bytes, without the input's 4 h."""
    size = formulas.model_size("base")
    again = activation_memory.activations(step(size=size, recomputes=True))
    usual = activation_memory.activations(step(size=size))
    slots, statistics = SEQUENCES * LENGTH, 4 * (2 * 2 + 12)

    assert again.body(12) - again.embedding == slots * 4 * 12 * 768
    assert again.again == slots * (60 * 768 + statistics)
    assert usual.body(12) - again.body(12) == 12 * again.again
    found, plain = memory_forecast(kernels(checkpointing="layers")), memory_forecast(kernels())
    assert found.peak_bytes < plain.peak_bytes / 3
    assert found.peak.temporary_bytes > plain.peak.temporary_bytes


def test_in_16_bits_a_layer_run_again_casts_its_input_and_its_weights_again() -> None:
    """Oracle: by hand: what a plain layer keeps, 16-bit copies included, is made as a whole."""
    again = activation_memory.activations(step("bf16", recomputes=True))

    assert again.again == activation_memory.activations(step("bf16")).layer
    assert again.layer == SEQUENCES * LENGTH * 4 * HIDDEN


def test_a_layout_leaves_out_the_masked_slots_that_are_padding() -> None:
    """Oracle: by hand: 8 sequences of 9 masked slots in 64; 3 of 8 slots, so of these, are none.

    Seen in a trial: 162 head slots by 4,096 logits where 304 had been counted.
    """
    of = activation_memory.Step.of
    ragged, padded = (
        cell("adamw", layout=name, seq_len=64, batch_size=8) for name in ("unpadded", "padded")
    )

    filled = Filled(slots=0.75, real=0.625, pairs=0.5, at_once=0.125)
    pairs = 8 * 64 * 64

    assert (of(padded, filled).slots, of(padded, filled).masked) == (512, 72)
    assert (of(ragged, filled).slots, of(ragged, filled).masked) == (384, 45)
    assert (of(padded, filled).pairs, of(padded, filled).pairs_at_once) == (pairs, pairs)
    assert (of(ragged, filled).pairs, of(ragged, filled).pairs_at_once) == (pairs / 2, pairs / 8)


@pytest.mark.parametrize(("layout", "share"), [("packed", 0.75), ("unpadded", 1.0)])
def test_attention_over_whole_rows_looks_at_all_their_slots(layout: str, share: float) -> None:
    """Oracle: `workload.ragged`: packed rows are attended to whole, unpadded ones padded again."""
    one = cell("adamw", layout=layout, seq_len=64, batch_size=8)
    one["kernel"]["compile"] = {"name": "default"}
    step = activation_memory.Step.of(one, Filled(slots=0.75, real=0.7, pairs=0.5, at_once=0.1))

    assert step.slots == 0.75 * 512
    assert step.pairs == step.pairs_at_once == share * 8 * 64 * 64


U = 4 * 32 * 512 * 768
"""Hidden states of the cells below, in fp32; a feed-forward product is four of them."""
SCORES = 4 * 12 * 32 * 512**2
CAST = 2 * 2 * 768 * 3072


def compiled(by: str = "default", **changed: Any) -> dict[str, Any]:
    """Give an inference cell of base, 32 x 512, with few logits; ``changed`` are names of axes."""
    sizes = {"vocabulary_size": 30, "seq_len": 512, "batch_size": 32}
    one = cell("sgd", mode="inference", layout=changed.pop("layout", "padded"), **sizes)
    one["kernel"] |= {"compile": {"name": by}, "attention": changed.pop("attention", DEFAULT)}
    return {**one, **{axis: {"name": name} for axis, name in changed.items()}}


DEFAULT, MATH = {"name": "default"}, {"name": "math"}
REDUCED = {"name": "math", "reduced": True}
PACKED = Filled(slots=0.5, real=0.5, pairs=0.2, at_once=0.1, run=0.1)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 9 * U),  # queries, keys, values, mixture and states, beside a product that waits
        ({"precision": "bf16"}, 3.5 * U + CAST),  # states, a product of f numbers and its result
        ({"attention": MATH}, U + 2 * SCORES),
        ({"attention": MATH, "precision": "bf16"}, 1.5 * U + 2 * SCORES),
        ({"attention": REDUCED, "precision": "bf16"}, 1.5 * U + 2 * SCORES),
        ({"layout": "unpadded"}, (0.5 + 1.5 + 3) * U),  # in both forms
        ({"layout": "packed"}, 2.5 * U + 17 * SCORES / 12 / 8),  # four masks and truth values
        ({"layout": "packed", "attention": MATH}, 0.5 * U + SCORES + SCORES / 12 / 8),
        ({"by": "off"}, 10 * U),
        ({"by": "mine:compiler"}, 10 * U),
    ],
    ids=str,
)
def test_a_compiled_pass(changed: dict[str, Any], expected: float) -> None:
    """Oracle: by hand, after the code that Inductor writes; half of the slots are left out."""
    found = memory_forecast_bytes(compiled(**changed), PACKED)

    assert found == 4 * (PARAMETERS - WORDS + 30 * 768 - 30_522 + 30) + expected


def test_text_of_which_nothing_is_known_is_one_run() -> None:
    """Oracle: attention's result is a tensor of its own only where there is more than one run."""
    one, part = cell("adamw", layout="unpadded", seq_len=64, batch_size=8), Filled(run=0.5)

    assert not activation_memory.Step.of(one).joined
    assert activation_memory.Step.of(one, part).joined
    assert not activation_memory.Step.of(cell("adamw"), part).joined


def test_dense_logits_are_those_of_all_slots() -> None:
    """Oracle: by hand: 436 slots more a sequence: two tensors of V numbers, and the head's 4 h.

    Two numbers of the head's norm besides; at the peak the logits and their logarithms lie there.
    """
    usual, dense = memory_forecast(kernels()), memory_forecast(kernels(mlm_loss="dense"))
    more = 32 * (512 - 76)

    assert usual.moment == dense.moment == "forward"
    assert dense.peak_bytes - usual.peak_bytes == 4 * more * (2 * 30_522 + 4 * 768 + 2)


@pytest.mark.parametrize("loss", formulas.FUSED_LOSSES)
def test_a_fused_loss_keeps_gradients_and_no_logits(loss: str) -> None:
    """Oracle: by hand: no M V logarithms are kept; of its input the gradient, the words' apart."""
    usual, fused = memory_forecast(kernels()), memory_forecast(kernels(mlm_loss=loss))

    logarithms = 4 * 32 * 76 * 30_522
    assert usual.largest.activation_bytes - fused.largest.activation_bytes == logarithms
    assert usual.peak_bytes - fused.peak_bytes > logarithms


@pytest.mark.parametrize(
    ("chosen", "rows"),
    [
        ({}, 32),  # 2432 slots by 40 = 61, up to 64, of which torch takes half in fp32
        ({"rows": 100}, 100),
        ({"rows": 10_000}, 2432),
    ],
)
def test_a_chunks_logits_are_written_in_the_forward_pass(chosen: dict[str, int], rows: int) -> None:
    """Oracle: the rule of torch's LinearCrossEntropyOptions, by hand, for SGD and no layer's peak.

    Beside all activations lie the words' gradient and a chunk's logits.
    """
    one = kernels(mlm_loss="chunked")
    one["kernel"]["mlm_loss"].update(chosen)
    kept = activation_memory.activations(activation_memory.Step.of(one))
    found = memory_formulas._fused_moments(activation_memory.Step.of(one), kept, kept.body(12))[
        "forward"
    ]

    assert found.temporary == 4 * rows * 30_522
    assert found.gradients == 4 * WORDS


def test_gradients_that_a_graph_holds_lie_there_at_the_loss() -> None:
    """Oracle: the parameters' bytes."""
    for one in (kernels(optimizer_step="capturable"), kernels(cuda_graph="step")):
        assert memory_forecast(one).peak.gradient_bytes == 4 * PARAMETERS
    assert memory_forecast(kernels()).peak.gradient_bytes == 0
