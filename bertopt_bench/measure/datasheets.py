"""Know what a GPU's maker says that it computes at most. Nothing here is measured or derived.

Dense rates, without structured sparsity (which datasheets often print alone: twice as much).

Sources, all of NVIDIA:
    V100: "NVIDIA V100 Tensor Core GPU" datasheet, January 2020.
    A100: "NVIDIA A100 Tensor Core GPU" datasheet, 2021, of the 40 and 80 GB boards alike.
    H100: "NVIDIA H100 Tensor Core GPU" datasheet, 2022 to 2024; decimals of the SXM5 board: "NVIDIA
        H100 Tensor Core GPU Architecture" whitepaper, table of peak rates.
    H200: "NVIDIA H200 Tensor Core GPU" datasheet, 2024: the rates of the H100 boards.
    B200: "NVIDIA Blackwell Architecture Technical Brief", 2024, HGX B200, half of its sparse rates.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Datasheet:
    """A board: its SKU, its rated power, and FLOPs a second by dtype (``tf32`` as one).

    A board may run under a lower power limit than its rated one: then no work reaches these rates.
    """

    sku: str
    watts: int
    flops_per_second: dict[str, float]


def _board(sku: str, watts: int, **teraflops: float) -> Datasheet:
    return Datasheet(sku, watts, {dtype: rate * 1e12 for dtype, rate in teraflops.items()})


_V100_SXM2 = _board("V100 SXM2", 300, float32=15.7, float16=125)
_V100_PCIE = _board("V100 PCIe", 250, float32=14, float16=112)
_AMPERE = {"float32": 19.5, "tf32": 156.0, "bfloat16": 312.0, "float16": 312.0}
_H100_SXM = {"float32": 66.9, "tf32": 494.7, "bfloat16": 989.4, "float16": 989.4}
_H100_NVL = {"float32": 60.0, "tf32": 417.5, "bfloat16": 835.5, "float16": 835.5}

BOARDS = {
    "Tesla V100-SXM2-16GB": _V100_SXM2,
    "Tesla V100-SXM2-32GB": _V100_SXM2,
    "Tesla V100-PCIE-16GB": _V100_PCIE,
    "Tesla V100-PCIE-32GB": _V100_PCIE,
    "NVIDIA A100-SXM4-40GB": _board("A100 SXM4 40GB", 400, **_AMPERE),
    "NVIDIA A100-SXM4-80GB": _board("A100 SXM4 80GB", 400, **_AMPERE),
    "NVIDIA A100-PCIE-40GB": _board("A100 PCIe 40GB", 250, **_AMPERE),
    "NVIDIA A100 80GB PCIe": _board("A100 PCIe 80GB", 300, **_AMPERE),
    "NVIDIA H100 80GB HBM3": _board("H100 SXM5 80GB", 700, **_H100_SXM),
    "NVIDIA H100 PCIe": _board(
        "H100 PCIe 80GB", 350, float32=51, tf32=378, bfloat16=756, float16=756
    ),
    "NVIDIA H100 NVL": _board("H100 NVL 94GB", 400, **_H100_NVL),
    "NVIDIA H200": _board("H200 SXM 141GB", 700, **_H100_SXM),
    "NVIDIA H200 NVL": _board("H200 NVL 141GB", 600, **_H100_NVL),
    "NVIDIA B200": _board(
        "B200 SXM 180GB", 1000, float32=80, tf32=1100, bfloat16=2250, float16=2250
    ),
}
"""By the name that driver and torch give. A name that is not here, as a slice of a GPU (MIG) or
another maker's, has no datasheet: a near one would be invented."""


def datasheet_of(gpu_name: str) -> Datasheet | None:
    """Find a board by its exact name; None where it is not known."""
    return BOARDS.get(gpu_name.strip())
