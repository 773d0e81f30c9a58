"""Precisions: what autocast computes in, and what stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from bertopt_bench import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def _matmul_precision() -> Iterator[None]:
    kept = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(kept)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("fp32", torch.float32),
        ("tf32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
        ("fp64", torch.float64),
    ],
)
def test_a_matrix_product_has_the_precisions_dtype(name: str, dtype: torch.dtype) -> None:
    """Weights of weight_dtype multiplied in the context come out in the named dtype."""
    precision = catalogue.resolve("precision", name)()
    weight = torch.ones(4, 4, dtype=getattr(torch, precision.weight_dtype))

    with precision.context("cpu"):
        product = weight @ weight

    assert product.dtype == dtype


def test_only_fp16_scales_its_loss() -> None:
    """Only fp16 has too few exponent bits for gradients (Micikevicius et al.)."""
    names = catalogue.entries("precision")

    assert [n for n in names if catalogue.resolve("precision", n)().scaler] == ["fp16"]


@pytest.mark.usefixtures("_matmul_precision")
@pytest.mark.parametrize(("name", "expected"), [("fp32", "highest"), ("tf32", "high")])
def test_apply_sets_the_matmul_flag(name: str, expected: str) -> None:
    """Applying a precision sets torch's flag, and undoes what another one set."""
    torch.set_float32_matmul_precision("medium")

    catalogue.resolve("precision", name)().apply()

    assert torch.get_float32_matmul_precision() == expected


def test_contexts_are_fresh() -> None:
    """A context can be entered while another one is open."""
    precision = catalogue.resolve("precision", "bf16")()
    weight = torch.ones(2, 2)

    with precision.context("cpu"), precision.context("cpu"):
        inner = weight @ weight

    assert inner.dtype == torch.bfloat16
    assert (weight @ weight).dtype == torch.float32
