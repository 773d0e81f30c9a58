"""Functions in the place of torch's, and layers that the backward pass runs again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bertopt_bench.axes.kernels import checkpointing
from bertopt_bench.workload import formulas
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM, initialise

SIZE = formulas.ModelSize(hidden=32, layers=3, heads=2, intermediate=64, positions=16)
VOCABULARY, BATCH, LENGTH = 50, 4, 16
INDEX = torch.tensor([1, 5, 20, 33, 50])


def make(dropout: float = 0.0, **options: Any) -> BertForMaskedLM:
    config = BertConfig(VOCABULARY, SIZE, dropout=dropout, attention_dropout=dropout)
    model = BertForMaskedLM(config, **options)
    initialise(model, torch.Generator().manual_seed(0))
    return model


def ids() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(5, VOCABULARY, (BATCH, LENGTH), generator=generator)


def step(model: BertForMaskedLM) -> list[torch.Tensor]:
    torch.manual_seed(2)
    model(ids(), None, INDEX).square().sum().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_layers_give_the_same_gradients(dropout: float) -> None:
    """Bit for bit, dropout included; oracle: the model that keeps all. Names stay."""
    usual, again = make(dropout), make(dropout, recompute="again")

    assert list(usual.state_dict()) == list(again.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(step(usual), step(again), strict=True))


def test_recomputed_layers_keep_their_inputs_only() -> None:
    """Oracle: autograd's saved tensors of 3 layers and of 1, counted as storages."""

    def kept(recompute: str) -> int:
        model, storages = make(recompute=recompute), {}
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        alive = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                storages[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(ids(), None, INDEX)
        return sum(storages.values())

    layer = 4 * BATCH * LENGTH * (8 * SIZE.hidden + 2 * SIZE.intermediate)
    assert kept("") - kept("again") > 0.8 * SIZE.layers * layer


def test_recomputation_is_a_forward_pass_of_the_encoder_more() -> None:
    """Oracle: torch's FlopCounterMode, and the forecast's formula, under math attention."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    counts = []
    for recompute in ("", "again"):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            step(make(recompute=recompute))
        counts.append(counter.get_total_flops())

    encoder = formulas.forward_flops(
        SIZE, vocabulary=VOCABULARY, batch=BATCH, seq_len=LENGTH, masked=0
    )
    assert counts[1] - counts[0] == encoder


def test_the_trace_names_what_is_run_again() -> None:
    """Oracle: the name that the kernel axis gives; it is absent where nothing is run again."""
    kernel = checkpointing.layers()
    (name,) = kernel.expects
    assert kernel.options == {"recompute": name}
    for recompute in ("", name):
        model = make(recompute=recompute)
        with torch.profiler.profile() as profile:
            step(model)
        assert any(name in event.key for event in profile.key_averages()) == bool(recompute)


def test_gelu_is_replaced_in_every_layer_and_in_the_head() -> None:
    """Oracle: calls counted; torch's own in its place changes no gradient."""
    calls = []

    def counted(hidden: torch.Tensor) -> torch.Tensor:
        calls.append(hidden.shape[-1])
        return functional.gelu(hidden)

    own, usual = make(gelu=counted), make()

    assert all(torch.equal(a, b) for a, b in zip(step(own), step(usual), strict=True))
    assert calls == [SIZE.intermediate] * SIZE.layers + [SIZE.hidden]


def test_a_gelu_that_changes_the_shape_is_refused() -> None:
    """Oracle: the two shapes, by hand."""
    model = make(gelu=lambda hidden: hidden[:1])

    with pytest.raises(ValueError, match=r"the GELU gave shape \[1, 16, 64\] for .*\[4, 16, 64\]"):
        model(ids(), None, INDEX)


def test_all_slots_are_given_where_none_is_picked() -> None:
    """Oracle: the logits of picked slots are rows of those of all."""
    model = make().eval()
    with torch.no_grad():
        picked, every = model(ids(), None, INDEX), model(ids(), None, None)

    assert every.shape == (BATCH * LENGTH, VOCABULARY)
    torch.testing.assert_close(every[INDEX], picked)
