"""Kernels: that what is forced is what the profiler sees, and that the check can fail."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from bertopt_bench import catalogue
from bertopt_bench.axes import optimizers


def operations(call: Any) -> list[str]:
    """Give the names of the operations that the profiler sees in a call."""
    with torch.profiler.profile() as profile:
        call()
    return [event.key for event in profile.key_averages()]


def seen(expects: tuple[str, ...], names: list[str]) -> bool:
    return any(part in name for part in expects for name in names)


def attend(kernel: Any, dropout: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 2, 16, 8, generator=generator).requires_grad_()
    with kernel.context() if kernel.context else contextlib.nullcontext():
        result: torch.Tensor = scaled_dot_product_attention(query, query, query, dropout_p=dropout)
        result.sum().backward()
    return result.detach()


@pytest.mark.parametrize("name", ["math", "flash"])
def test_forced_attention_is_what_runs(name: str) -> None:
    """A forward and backward pass under a forced backend shows its operation, and no other's."""
    kernel = catalogue.resolve("kernel.attention", name)()
    other = {"math": "flash", "flash": "math"}[name]

    names = operations(lambda: attend(kernel))

    assert seen(kernel.expects, names)
    assert not seen(catalogue.resolve("kernel.attention", other)().expects, names)


@pytest.mark.parametrize("name", ["math", "flash"])
def test_backends_agree(name: str) -> None:
    """Outputs equal torch's own choice to rounding."""
    forced = attend(catalogue.resolve("kernel.attention", name)())

    torch.testing.assert_close(forced, attend(catalogue.resolve("kernel.attention", "default")()))


def test_compiled_graphs_are_not_taken_from_a_cache_that_forgets_the_backend() -> None:
    """Within a forced backend torch.compile's caches are off, after it they are as before."""
    before = torch.compiler.config.force_disable_caches
    with catalogue.resolve("kernel.attention", "flash")().context():
        assert torch.compiler.config.force_disable_caches

    assert torch.compiler.config.force_disable_caches == before


@pytest.mark.parametrize("name", ["efficient", "cudnn"])
def test_kernels_that_a_cpu_has_not_raise(name: str) -> None:
    """Forcing a backend that this device lacks is an error of torch's, never a silent fallback."""
    with pytest.raises(RuntimeError):
        attend(catalogue.resolve("kernel.attention", name)())


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch lists why each backend is out
def test_flash_on_a_cpu_refuses_dropout() -> None:
    """The rule flash_with_dropout_on_cpu skips what torch cannot do; oracle: torch raises."""
    with pytest.raises(RuntimeError):
        attend(catalogue.resolve("kernel.attention", "flash")(), dropout=0.1)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("loop", set()), ("foreach", {"foreach"}), ("fused", {"fused", "foreach"})],
)
@pytest.mark.parametrize("optimizer", ["adamw", "adagrad"])
def test_forced_optimizer_step_is_what_runs(name: str, shown: set[str], optimizer: str) -> None:
    """A step shows the forced implementation's operations, the loop neither's.

    (A fused step counts its steps by foreach.)
    """
    kernel = catalogue.resolve("kernel.optimizer_step", name)()
    weights = [torch.randn(4, 4).requires_grad_() for _ in range(3)]
    for weight in weights:
        weight.grad = torch.ones(4, 4)
    made = getattr(optimizers, optimizer)([{"params": weights, "role": "matrix"}], **kernel.options)

    names = operations(made.step)

    found = {
        other
        for other in ("foreach", "fused")
        if seen(catalogue.resolve("kernel.optimizer_step", other)().expects, names)
    }
    assert found == shown


@pytest.mark.parametrize(
    ("name", "options"),
    [("off", {}), ("default", {"mode": "default"}), ("max_autotune", {"mode": "max-autotune"})],
)
def test_compile_modes_are_torchs(name: str, options: dict[str, str]) -> None:
    """Each mode is one that torch.compile knows."""
    made = catalogue.resolve("kernel.compile", name)()

    assert made.options == options
    if options:
        assert torch._inductor.list_mode_options(options["mode"]) is not None


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["flash", "efficient", "cudnn"])
def test_forced_attention_is_what_runs_on_cuda(name: str) -> None:
    """In bf16 every fused backend shows its operation in the trace."""
    kernel = catalogue.resolve("kernel.attention", name)()
    query = torch.randn(2, 2, 64, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    def call() -> None:
        with kernel.context():
            scaled_dot_product_attention(query, query, query).sum().backward()

    assert seen(kernel.expects, operations(call))
