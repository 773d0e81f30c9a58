"""Datasheet peaks: those of the reference table, and none for a name that is not known."""

from __future__ import annotations

import pytest

from bertopt_bench.measure.datasheets import BOARDS, datasheet_of


@pytest.mark.parametrize(
    ("name", "dtype", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
        ("NVIDIA H100 80GB HBM3", "tf32", 494),
        ("NVIDIA H200", "bfloat16", 989),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312),
        ("NVIDIA A100-SXM4-40GB", "tf32", 156),
        ("Tesla V100-SXM2-16GB", "float16", 125),
        ("NVIDIA B200", "bfloat16", 2250),
    ],
)
def test_peaks_are_those_of_the_reference(name: str, dtype: str, teraflops: int) -> None:
    """Oracle: the peaks of the project's workload reference, section 1, dense."""
    sheet = datasheet_of(name)

    assert sheet is not None
    assert int(sheet.flops_per_second[dtype] / 1e12) == teraflops


def test_no_board_computes_more_in_wider_numbers() -> None:
    """Oracle: arithmetic units: 16 bits are at least as fast as TF32, and that as float32."""
    for sheet in BOARDS.values():
        rates = sheet.flops_per_second
        narrow = rates["float16"]
        assert narrow >= rates.get("tf32", 0.0)
        assert rates.get("tf32", narrow) > rates["float32"]
        assert rates.get("bfloat16", narrow) == narrow
        assert sheet.watts >= 250


@pytest.mark.parametrize(
    "name", ["NVIDIA H100", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090", ""]
)
def test_a_name_that_is_not_known_has_no_datasheet(name: str) -> None:
    """Oracle: a board is known by its whole name; a slice or a family is none."""
    assert datasheet_of(name) is None
