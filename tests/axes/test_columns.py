"""Products of 16-bit matrices by columns: the same numbers, and only where nothing better is."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from bertopt_bench.axes import columns

LAYOUTS = list(itertools.product((False, True), repeat=2))


def laid(rows: int, width: int, dtype: torch.dtype, *, by_columns: bool) -> torch.Tensor:
    drawn = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)).to(dtype)
    return drawn.t().contiguous().t() if by_columns else drawn


@pytest.mark.parametrize(("left_columns", "right_columns"), LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_product_is_right_in_every_layout(
    dtype: torch.dtype, *, left_columns: bool, right_columns: bool
) -> None:
    """Oracle: the product in float64 of the same numbers, rounded once to the dtype."""
    left = laid(33, 70, dtype, by_columns=left_columns)
    right = laid(70, 21, dtype, by_columns=right_columns)

    found = columns.product(left, right)

    assert (found.shape, found.dtype) == ((33, 21), dtype)
    exact = left.double() @ right.double()
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), exact, rtol=step, atol=step * 0.1)


def test_other_dtypes_are_torchs_product() -> None:
    """Oracle: torch.mm's other form, bit for bit."""
    left, right = (laid(*shape, torch.float32, by_columns=False) for shape in ((9, 7), (7, 5)))

    assert torch.equal(columns.product(left, right), torch.mm(left, right, out=torch.empty(9, 5)))


def test_where_onednn_multiplies_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: no library is made."""
    made: list[object] = []
    monkeypatch.setattr(torch.library, "Library", lambda *given: made.append(given))
    monkeypatch.setattr(columns, "multiplies", lambda _dtype: True)

    columns.lay_by_columns.__wrapped__(torch.bfloat16)

    assert made == []


def test_without_onednn_nothing_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a build of torch without it has no such operators."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.delattr(torch.ops, "mkldnn", raising=False)

    assert columns.multiplies(torch.bfloat16)


REPLACED = """
import warnings
warnings.simplefilter("error")
import torch
from bertopt_bench.axes import columns
from bertopt_bench.axes.precisions import bf16
columns.multiplies = lambda dtype: False
bf16().apply()
bf16().apply()
seen = []
first, second = (torch.randn(shape).bfloat16() for shape in ((6, 4), (4, 3)))
with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
    made = first @ second
names = [event.name for event in profile.events()]
assert names.count("aten::mm") == 1, names
assert "aten::clone" in names or "aten::contiguous" in names, names
assert torch.equal(made, first @ second.t().contiguous().t())
hidden = torch.randn(5, 4, requires_grad=True)
linear = torch.nn.Linear(4, 3)
with torch.autocast("cpu", dtype=torch.bfloat16):
    linear(hidden).float().sum().backward()
torch.testing.assert_close(hidden.grad, linear.weight.bfloat16().float().sum(0).expand(5, 4),
                           rtol=1e-2, atol=1e-2)
"""


def test_bf16_replaces_the_product_once_and_a_trace_shows_one() -> None:
    """Oracle: the profiler's names; the gradient of a sum, which is the sum of the weights."""
    subprocess.run([sys.executable, "-c", REPLACED], check=True, timeout=300)
