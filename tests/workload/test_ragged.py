"""The model over flat slots gives each sequence what it gets alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from bertopt_bench.workload import ragged
from bertopt_bench.workload.formulas import ModelSize
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM, initialise
from bertopt_bench.workload.ragged import Ragged

SIZE = ModelSize(hidden=32, layers=2, heads=4, intermediate=64, positions=8)
VOCABULARY = 97
SEQUENCES = [[2, 11, 12, 13, 3], [2, 21, 22, 3], [2, 31, 3]]
TYPES = [[0, 0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 0]]
FLAT = [*SEQUENCES[0], *SEQUENCES[2], *SEQUENCES[1], 0, 0, 0, 0]  # two rows of eight
POSITIONS = [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3, 0, 0, 0, 0]
OWNERS = torch.tensor([0] * 5 + [2] * 3 + [1] * 4 + [-1] * 4).view(2, 8)
INDEX = torch.tensor([1, 6, 10])  # a token of each sequence


def make(position_embedding: str = "learned") -> BertForMaskedLM:
    model = BertForMaskedLM(BertConfig(VOCABULARY, SIZE, position_embedding))
    initialise(model, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return model


def apart(way: str) -> dict[str, Any]:
    """Describe FLAT for one way of keeping its sequences apart."""
    if way == "runs":
        return {"runs": ((1, 5), (1, 3), (1, 4), (0, 4))}
    if way == "borders":
        return {"borders": torch.tensor([0, 5, 8, 12, 16], dtype=torch.int32)}
    if way == "blocks":
        return {"mask": OWNERS[:, None, :, None] == OWNERS[:, None, None, :]}
    lengths = torch.tensor([5, 4, 3])
    inside = torch.arange(8) < lengths[:, None]
    into = torch.where(inside, torch.tensor([[0], [8], [5]]) + torch.arange(8), 0)
    back = torch.zeros(16, dtype=torch.int64)
    back[into[inside]] = torch.arange(24).view(3, 8)[inside]
    return {"mask": inside[:, None, None, :], "into": into.flatten(), "back": back}


def by_segments(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, borders: torch.Tensor, longest: int
) -> torch.Tensor:
    """Do what torch documents of varlen_attn, by plain softmax a segment."""
    mixed = []
    for start, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        assert end - start <= longest
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
        weights = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
        mixed.append((weights @ v).transpose(0, 1))
    return torch.cat(mixed)


@pytest.mark.parametrize("way", ["runs", "borders", "blocks", "gathered"])
@pytest.mark.parametrize("position_embedding", ["learned", "sinusoidal"])
@pytest.mark.parametrize("typed", [False, True])
def test_a_sequence_gets_what_it_gets_alone(
    monkeypatch: pytest.MonkeyPatch, way: str, position_embedding: str, *, typed: bool
) -> None:
    """Logits, and the gradient of every parameter, within 1e-5; oracle: each sequence by itself."""
    monkeypatch.setattr(ragged, "varlen", by_segments)
    model = make(position_embedding)
    ids = torch.tensor(FLAT, dtype=torch.int32)
    mask = Ragged(torch.tensor(POSITIONS, dtype=torch.int32), 8, **apart(way))
    types = torch.tensor([*TYPES[0], *TYPES[2], *TYPES[1], 0, 0, 0, 0]) if typed else None
    labels = torch.tensor([7, 8, 9])

    together = model(ids, mask, INDEX, types)
    functional.cross_entropy(together, labels, reduction="sum").backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    alone = [
        model(torch.tensor([SEQUENCES[n]]), None, torch.tensor([position]),
              torch.tensor([TYPES[n]]) if typed else None)
        for n, position in ((0, 1), (2, 1), (1, 2))
    ]  # fmt: skip
    functional.cross_entropy(torch.cat(alone), labels, reduction="sum").backward()

    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)
    for ours, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-5, atol=1e-5)


def test_runs_give_attention_dense_calls_without_masks() -> None:
    """Oracle: by hand: neighbours of one length are one call, padding is none."""
    calls = []

    def attention(q: Any, k: Any, v: Any, **options: Any) -> torch.Tensor:
        calls.append((tuple(q.shape), options))
        return functional.scaled_dot_product_attention(q, k, v, **options)

    flat = torch.randn(14, 4, 8)
    mask = Ragged(torch.zeros(14, dtype=torch.int32), 8, runs=((2, 4), (1, 3), (0, 3)))
    mixed = ragged.attend_within(mask, attention, flat, flat, flat, 0.25)

    options = {"attn_mask": None, "dropout_p": 0.25}
    assert calls == [((2, 4, 4, 8), options), ((1, 4, 3, 8), options)]
    assert mixed.shape == (14, 32)
    assert not mixed[11:].any()


def test_attention_that_walks_over_segments_itself_does_so() -> None:
    """Oracle: the call that it gets, by hand: the flat tensors, the borders and the longest."""
    flat = torch.randn(3, 4, 8)
    borders = torch.tensor([0, 1, 3], dtype=torch.int32)
    mask = Ragged(torch.zeros(3, dtype=torch.int32), 8, borders=borders)
    calls = []

    class Own:
        def segments(self, *given: Any) -> torch.Tensor:
            calls.append(given)
            return flat

    mixed = ragged.attend_within(mask, Own(), flat, flat, flat, 0.0)  # type: ignore[arg-type]

    assert calls == [(flat, flat, flat, borders, 8)]
    assert torch.equal(mixed, flat.view(3, 32))


def test_a_row_longer_than_the_positions_is_refused() -> None:
    ids = torch.ones(9, dtype=torch.int32)
    mask = Ragged(torch.arange(9, dtype=torch.int32), 9, runs=((1, 9),))

    with pytest.raises(ValueError, match="9 slots a sequence, but 8 positions"):
        make()(ids, mask, torch.tensor([1]))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_flash_attention_over_borders_equals_the_plain_one() -> None:
    """bf16 on a GPU, forward and backward; oracle: plain softmax a segment, in fp32 on the CPU."""
    draw = torch.Generator().manual_seed(3)
    flat = [torch.randn(96, 4, 64, generator=draw) for _ in range(3)]
    borders = torch.tensor([0, 40, 41, 73, 96, 96], dtype=torch.int32)
    results = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        leaves = [x.to(device, dtype).requires_grad_() for x in flat]
        attend = by_segments if device == "cpu" else ragged.varlen
        mixed = attend(*leaves, borders.to(device), 40)
        mixed.square().sum().backward()
        results.append([mixed, *(leaf.grad for leaf in leaves)])
    for exact, seen in zip(*results, strict=True):
        torch.testing.assert_close(seen.float().cpu(), exact, rtol=0.05, atol=0.05)
