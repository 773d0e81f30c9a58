"""Kernels: that what is forced is what the profiler sees, and that the check can fail."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from drawn import ENTRIES, LR, make_groups, parameters, train
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from bertopt_bench import catalogue
from bertopt_bench.axes import devices, optimizers, regularizers
from bertopt_bench.axes.kernels import _steps, attention
from bertopt_bench.axes.optimizers import adaptive, descent
from bertopt_bench.errors import UserError
from bertopt_bench.measure.tracing import trace_step
from bertopt_bench.trial.optimizing import set_rates


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
    assert not seen(kernel.forbids, names)
    assert not seen(catalogue.resolve("kernel.attention", other)().expects, names)
    assert seen(catalogue.resolve("kernel.attention", other)().forbids, names)


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
    make = catalogue.resolve("optimizer", optimizer)
    made = make([{"params": weights, "role": "matrix"}], **kernel.options)

    names = operations(made.step)

    found = {
        other
        for other in ("foreach", "fused")
        if seen(catalogue.resolve("kernel.optimizer_step", other)().expects, names)
    }
    assert found == shown


def traced(call: Any) -> list[str]:
    """Trace as the trial does; give the operations that walk over lists or are fused."""
    operations = trace_step(call, devices.cpu()).operations
    return [name for name in operations if "_foreach_" in name or "_fused_" in name]


def gradients() -> list[dict[str, Any]]:
    groups = make_groups()
    for weight in parameters(groups):
        weight.grad = torch.ones_like(weight)
    return groups


@pytest.mark.parametrize("name", ENTRIES)
def test_nothing_that_the_loop_forbids_runs_in_it(name: str) -> None:
    """No optimizer's loop shows a foreach or fused operation; oracle: torch's profiler."""
    options = catalogue.resolve("kernel.optimizer_step", "loop")().options
    accepted = {key: value for key, value in options.items() if key in ENTRIES[name].accepts}

    optimizer = catalogue.resolve("optimizer", name)(gradients(), **accepted)

    assert accepted["foreach"] is False
    assert traced(optimizer.step) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name, entry in ENTRIES.items()
        for kind in ("foreach", "fused")
        if kind in entry.accepts and name not in optimizers.LOOP_ONLY
    ],
)
def test_the_loop_forbids_every_other_step(name: str, kind: str) -> None:
    """What each foreach and fused step shows is among the forbidden; oracle: torch's profiler."""
    loop = catalogue.resolve("kernel.optimizer_step", "loop")()
    kernel = catalogue.resolve("kernel.optimizer_step", kind)()

    names = traced(catalogue.resolve("optimizer", name)(gradients(), **kernel.options).step)

    assert seen(kernel.expects, names)
    assert seen(loop.forbids, names)


def test_lists_that_are_walked_beside_the_step_are_not_taken_for_it() -> None:
    """Clipping, averaging and unscaling use foreach operations under any optimizer step.

    The loop does not forbid them, and they do not prove a foreach step; oracle: torch's profiler.
    """
    groups = gradients()
    clip, average = regularizers.grad_clip(), regularizers.ema()
    optimizer = descent.sgd(groups, foreach=False)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))

    def step() -> None:
        scaler.unscale_(optimizer)
        clip.gradients(groups)
        scaler.step(optimizer)
        average.after_step(groups)
        scaler.update()

    names = traced(step)

    assert {"aten::_foreach_norm", "aten::_foreach_lerp_"} <= set(names)
    assert "aten::_amp_foreach_non_finite_check_and_unscale_" in names
    assert not seen(catalogue.resolve("kernel.optimizer_step", "loop")().forbids, names)
    assert not seen(catalogue.resolve("kernel.optimizer_step", "foreach")().expects, names)


class Products(TorchDispatchMode):
    """Notes the types that matrices are multiplied in."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in func.__name__:
            self.types.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


def attend_in(dtype: torch.dtype, name: str, **options: Any) -> tuple[Any, list[torch.Tensor]]:
    """Give the types of the products, and output and gradients of a forward and backward pass."""
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(2, 2, 16, 8, generator=generator) for _ in range(3)]
    inputs = [value.bfloat16().to(dtype).requires_grad_() for value in draw]
    kernel = catalogue.resolve("kernel.attention", name)(**options)
    with kernel.context(), Products() as products:
        output = scaled_dot_product_attention(*inputs)
        output.square().sum().backward()
    return products.types, [output, *(value.grad for value in inputs if value.grad is not None)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_math_attention_multiplies_in_16_bits(dtype: torch.dtype) -> None:
    """Forward and backward; without it in fp32. Values stay near fp64's; oracle: the dispatcher."""
    exact = attend_in(torch.float64, "math")[1]

    in_32, plain = attend_in(dtype, "math")
    in_16, reduced = attend_in(dtype, "math", reduced=True)

    assert (in_32, in_16) == ({torch.float32}, {dtype})
    assert len(reduced) == 4
    for ours, theirs, fp64 in zip(reduced, plain, exact, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        torch.testing.assert_close(ours.double(), fp64, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reduced_changes_nothing_in_wider_types(dtype: torch.dtype) -> None:
    """Bit for bit; oracle: math attention without it."""
    plain, reduced = attend_in(dtype, "math"), attend_in(dtype, "math", reduced=True)

    assert plain[0] == reduced[0] == {dtype}
    assert all(torch.equal(a, b) for a, b in zip(plain[1], reduced[1], strict=True))


@pytest.mark.parametrize("before", [False, True])
def test_reduced_puts_the_flag_of_the_process_back(before: bool) -> None:
    """After the context, an exception's too, the flag is as it was; oracle: torch's getter."""
    flag = torch.backends.cuda
    kept = flag.fp16_bf16_reduction_math_sdp_allowed()
    try:
        flag.allow_fp16_bf16_reduction_math_sdp(before)
        kernel = catalogue.resolve("kernel.attention", "math")(reduced=True)
        with kernel.context():
            assert flag.fp16_bf16_reduction_math_sdp_allowed()
        assert flag.fp16_bf16_reduction_math_sdp_allowed() == before
        with pytest.raises(ZeroDivisionError), kernel.context():
            _ = 1 / 0
        assert flag.fp16_bf16_reduction_math_sdp_allowed() == before
    finally:
        flag.allow_fp16_bf16_reduction_math_sdp(kept)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("off", {}),
        ("default", {"mode": "default", "fullgraph": True}),
        ("reduce_overhead", {"mode": "reduce-overhead", "fullgraph": True}),
        ("max_autotune", {"mode": "max-autotune", "fullgraph": True}),
    ],
)
def test_compile_modes_are_torchs(name: str, options: dict[str, Any]) -> None:
    """Each mode is one that torch.compile knows; one of CUDA graphs expects them on a GPU."""
    made = catalogue.resolve("kernel.compile", name)()

    assert made.options == options
    assert made.compiles == bool(made.expects) == bool(options)
    if options:
        patched = torch._inductor.list_mode_options(options["mode"])
        assert bool(made.expects_on_cuda) == patched.get("triton.cudagraphs", False)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name, entry in ENTRIES.items() if "Initial" in entry.notes]
)
def test_compiled_steps_equal_the_loop(name: str) -> None:
    """Eight steps on drawn gradients, the rate changing; oracle: the optimizer's own eager step.

    Muon orthogonalises in bfloat16, whose roundings torch.compile leaves out between operations;
    counts of steps are fp32 tensors within the graph, where the eager step has Python's numbers.
    """
    torch.compiler.reset()
    weights = []
    for step in ("default", "compiled"):
        kernel = catalogue.resolve("kernel.optimizer_step", step)()
        groups = make_groups()
        optimizer = catalogue.resolve("optimizer", name)(groups, lr=LR)
        for group in optimizer.param_groups:
            group["initial_lr"] = LR
        with kernel.context() if kernel.context else contextlib.nullcontext():
            if kernel.call:
                kernel.call(optimizer)
            for number in range(8):
                set_rates(optimizer, 1 - number / 16)
                trained = train(optimizer, parameters(groups), 1, seed=number)
        weights.append(trained)

    tolerance = LR * (0.1 if name == "muon" else 1e-3)  # of the size of one step
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("masked", [False, True])
def test_flex_attention_computes_what_torch_does(masked: bool) -> None:
    """Forward, eagerly on a CPU (it has no backward pass there); oracle: torch's own choice."""
    from torch.nn.attention import flex_attention as flex

    kernel = catalogue.resolve("kernel.attention", "flex")()
    kernel.call.attend = flex.flex_attention  # as it is before torch.compile
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, 2, 10, 8, generator=generator) for _ in range(3)]
    mask = None
    if masked:
        mask = (torch.arange(10) < torch.tensor([[10], [4], [7]]))[:, None, None, :]
    with torch.no_grad():
        found = kernel.call(*inputs, attn_mask=mask)
    torch.testing.assert_close(found, scaled_dot_product_attention(*inputs, attn_mask=mask))


def test_blocks_are_made_once_for_a_mask_and_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a count: two masks in turn, as cold calls have them, make two masks of blocks."""
    made = []
    monkeypatch.setattr(
        attention, "_block_mask", lambda mask: made.append(mask.shape) or mask.shape
    )
    kernel = catalogue.resolve("kernel.attention", "flex")()
    kernel.call.attend = lambda *_, block_mask: block_mask
    query = torch.ones(1, 1, 4, 8)
    masks = [torch.ones(1, 1, 1, 4, dtype=torch.bool) for _ in range(2)]

    for mask in (*masks, *masks, None):
        blocks = kernel.call(query, query, query, attn_mask=mask)
        assert (blocks is None) == (mask is None)

    assert len(made) == 2
    masks.clear()
    del mask
    assert len(kernel.call.blocks) == 0


def test_flex_attention_refuses_dropout() -> None:
    """Oracle: the rule attention_without_dropout; no dropout is left out unseen."""
    kernel = catalogue.resolve("kernel.attention", "flex")()
    query = torch.ones(1, 1, 4, 8)

    with pytest.raises(RuntimeError, match="no dropout"):
        kernel.call(query, query, query, dropout_p=0.1)


def test_the_tanh_gelu_is_torchs_and_not_the_exact_one() -> None:
    """Oracle: torch's approximation bit for bit; the exact one differs by less than 5e-4."""
    kernel = catalogue.resolve("kernel.gelu", "tanh")()
    hidden = torch.linspace(-6, 6, 1001)

    assert torch.equal(kernel.call(hidden), torch.nn.functional.gelu(hidden, approximate="tanh"))
    difference = (kernel.call(hidden) - torch.nn.functional.gelu(hidden)).abs().max()
    assert 1e-5 < difference < 5e-4
    assert not kernel.exact


@pytest.mark.parametrize("rows", [0, 1, 3, 100])
def test_chunks_of_any_size_give_the_loss_and_gradients(rows: int) -> None:
    """Oracle: linear and cross entropy apart; a label of -100 counts for nothing."""
    kernel = catalogue.resolve("kernel.mlm_loss", "chunked")(rows=rows)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(size, generator=generator) for size in ((7, 6), (11, 6), (11,))]
    labels = torch.tensor([0, -100, 10, 3, 3, -100, 7])
    results = []
    for own in (True, False):
        inputs = [draw.clone().requires_grad_() for draw in draws]
        loss = (
            kernel.call(*inputs, labels)
            if own
            else torch.nn.functional.cross_entropy(
                torch.nn.functional.linear(*inputs), labels, reduction="sum"
            )
        )
        loss.backward()
        results.append([loss.detach(), *(value.grad for value in inputs)])

    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_negative_number_of_rows_is_refused() -> None:
    """Oracle: what came and what is allowed, in the error."""
    with pytest.raises(UserError, match="rows is -1; it must be 0 or more"):
        catalogue.resolve("kernel.mlm_loss", "chunked")(rows=-1)


@pytest.mark.parametrize("axis", ["kernel.layer_norm", "kernel.mlm_loss", "kernel.attention"])
def test_packages_of_kernels_are_entries_that_exist(axis: str) -> None:
    """Oracle: the axis' own entries; the machine is asked for each package."""
    from bertopt_bench.measure.capabilities import OPTIONAL_PACKAGES

    packages = {name: catalogue.package_of(axis, name) for name in catalogue.entries(axis)}
    needed = {package for package in packages.values() if package}

    assert needed
    assert needed <= set(OPTIONAL_PACKAGES)


def test_rates_are_filled_in_place_once_they_are_tensors() -> None:
    """Oracle: the same tensors with new values; fp64 weights get fp64 rates."""
    groups = [*make_groups(), *make_groups(dtype=torch.float64)]
    optimizer = adaptive.adamw(groups, lr=0.25)

    _steps.rates_to_tensors(optimizer)

    rates = [group["lr"] for group in optimizer.param_groups]
    assert {rate.dtype for rate in rates} == {torch.float32, torch.float64}
    assert all(rate.item() == 0.25 for rate in rates)
