"""Ceilings on small arrays, and with a scripted clock where a rate must be exact."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bertopt_bench.dispatch.sessions import ceilings_request
from bertopt_bench.measure import ceilings
from bertopt_bench.measure.ceilings import measure_ceilings
from bertopt_bench.measure.in_place import in_place_mix

if TYPE_CHECKING:
    from collections.abc import Callable


class Cpu:
    """A device on which tensors can be made."""

    type = "cpu"
    clock_kind = "perf_counter"
    torch_device = "cpu"

    def synchronize(self) -> None:
        """Return: the CPU has nothing in flight."""


def scripted(seconds: dict[int, float]) -> Callable[..., list[float]]:
    """Let an operation on square matrices of an edge take the seconds given, the first longer."""

    def timed(device: Any, operation: Callable[[], Any], repeats: int) -> list[float]:
        result = operation()
        each = seconds[result.shape[0] if result is not None else 0]
        return [each * 1.5, *[each] * (repeats - 1)]

    return timed


def test_rates_follow_from_the_fastest_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: 2 x 64^3 FLOPs, 28 bytes a parameter and 8 bytes copied, over scripted seconds."""
    monkeypatch.setattr(ceilings, "_timed", scripted({64: 0.01, 0: 0.02}))

    values = measure_ceilings(
        Cpu(), dtypes=["float32", "bfloat16"], matmul_size=64, array_bytes=2**16
    )

    flops = 2 * 64**3 / 0.01
    assert values["matmul_flops_per_second"] == {"float32": flops, "bfloat16": flops}
    assert values["bandwidth_bytes"] == 28 * 2**14
    assert values["bandwidth_bytes_per_second"] == 28 * 2**14 / 0.02
    assert values["copy_bytes"] == 8 * 2**14
    assert values["copy_bytes_per_second"] == 8 * 2**14 / 0.02


def test_a_data_type_may_be_asked_for_beside_the_usual_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: fp64 of a session that has a cell in it, beside what a CPU is measured in anyway."""
    monkeypatch.setattr(ceilings, "_timed", scripted({512: 0.001, 64: 0.01, 0: 0.02}))
    asked = ceilings_request({"name": "cpu"}, 2, {"fp32", "fp64"})

    values = measure_ceilings(Cpu(), also=asked["also"], matmul_size=64, array_bytes=2**16)

    assert set(values["matmul_flops_per_second"]) == {"float32", "bfloat16", "float64"}
    assert ceilings_request({"name": "cpu"}, 2, {"fp32", "bf16"})["also"] == []


def test_every_sample_is_kept() -> None:
    values = measure_ceilings(Cpu(), 0.01, dtypes=["float32"], matmul_size=32, array_bytes=2**16)

    products = values["samples"]["matmul_seconds"]["float32"]
    assert len(products) >= 3
    assert values["matmul_flops_per_second"]["float32"] == 2 * 32**3 / min(products)
    assert len(values["samples"]["bandwidth_seconds"]) >= 3
    assert len(values["samples"]["copy_seconds"]) >= 3


def test_a_hopeless_dtype_is_skipped_with_its_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe of 512 that takes 1 s forecasts 64 s at 2048; float32 is measured regardless."""
    monkeypatch.setattr(ceilings, "_timed", scripted({512: 1.0, 2048: 10.0, 0: 0.01}))

    values = measure_ceilings(Cpu(), dtypes=["float32", "float16"], array_bytes=2**16)

    assert list(values["matmul_flops_per_second"]) == ["float32"]
    assert "about 64.0 s" in values["skipped"]["float16"]


@pytest.mark.parametrize(("seconds", "expected"), [(0.001, "a' b"), (0.006, "a b")])
def test_operands_are_laid_as_the_clearly_fastest_small_product(
    monkeypatch: pytest.MonkeyPatch, seconds: float, expected: str
) -> None:
    """Oracle: scripted: a' b takes a tenth of 10 ms, or six, which is noise; float32 is first."""
    taken: list[str] = []

    def timed(_: Any, operation: Callable[[], Any], repeats: int) -> list[float]:
        closed = dict(zip(operation.__code__.co_freevars, operation.__closure__ or (), strict=True))
        if "left" not in closed:
            return [0.02] * repeats
        left, right = (closed[name].cell_contents for name in ("left", "right"))
        marks = ["" if one.is_contiguous() else "'" for one in (left, right)]
        way = f"a{marks[0]} b{marks[1]}"
        if len(left) == 64:
            taken.append(way)
        return [{"a' b": seconds}.get(way, 0.01)] * repeats

    monkeypatch.setattr(ceilings, "_timed", timed)
    monkeypatch.setattr(ceilings, "PROBE_SIZE", 32)
    dtypes = ["float32", "bfloat16"]
    values = measure_ceilings(Cpu(), 0.05, dtypes=dtypes, matmul_size=64, array_bytes=2**16)

    assert values["matmul_operands"] == {"float32": "a b", "bfloat16": expected}
    assert set(taken) == {"a b", expected}
    took = seconds if expected == "a' b" else 0.01
    assert values["matmul_flops_per_second"]["bfloat16"] == 2 * 64**3 / took


@pytest.mark.parametrize("operands", ceilings.OPERANDS)
def test_a_product_is_of_its_operands(operands: str) -> None:
    """Oracle: the product by hand, of the operands that the call closes over."""
    product = ceilings._product(Cpu(), "float64", 8, operands)
    first, second = (ceilings._product(Cpu(), "float64", 8, "a b") for _ in range(2))

    torch.testing.assert_close(first(), second())
    marks = [part.endswith("'") for part in operands.split()]
    closed = {
        name: cell.cell_contents
        for name, cell in zip(product.__code__.co_freevars, product.__closure__ or (), strict=True)
    }
    assert [not closed[name].is_contiguous() for name in ("left", "right")] == marks
    torch.testing.assert_close(product(), closed["left"] @ closed["right"])


def test_the_budget_sets_the_number_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4.1 s, 3.075 go to the products: 0.15 s of burn-in, then 19 of 0.15 s."""
    monkeypatch.setattr(ceilings, "_timed", scripted({64: 0.1, 0: 0.01}))

    values = measure_ceilings(Cpu(), 4.1, dtypes=["float32"], matmul_size=64, array_bytes=2**16)

    assert len(values["samples"]["matmul_seconds"]["float32"]) == 19


def test_the_callers_float32_setting_is_kept() -> None:
    """The tf32 pass must not change how the trials after it multiply."""
    before = torch.get_float32_matmul_precision()

    measure_ceilings(Cpu(), 0.0, dtypes=["tf32", "float32"], matmul_size=16, array_bytes=2**16)

    assert torch.get_float32_matmul_precision() == before


def test_a_gpus_products_are_larger_and_start_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the calls: 0.3 s of products of 10 ms before the samples, which the time limits."""
    calls: list[int] = []

    def timed(_device: Any, operation: Callable[[], Any], repeats: int) -> list[float]:
        if operation() is not None:
            calls.append(repeats)
        return [0.01] * repeats

    monkeypatch.setattr(ceilings, "_timed", timed)
    monkeypatch.setitem(ceilings.MATMUL_SIZES, "cuda", 64)
    device: Any = SimpleNamespace(type="cuda", torch_device="cpu")

    values = measure_ceilings(device, 2.0, dtypes=["float32"], array_bytes=2**16)

    assert calls == [1, 3, 30, 150]
    assert (values["matmul_size"], values["matmul_warm_seconds"]) == (64, 0.3)
    assert len(values["samples"]["matmul_seconds"]["float32"]) == 150


def test_every_mix_moves_what_its_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: 4 bytes for each read and write of a parameter, over scripted seconds."""
    monkeypatch.setattr(ceilings, "_timed", scripted({64: 0.01, 0: 0.02}))

    values = measure_ceilings(Cpu(), dtypes=["float32"], matmul_size=64, array_bytes=2**16)

    assert values["update_bytes_per_second"] == {
        "2 reads, 1 write": 2 * 12 * 2**14 / 0.02,  # two pairs of the five arrays
        "3 reads, 2 writes": 20 * 2**14 / 0.02,
        "4 reads, 3 writes": 28 * 2**14 / 0.02,
        "5 reads, 4 writes": 36 * 2**14 / 0.02,
    }


def test_the_mix_is_adamws_four_reads_and_three_writes() -> None:
    """Oracle: which of the four arrays changed; three in-place passes read those and a gradient."""
    weight, gradient, mean, square = (torch.full((3,), 2.0 + index) for index in range(4))

    in_place_mix(gradient, mean, square, weight)()

    assert gradient.tolist() == [3.0] * 3
    torch.testing.assert_close(weight, torch.full((3,), 2.0 * 0.999))
    torch.testing.assert_close(mean, torch.full((3,), 4.0 + 0.1 * (3.0 - 4.0)))
    torch.testing.assert_close(square, torch.full((3,), 5.0 * 0.999))


def test_a_copy_reads_one_array_and_writes_the_other() -> None:
    source, target = torch.full((3,), 2.0), torch.zeros(3)

    ceilings._copy(source, target)()

    assert (source.tolist(), target.tolist()) == ([2.0] * 3, [2.0] * 3)
