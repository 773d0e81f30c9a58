"""Operations alone: right in every direction and dtype, wrong ones refused, buffers as declared."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from bertopt_bench.axes.devices import cpu
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.micro import OPERATIONS, impossible, read_options
from bertopt_bench.trial.micro.cases import open_case, plan_caching
from bertopt_bench.trial.micro.checking import WrongResultError, compare
from bertopt_bench.trial.micro.functions import FUNCTIONS, of_each_sequence
from bertopt_bench.trial.micro.measuring import check_ran
from bertopt_bench.trial.micro.stepping import CHECKED_STEPS
from bertopt_bench.trial.passes import KernelMismatchError
from bertopt_bench.workload.operation_work import DIRECTIONS, real_lengths

SMALL: dict[str, Any] = {
    "batch_size": 2, "seq_len": 16, "heads": 2, "head_size": 8, "hidden_size": 24,
    "vocabulary_size": 40,
}  # fmt: skip
BUILT_IN = [
    (name, implementation)
    for name, operation in OPERATIONS.items()
    for implementation in operation.implementations
    if implementation != "compiled"
]


def options_of(operation: str, **given: Any) -> dict[str, Any]:
    keys = OPERATIONS[operation].keys
    return read_options(
        OPERATIONS[operation], {k: v for k, v in {**SMALL, **given}.items() if k in keys}
    )


def opened(operation: str, implementation: str, **given: Any) -> Any:
    return open_case(operation, implementation, options_of(operation, **given), cpu(), seed=3)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize(("operation", "implementation"), BUILT_IN)
def test_built_in_implementations_are_right(
    operation: str, implementation: str, dtype: str, direction: str
) -> None:
    """Oracle: the plain formula in float64, which the check compares every tensor with."""
    options = options_of(operation, dtype=dtype, direction=direction)
    if impossible(operation, implementation, options):
        pytest.skip("cannot run so")
    if implementation == "chunked":
        pytest.importorskip("torch.nn.modules.linear_cross_entropy_options")  # torch 2.13
    case = open_case(operation, implementation, options, cpu())

    assert case.errors.error <= case.errors.allowed
    with case.context():
        for call in case.calls:
            call()


@pytest.mark.parametrize("padding", [0.25, 0.75])
@pytest.mark.parametrize("implementation", ["math", "flash"])
def test_padded_attention_is_right(implementation: str, padding: float) -> None:
    """Oracle: float64, with the same mask."""
    case = opened("attention", implementation, padding=padding)

    assert case.errors.error <= case.errors.allowed


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("padding", [0.0, 0.5])
def test_attention_without_padding_gets_the_real_tokens(
    padding: float, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: float64, a sequence at a time; and padded attention's values of the real tokens.

    torch's varlen attention, which is CUDA's, is stood in for by its signature on a CPU.
    """
    seen = []

    def stand_in(
        query: Any, key: Any, value: Any, borders: Any, borders_k: Any, longest: int, longest_k: int
    ) -> torch.Tensor:
        assert borders is borders_k
        seen.append((query.shape, borders.tolist(), longest, longest_k))
        attend = of_each_sequence(functional.scaled_dot_product_attention)
        return attend(query, key, value, borders, 0)

    varlen = pytest.importorskip("torch.nn.attention.varlen")
    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    case = opened("attention", "varlen", padding=padding, direction=direction, batch_size=3)
    padded = opened("attention", "math", padding=padding, direction=direction, batch_size=3)

    lengths = real_lengths(3, 16, padding)
    borders = [0, *itertools.accumulate(lengths)]
    assert seen[0] == ((sum(lengths), 2, 8), borders, max(lengths), max(lengths))
    assert case.errors.error <= case.errors.allowed
    assert case.inputs_sha256 == padded.inputs_sha256
    assert case.work == padded.work
    if direction == "forward":
        with torch.no_grad():
            rows = padded.calls[0]().transpose(1, 2)
            flat = torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)])
            torch.testing.assert_close(case.calls[0](), flat)


def test_lengths_have_the_padding_asked_for_on_average() -> None:
    """Oracle: the mean."""
    for padding in (0.1, 0.5, 0.8):
        lengths = real_lengths(9, 1000, padding)
        assert sum(lengths) / 9000 == pytest.approx(1 - padding, abs=0.001)
        assert min(lengths) >= 1


@pytest.mark.parametrize("operation", FUNCTIONS)
def test_the_references_are_torchs_formulas(operation: str) -> None:
    """Oracle: torch's own functions in float64, and its cross entropy for the loss."""
    drawn = FUNCTIONS[operation].draw(options_of(operation), torch.Generator().manual_seed(1))
    wide = {
        k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for k, v in drawn.items()
    }
    spec = FUNCTIONS[operation]

    torch.testing.assert_close(spec.exact(wide), spec.apply(spec.own, wide), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("operation", FUNCTIONS)
def test_inputs_are_not_zero_and_the_same_for_a_seed(operation: str) -> None:
    """Oracle: equal hashes; a share of zeros that random numbers do not have."""
    spec = FUNCTIONS[operation]
    drawn = spec.draw(options_of(operation), torch.Generator().manual_seed(1))
    for name in spec.learned:
        assert (drawn[name] == 0).float().mean() < 0.01
    first, other = (opened(operation, n) for n in OPERATIONS[operation].implementations[:2])

    assert first.inputs_sha256 == other.inputs_sha256


@pytest.fixture
def own_module(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a module of a user's kernels: one right, some wrong."""
    (tmp_path / "own_micro.py").write_text(
        """
from functools import partial

import torch
from torch.nn import functional


def right(values):
    return functional.gelu(values)


def strideless(query, key, value, attn_mask=None):
    strides = torch.empty(query.shape).stride()
    rows = [torch.as_strided(one, one.shape, strides) for one in (query, key, value)]
    return functional.scaled_dot_product_attention(*rows, attn_mask=attn_mask)


def tanh(values):
    return functional.gelu(values, approximate="tanh")


def narrow(values):
    return functional.gelu(values)[..., :1]


def nan(values):
    return functional.gelu(values) * float("nan")


def lossy(values):
    return functional.gelu(values.to(torch.bfloat16)).to(values.dtype)


class Wrong(torch.optim.SGD):
    def __init__(self, params, lr, betas, eps, weight_decay):
        super().__init__(params, lr=lr, momentum=betas[0])


class Counting(torch.optim.Optimizer):  # AdamW by its formulas, its count a number of Python's
    def __init__(self, params, lr, betas, eps, weight_decay, place):
        super().__init__(params, {"lr": lr})
        self.place, self.steps = place, 0
        self.betas, self.eps, self.decay = betas, eps, weight_decay
        self.param_groups[0]["steps"] = 0
        self.taken = []  # a list that grows with every step
        if place == "of_all":
            self.state["steps"] = 0

    def holder(self, parameter):
        return {
            "of_parameter": self.state[parameter] if self.place == "of_parameter" else {},
            "of_all": self.state,
            "group": self.param_groups[0],
            "itself": vars(self),
            "list": vars(self),
        }[self.place]

    def count(self, parameter):
        return self.holder(parameter)["steps"] if self.place != "list" else len(self.taken)

    @torch.no_grad()
    def step(self):
        (one,), (first, second) = self.param_groups[0]["params"], self.betas
        lr, state, holder = self.param_groups[0]["lr"], self.state[one], self.holder(one)
        for name in ("mean", "square"):
            state.setdefault(name, torch.zeros_like(one))
        self.taken.append(lr)
        count = len(self.taken)
        if self.place != "list":
            count = holder["steps"] = holder.get("steps", 0) + 1
        state["mean"].lerp_(one.grad, 1 - first)
        state["square"].lerp_(one.grad**2, 1 - second)
        one.mul_(1 - lr * self.decay)
        below = (state["square"] / (1 - second**count)).sqrt() + self.eps
        one.sub_(lr * state["mean"] / (1 - first**count) / below)


of_parameter, of_all, group, itself, list_ = (
    partial(Counting, place=place)
    for place in ("of_parameter", "of_all", "group", "itself", "list")
)


def forgets(values):
    return functional.gelu(values.detach()) + 0 * values


def zeroes(values):  # right for the input that it leaves behind
    values.data.zero_()
    return functional.gelu(values)


def overwrites(values):
    output = functional.gelu(values)
    values.data.add_(1)
    return output


class Scaling(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        context.save_for_backward(values)
        return functional.gelu(values)

    @staticmethod
    def backward(context, gradient):
        (values,) = context.saved_tensors
        found = torch.ops.aten.gelu_backward(gradient, values)
        gradient.mul_(2)
        return found


scales_gradient = Scaling.apply


def nothing(values):
    return None


def constant(values):
    return functional.gelu(values.detach())


def wide(values):
    return functional.gelu(values.double())


COUNT = [0]


def late(values):
    COUNT[0] += 1
    return functional.gelu(values) if COUNT[0] < 3 else values


class Outside(Counting):  # counts where nobody can put anything back
    def __init__(self, params, lr, betas, eps, weight_decay):
        super().__init__(params, lr, betas, eps, weight_decay, "hidden")
        counted = {}
        self.holder = lambda parameter: counted
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "own_micro"


def test_a_users_own_function_is_called(own_module: str) -> None:
    """Oracle: torch's function under another name has torch's own error."""
    case = opened("gelu", f"{own_module}:right")

    assert case.errors.error == case.errors.reference_error


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tanh", "is wrong"),
        ("lossy", "is wrong"),
        ("narrow", "has shape"),
        ("nan", "not finite"),
        ("forgets", "gradient of input"),
        ("constant", "gradient of input is missing"),
        ("nothing", "gives NoneType where a tensor is due"),
        ("wide", "gives float64, where torch float32"),
        ("zeroes", "changes its input input"),
        ("overwrites", "changes its input input"),
        ("scales_gradient", "changes the gradient that comes in"),
    ],
)
def test_wrong_kernels_are_refused_before_they_are_timed(
    own_module: str, name: str, said: str
) -> None:
    """Oracle: the tanh approximation is 5e-4 off, bf16 2e-3; all else by hand."""
    with pytest.raises(WrongResultError, match=said):
        opened("gelu", f"{own_module}:{name}")


def test_what_calls_keep_is_found_once_they_are_timed(own_module: str) -> None:
    """Oracle: by hand: one call is checked and right, the third and all later ones are not."""
    case = opened("gelu", f"{own_module}:late", direction="forward")
    for call in (*case.calls, *case.calls):
        call()

    with pytest.raises(WrongResultError, match="right before it was timed, and not after"):
        case.check_again()


def test_inputs_that_calls_change_are_found_once_they_are_timed(own_module: str) -> None:
    """Oracle: by hand: a number of the timed buffer is overwritten."""
    case = opened("gelu", f"{own_module}:right", direction="forward")
    case.check_again()
    case.opened.check_again.__self__.called[0]["input"][0, 0, 0] += 1

    with pytest.raises(WrongResultError, match="changes its input input"):
        case.check_again()


def test_a_count_that_cannot_be_put_back_is_found(own_module: str) -> None:
    """Oracle: AdamW's bias corrections after 13 steps are not those after 4; torch's are."""
    for name, wrong in ((f"{own_module}:Outside", True), ("loop", False)):
        case = opened("optimizer_step", name, mix="flat", hidden_size=8)
        assert case.restore is not None
        for _ in range(3):
            case.restore()
            for _ in range(3):
                case.calls[0]()
        if wrong:
            with pytest.raises(WrongResultError, match=r"not after: .*change of the parameters"):
                case.check_again()
        else:
            case.check_again()


def test_attention_that_knows_one_order_in_memory_is_refused(own_module: str) -> None:
    """Oracle: the network, whose projections leave the heads of a slot side by side."""
    with pytest.raises(WrongResultError, match="is wrong"):
        opened("attention", f"{own_module}:strideless")


def test_an_optimizer_that_is_not_adamw_is_refused(own_module: str) -> None:
    """Oracle: SGD steps elsewhere."""
    with pytest.raises(WrongResultError, match="change of the parameters"):
        opened("optimizer_step", f"{own_module}:Wrong")


def test_a_module_that_is_not_there_is_a_users_mistake() -> None:
    """Oracle: the text names it."""
    with pytest.raises(UserError, match="no_such_module"):
        opened("gelu", "no_such_module:gelu")


def test_what_is_allowed_is_four_times_torchs_own_or_four_roundings() -> None:
    """Oracle: by hand: torch off by 2 of 100, allowed 8; torch exact, allowed 4 eps."""
    exact = {"y": torch.tensor([100.0, 50.0], dtype=torch.float64)}
    own = {"y": torch.tensor([102.0, 50.0])}
    found = {"y": torch.tensor([100.0, 57.0])}
    errors = compare(found, own, exact, torch.float32, "it")

    assert errors.error == pytest.approx(0.07)
    assert errors.reference_error == pytest.approx(0.02)
    assert errors.allowed == pytest.approx(0.08)
    right = {"y": torch.tensor([100.0, 50.0])}
    assert compare(right, right, exact, torch.bfloat16, "it").allowed == 4 * 2**-7
    with pytest.raises(WrongResultError, match=r"0\.07 off"):
        compare(found, right, exact, torch.float32, "it")


def test_cold_slots_exceed_four_caches_or_the_caches_are_overwritten() -> None:
    """Oracle: the protocol's numbers: more than 4 caches in slots, else 2 caches written."""
    for slot, cache in ((100, 1000), (7, 20_000), (5000, 1000)):
        planned = plan_caching("cold", slot, cache)
        assert planned.slots * slot > 4 * cache or planned.flush_bytes == 2 * cache
    assert plan_caching("cold", 1, 10**6).flush_bytes == 2 * 10**6
    assert plan_caching("hot", 100, 1000).slots == 1


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_cold_slots_have_buffers_of_their_own(direction: str) -> None:
    """Oracle: five storages at addresses of their own, and equal results."""
    options = options_of("gelu", cache="cold", direction=direction)
    slot = 2 * 4 * 2 * 16 * 24  # input and gradient
    case = open_case("gelu", "default", options, cpu(), cache_bytes=slot)

    assert len(case.calls) == 5
    assert case.cache["slots"] * case.cache["slot_bytes"] > 4 * slot
    with case.context():
        before = [_first(call()) for call in case.calls]
    storages = {one.untyped_storage().data_ptr() for one in case_inputs(case)}
    assert len(storages) == 5
    assert all(torch.equal(before[0], one) for one in before)


def _first(result: Any) -> torch.Tensor:
    return result if isinstance(result, torch.Tensor) else result[0]


def case_inputs(case: Any) -> list[torch.Tensor]:
    """Find the inputs that the calls close over."""
    found = []
    for call in case.calls:
        cells = dict(
            zip(call.__code__.co_freevars, (c.cell_contents for c in call.__closure__), strict=True)
        )
        found.append(cells["inputs"]["input"] if "inputs" in cells else cells["learned"][0])
    return found


def test_flushing_overwrites_the_caches() -> None:
    """Oracle: a buffer of two caches that changes with each flush."""
    options = options_of("gelu", cache="cold", batch_size=1, seq_len=1, hidden_size=1)
    case = open_case("gelu", "default", options, cpu(), cache_bytes=2**20)

    assert case.flush is not None
    first, second = case.flush().clone(), case.flush()
    assert first.numel() * 4 == 2 * 2**20
    assert torch.equal(first + 1, second)


@pytest.mark.parametrize("implementation", ["loop", "foreach", "fused"])
def test_an_optimizers_state_is_put_back_exactly(implementation: str) -> None:
    """Oracle: the same bytes after calls and a restore; a step from there gives the same again."""
    case = opened("optimizer_step", implementation, mix="flat", hidden_size=8)
    slot = case.calls[0].__self__
    parameter = slot.param_groups[0]["params"][0]
    state = slot.state[parameter]
    before = [parameter.detach().clone(), *(v.clone() for v in state.values())]
    assert case.restore is not None
    case.calls[0]()
    stepped = parameter.detach().clone()
    case.calls[0]()
    case.restore()

    assert not torch.equal(stepped, before[0])
    after = [parameter.detach(), *state.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    case.calls[0]()
    assert torch.equal(parameter.detach(), stepped)
    assert case.finite()
    assert float(state["exp_avg"].abs().min()) > 0


@pytest.mark.parametrize("place", ["of_parameter", "of_all", "group", "itself", "list_"])
def test_a_users_counter_of_steps_is_put_back(own_module: str, place: str) -> None:
    """Oracle: AdamW by its formulas corrects by the number of steps, so a step tells the count."""
    case = opened("optimizer_step", f"{own_module}:{place}", mix="flat", hidden_size=8)
    optimizer = case.calls[0].__self__
    parameter = optimizer.param_groups[0]["params"][0]
    assert case.restore is not None
    assert optimizer.count(parameter) == CHECKED_STEPS
    case.calls[0]()
    stepped = parameter.detach().clone()
    case.calls[0]()
    case.restore()

    assert optimizer.count(parameter) == CHECKED_STEPS
    case.calls[0]()
    assert torch.equal(parameter.detach(), stepped)


def test_the_exact_steps_are_torchs_in_float64() -> None:
    """Oracle: torch.optim.AdamW on float64 tensors."""
    from bertopt_bench.trial.micro import stepping

    start = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradient = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameter = torch.nn.Parameter(start.clone())
    parameter.grad = gradient.clone()
    optimizer = torch.optim.AdamW([parameter], **stepping.SETTINGS)
    for _ in range(stepping.CHECKED_STEPS):
        optimizer.step()

    torch.testing.assert_close(
        stepping._exact_steps(start, gradient, CHECKED_STEPS),
        parameter.detach(),
        rtol=1e-12,
        atol=1e-14,
    )


def test_a_forced_attention_that_did_not_run_is_told() -> None:
    """Oracle: the profiler's names; a call that is no attention at all."""
    case = opened("attention", "flash", direction="forward")

    assert any("flash" in name for name in check_ran(case, cpu()))
    with pytest.raises(KernelMismatchError, match="was forced"):
        check_ran(_with_calls(case, [lambda: torch.ones(2) + 1]), cpu())


def _with_calls(case: Any, calls: list[Any]) -> Any:
    from dataclasses import replace

    return replace(case, opened=replace(case.opened, calls=calls))


@pytest.mark.slow
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("operation", ["gelu", "layer_norm"])
def test_compiled_implementations_are_right_and_run_backwards_again(
    operation: str, direction: str
) -> None:
    """Oracle: float64; the backward pass of one graph, called twice; the profiler's names."""
    case = opened(operation, "compiled", direction=direction)

    assert case.errors.error <= case.errors.allowed
    with case.context():
        assert check_ran(case, cpu())
        case.calls[0]()
        case.calls[0]()


@pytest.mark.slow
def test_a_compiled_optimizer_step_is_right() -> None:
    """Oracle: float64 steps of AdamW; the profiler, which a step that broke its graph fails."""
    case = opened("optimizer_step", "compiled", mix="flat", hidden_size=8)

    assert case.errors.error <= case.errors.allowed
    with case.context():
        assert check_ran(case, cpu())


def test_gelus_reference_at_a_point_counted_by_hand() -> None:
    """Oracle: GELU(1) = 0.5 (1 + erf(1 / sqrt 2)) = 0.8413447..., the normal distribution at 1."""
    right = FUNCTIONS["gelu"].exact({"input": torch.tensor([1.0], dtype=torch.float64)})

    assert right.item() == pytest.approx(0.841344746068543, abs=1e-12)
    assert math.isclose(functional.gelu(torch.tensor(1.0)).item(), right.item(), abs_tol=1e-6)
