"""Kernels are checked against float64 before they are timed: right ones pass, wrong ones fail."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from segmented import by_segments
from torch.nn import functional

from bertopt_bench.axes.kernels import Kernel
from bertopt_bench.errors import UserError
from bertopt_bench.trial import assemble as assembling
from bertopt_bench.trial import checking, inference, worker
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.checking import KernelCheckError, check_numbers, granted_error
from bertopt_bench.trial.layouts import Arrangement

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.trial.live import Trial

    MakeRequest = Callable[..., dict[str, Any]]


def attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0
) -> Any:
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    return scores.softmax(-1) @ value


def layer_norm(hidden: Any, _shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    centred = hidden - hidden.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt() * weight + bias


def gelu(hidden: Any) -> Any:
    return hidden * torch.special.ndtr(hidden)


def mlm_loss(hidden: Any, weight: Any, bias: Any, labels: Any) -> Any:
    logits = functional.linear(hidden, weight, bias).float()
    return functional.cross_entropy(logits, labels, reduction="sum")


def mlm_loss_in_64(hidden: Any, weight: Any, bias: Any, labels: Any) -> Any:
    logits = functional.linear(hidden, weight, bias)
    return functional.cross_entropy(logits, labels, reduction="sum")


RIGHT: dict[str, Any] = {
    "attention": attention,
    "layer_norm": layer_norm,
    "gelu": gelu,
    "mlm_loss": mlm_loss,
}


def with_kernel(trial: Trial, operation: str, call: Any) -> Trial:
    trial.kernels = {**trial.kernels, operation: Kernel(call=call)}
    trial.cell["kernel"][operation] = {"name": "mine:own"}  # type: ignore[index]
    return trial


def test_64_bits_are_granted_what_the_reference_rounds_itself() -> None:
    """Oracle: a chunked loss in fp64 was 27 roundings off a reference of the same dtype.

    What computes in fp32 is a hundred thousand times as far off.
    """
    allowed = granted_error(torch.float64)

    assert 27 * torch.finfo(torch.float64).eps < allowed < torch.finfo(torch.float32).eps / 1e5


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("operation", RIGHT)
def test_plain_operations_pass(make_request: MakeRequest, operation: str, precision: str) -> None:
    """Written out in torch's plain operations; oracle: the formulas in float64.

    Output and the gradient of every floating input are compared; errors are of the dtype's size.
    """
    call = RIGHT[operation]
    if (operation, precision) == ("mlm_loss", "fp64"):
        call = mlm_loss_in_64
    trial = with_kernel(assemble(make_request(precision=precision)), operation, call)

    rows = check_numbers(trial)

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}[precision]
    inputs = {"attention": 3, "layer_norm": 3, "gelu": 1, "mlm_loss": 3}[operation]
    assert len(rows) == 1 + inputs
    assert {row["operation"] for row in rows} == {operation}
    assert {row["dtype"] for row in rows} == {str(dtype).removeprefix("torch.")}
    for row in rows:
        assert row["error"] <= row["allowed_error"]
        assert row["torch_error"] <= 64 * torch.finfo(dtype).eps


def no_gradient(hidden: Any) -> Any:
    return functional.gelu(hidden).detach() + 0 * hidden


def as_if_dense(tensor: Any) -> Any:
    """Read memory as a kernel does that knows no strides."""
    return tensor.as_strided(tensor.shape, torch.empty(tensor.shape, device="meta").stride())


def in_sixteens(function: Any) -> Any:
    """Let an operation on rows forget those behind the last whole sixteen."""

    def compute(hidden: Any, *parameters: Any) -> Any:
        rows = hidden.reshape(-1, hidden.shape[-1])
        whole = len(rows) // 16 * 16
        done = torch.cat([function(rows[:whole], *parameters), rows[whole:]])
        return done.reshape(hidden.shape)

    return compute


class DenseGradient(torch.autograd.Function):
    """Hand a gradient on as if it lay densely."""

    @staticmethod
    def forward(_: Any, mixed: Any) -> Any:
        return mixed.contiguous()

    @staticmethod
    def backward(_: Any, gradient: Any) -> Any:  # type: ignore[override]
        return as_if_dense(gradient)


class UnscaledGradient(torch.autograd.Function):
    """Hand on a gradient of 1, whatever came."""

    @staticmethod
    def forward(_: Any, loss: Any) -> Any:
        return loss.clone()

    @staticmethod
    def backward(_: Any, gradient: Any) -> Any:  # type: ignore[override]
        return torch.ones_like(gradient)


WRONG: list[tuple[str, Any, str]] = [
    ("attention", lambda q, k, v, **o: attention(*map(as_if_dense, (q, k, v)), **o), "output"),
    (
        "attention",
        lambda q, k, v, **o: DenseGradient.apply(attention(q, k, v, **o)),
        "gradient of query",
    ),
    ("mlm_loss", lambda *given: UnscaledGradient.apply(mlm_loss(*given)), "gradient of hidden"),
    ("layer_norm", in_sixteens(layer_norm), "output"),
    ("gelu", in_sixteens(gelu), "output"),
    ("gelu", lambda hidden: functional.gelu(hidden, approximate="tanh"), "output"),
    ("gelu", no_gradient, "gradient of input"),
    ("gelu", lambda hidden: functional.gelu(hidden) * float("nan"), "output"),
    ("attention", lambda q, k, v, **_: attention(q, k, v), "output"),  # forgets the mask
    (
        "attention",
        lambda q, k, v, attn_mask, **_: attention(2 * q, k, v, attn_mask),
        "output",
    ),
    ("layer_norm", lambda x, s, w, b, eps: layer_norm(x, s, w, b, eps + 0.01), "output"),
    (
        "layer_norm",
        lambda x, s, w, b, eps: layer_norm(x, s, w, b.detach(), eps),
        "gradient of bias",
    ),
    ("mlm_loss", lambda h, w, b, y: mlm_loss(h, w, b, y) / (y != -100).sum(), "output"),
    ("mlm_loss", lambda h, w, b, y: mlm_loss(h, w, b, y.clamp(min=0)), "output"),
]


@pytest.mark.parametrize(("operation", "call", "quantity"), WRONG)
def test_wrong_kernels_fail_with_both_numbers(
    make_request: MakeRequest, operation: str, call: Any, quantity: str
) -> None:
    """Oracle: mistakes made on purpose, and which quantity shows each first."""
    trial = with_kernel(assemble(make_request()), operation, call)

    with pytest.raises(KernelCheckError) as error:
        check_numbers(trial)

    text = str(error.value)
    assert text.startswith(f"kernel.{operation} 'mine:own': its {quantity} differs from float64 by")
    assert "torch's own in float32 by" in text
    assert worker.classify(error.value) == ("failed", text)


def spoilt(name: str) -> Any:
    """Compute an operation rightly, and write into what it was given."""

    def attend(query: Any, key: Any, value: Any, attn_mask: Any, dropout_p: float) -> Any:
        mixed = attention(query, key, value, attn_mask, dropout_p)
        attn_mask.logical_not_()
        return mixed

    def lose(hidden: Any, weight: Any, bias: Any, labels: Any) -> Any:
        loss = mlm_loss(hidden, weight, bias, labels.clone())
        if name == "labels":
            labels.clamp_(min=0)
        else:
            bias.data.add_(1.0)  # softmax does not see it
        return loss

    return attend if name == "attn_mask" else lose


@pytest.mark.parametrize("name", ["attn_mask", "labels", "bias"])
def test_a_kernel_that_changes_what_it_is_given_fails(make_request: MakeRequest, name: str) -> None:
    """Oracle: right numbers, and a mask, labels or weights that later calls would read spoilt."""
    operation = "attention" if name == "attn_mask" else "mlm_loss"
    trial = with_kernel(assemble(make_request()), operation, spoilt(name))

    with pytest.raises(KernelCheckError, match=f"it changed its {name} in place") as error:
        check_numbers(trial)

    assert "failed when it was checked" not in str(error.value)


def test_each_run_of_an_unpadded_layout_is_a_length_to_check(make_request: MakeRequest) -> None:
    """Oracle: attention that is right on whole rows alone; unpadded text has shorter runs."""
    trial = assemble(make_request({"layout": "unpadded"}))
    slots = trial.cell["workload"]["seq_len"]

    def on_whole_rows(query: Any, key: Any, value: Any, **options: Any) -> Any:
        return attention(query, key, value, **options) * (1.0 if query.shape[2] == slots else 1.1)

    with pytest.raises(KernelCheckError, match="its output differs"):
        check_numbers(with_kernel(trial, "attention", on_whole_rows))


def test_another_shape_is_told(make_request: MakeRequest) -> None:
    """Oracle: the two shapes, by hand: 4 sequences of 12 slots, 32 inner units."""
    trial = with_kernel(assemble(make_request()), "gelu", lambda hidden: hidden.sum(-1))

    with pytest.raises(KernelCheckError, match=r"shape \[4, 12\]; it must have \[4, 12, 32\]"):
        check_numbers(trial)


def test_what_changes_numbers_on_purpose_is_not_checked(make_request: MakeRequest) -> None:
    """The tanh approximation is no mistake of its own entry; nothing replaced, nothing checked."""
    assert check_numbers(assemble(make_request(gelu="tanh"))) == []
    assert check_numbers(assemble(make_request())) == []


def test_our_own_chunked_loss_is_checked(make_request: MakeRequest) -> None:
    """Oracle: the formula in float64, in the dtype of the cell."""
    for precision in ("fp32", "bf16"):
        rows = check_numbers(assemble(make_request(mlm_loss="chunked", precision=precision)))

        assert [row["quantity"] for row in rows] == [
            "output", "gradient of hidden", "gradient of weight", "gradient of bias",
        ]  # fmt: skip


class Segments:
    """Attention by plain operations that also walks over segments, as flash-attn does."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, query: Any, key: Any, value: Any, **options: Any) -> Any:
        return attention(query * self.scale, key, value, **options)

    def segments(self, query: Any, key: Any, value: Any, borders: Any, longest: int) -> Any:
        return by_segments(query * self.scale, key, value, borders, longest)


@pytest.mark.parametrize("layout", ["unpadded", "packed"])
def test_attention_over_segments_is_checked_as_it_runs(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """Oracle: the formula on one row, each slot to those of its own segment."""
    monkeypatch.setattr(assembling, "arrange", lambda _: Arrangement(layout, "borders", False))

    def rows(call: Any) -> list[dict[str, Any]]:
        request = make_request({"layout": layout})
        return check_numbers(with_kernel(assemble(request), "attention", call))

    assert [row["quantity"] for row in rows(Segments())] == [
        "output", "gradient of query", "gradient of key", "gradient of value",
    ]  # fmt: skip
    with pytest.raises(KernelCheckError, match="its output differs"):
        rows(Segments(1.1))


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"precision": "bf16"},
        {"precision": "fp64"},
        {"regularizer": ["dropout"]},
    ],
)
@pytest.mark.parametrize("layout", ["padded", "unpadded", "packed"])
def test_a_whole_model_of_ones_own_is_checked(
    make_request: MakeRequest, layout: str, axes: dict[str, Any]
) -> None:
    """Oracle: the textbook's model in float64; of all gradients the worst has a row."""
    trial = assemble(make_request({"layout": layout}, **axes))
    compiled(trial, lambda model: model)
    state = torch.get_rng_state()

    rows = check_numbers(trial)

    assert [row["operation"] for row in rows] == ["compile", "compile"]
    assert rows[0]["quantity"] == "output"
    assert rows[1]["quantity"].startswith("gradient of ")
    assert all(row["error"] == row["torch_error"] for row in rows)
    assert trial.model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in trial.model.parameters())


def compiled(trial: Trial, make: Callable[[Any], Any]) -> Trial:
    with_kernel(trial, "compile", make)
    trial.compiled = make(trial.model)
    return trial


def half_of_a_gradient(model: Any) -> Any:
    def run(*inputs: Any, **named: Any) -> Any:
        logits = model(*inputs, **named)
        return logits.detach() * 0.5 + logits * 0.5

    return run


WRONG_MODELS: list[tuple[Any, str]] = [
    (lambda model: lambda *inputs, **named: model(*inputs, **named) * 1.001, "output"),
    (half_of_a_gradient, "gradient of"),
    (lambda model: lambda ids, _mask, index: model(ids, None, index), "output"),
]


@pytest.mark.parametrize(("make", "quantity"), WRONG_MODELS)
def test_a_wrong_model_fails_with_both_numbers(
    make_request: MakeRequest, make: Any, quantity: str
) -> None:
    """Oracle: mistakes made on purpose: a scale, half a gradient, a mask that is forgotten."""
    trial = compiled(assemble(make_request()), make)

    with pytest.raises(KernelCheckError) as error:
        check_numbers(trial)

    assert str(error.value).startswith(f"kernel.compile 'mine:own': its {quantity}")


def test_forward_only_no_gradient_is_asked_for(make_request: MakeRequest) -> None:
    """A kernel without a backward pass serves in inference; its output is checked all the same."""

    def only_forward(hidden: Any) -> Any:
        assert not torch.is_grad_enabled()
        return gelu(hidden)

    request = make_request({"mode": "inference"})
    trial = with_kernel(assemble(request), "gelu", only_forward)
    compiled(trial, lambda model: model)

    assert [(row["operation"], row["quantity"]) for row in check_numbers(trial)] == [
        ("gelu", "output"),
        ("compile", "output"),
    ]


DROPPING = [{"name": "dropout", "dropout": 0.0, "attention_dropout": 0.3}]


def dropping(share: float = 1.0, scaled: float = 1.0) -> Any:
    """Give attention that drops so much of what it is told, and scales up the rest."""

    def attend(
        query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0
    ) -> Any:
        rate = share * dropout_p
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        weights = scores.softmax(-1)
        return (functional.dropout(weights, rate) * (scaled if rate else 1.0)) @ value

    return attend


def with_dropout(make_request: MakeRequest, call: Any, **axes: Any) -> Trial:
    request = make_request(**axes)
    request["cell"]["regularizer"] = DROPPING
    return with_kernel(assemble(request), "attention", call)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_attention_that_drops_what_it_is_told_passes(
    make_request: MakeRequest, precision: str
) -> None:
    """Oracle: torch's dropout on the weights; the check draws nothing from the trial's stream."""
    trial = with_dropout(make_request, dropping(), precision=precision)
    before = torch.get_rng_state()

    assert {row["operation"] for row in check_numbers(trial)} == {"attention"}
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "call", [dropping(0.0), dropping(0.3), dropping(1.0, scaled=0.7), dropping(1.0, scaled=1.2)]
)
def test_attention_that_drops_otherwise_fails(make_request: MakeRequest, call: Any) -> None:
    """Oracle: mistakes made on purpose: no dropout, a third of it, weights that are not scaled."""
    with pytest.raises(KernelCheckError, match=r"told dropout_p=0\.3, it does not drop so many"):
        check_numbers(with_dropout(make_request, call))
    undropped = with_kernel(assemble(make_request()), "attention", call)
    assert check_numbers(undropped), "where nothing is to be dropped it is not asked"


def test_a_mask_that_only_held_out_text_needs_is_asked_for(make_request: MakeRequest) -> None:
    """Oracle: attention that forgets the mask, over train text without any padding."""
    trial = with_kernel(
        assemble(make_request()), "attention", lambda q, k, v, **_: attention(q, k, v)
    )
    masked = trial.batches.at(0)
    assert masked.attention_mask is not None
    trial.batches = SimpleNamespace(  # type: ignore[assignment]
        at=lambda _: replace(masked, attention_mask=None), micro_size=trial.batches.micro_size
    )

    with pytest.raises(KernelCheckError, match="its output differs"):
        check_numbers(trial)


RAISING: list[tuple[str, Any, str]] = [
    ("attention", lambda query, key: query + key, "TypeError: .*unexpected keyword argument"),
    ("gelu", lambda _: None, "TypeError: it gives NoneType where a tensor is due"),
    ("gelu", lambda hidden: functional.gelu(hidden).detach(), "does not require grad"),
    ("mlm_loss", lambda *_: 1 / 0, "ZeroDivisionError: division by zero"),
    ("layer_norm", lambda x: x, "TypeError: .*positional argument"),
]


@pytest.mark.parametrize(("operation", "call", "words"), RAISING)
def test_a_kernel_that_raises_is_named_with_how_it_is_called(
    make_request: MakeRequest, operation: str, call: Any, words: str
) -> None:
    """Oracle: the exception's own words, and the note of the operation's first entry."""
    trial = with_kernel(assemble(make_request()), operation, call)

    with pytest.raises(KernelCheckError, match=words) as error:
        check_numbers(trial)

    text = str(error.value)
    assert text.startswith(f"kernel.{operation} 'mine:own' failed when it was checked: ")
    assert "It must be 'module:function', called as " in text
    assert worker.classify(error.value) == ("failed", text)


def test_how_ones_own_is_called_is_not_told_of_an_entry(make_request: MakeRequest) -> None:
    """Oracle: the flash-attn package's entry, which is not installed here, or finds no GPU."""
    trial = assemble(make_request(attention="flash_attn"))

    with pytest.raises(KernelCheckError, match=r"^kernel\.attention 'flash_attn' failed") as error:
        check_numbers(trial)

    assert "module:function" not in str(error.value)


def test_what_a_compiler_says_over_pages_is_one_line_with_its_place() -> None:
    """Oracle: the exception's first words; Inductor's tell of whole graphs, with their paths."""
    pages = "".join(f"\n  target: node_{number} in /home/somebody" for number in range(1000))
    with pytest.raises(RuntimeError) as error:
        raise RuntimeError("LoweringException: not enough values" + pages)
    status, reason = worker.classify(error.value)

    assert status == "failed"
    assert reason.startswith("RuntimeError: LoweringException: not enough values target: node_0 ")
    assert len(reason) < 500
    assert "\n" not in reason
    assert "(at test_checking.py:" in reason


def test_a_lack_of_memory_is_no_mistake_of_the_kernel(make_request: MakeRequest) -> None:
    """Oracle: the record's status of torch's own exception."""

    def hungry(_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError) as error:
        check_numbers(with_kernel(assemble(make_request()), "gelu", hungry))
    assert worker.classify(error.value)[0] == "out_of_memory"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: None, r"failed: TypeError: .*takes 0 positional arguments"),
        (lambda _: None, "gives NoneType"),
    ],
)
def test_what_makes_no_model_is_told(make: Any, words: str) -> None:
    """Oracle: the house rule: what came, what is due; a failed record without a frame."""
    with pytest.raises(UserError, match=f"kernel.compile 'os:getcwd' {words}.*model alone"):
        assembling._compiled(torch.nn.Linear(1, 1), "os:getcwd", Kernel(call=make))


def to_another_dtype(model: Any) -> Any:
    return model.bfloat16()


def with_a_new_parameter(model: Any) -> Any:
    model.weight = torch.nn.Parameter(model.weight.detach().clone())
    return model


def with_another_value(model: Any) -> Any:
    model.weight.data.add_(1.0)
    return model


@pytest.mark.parametrize("make", [to_another_dtype, with_a_new_parameter, with_another_value])
def test_a_model_whose_parameters_are_changed_is_refused(make: Any) -> None:
    """Oracle: the optimizer holds the parameters that the model had, in the cell's dtype."""
    model = torch.nn.Linear(2, 2)

    with pytest.raises(
        UserError, match=r"kernel.compile 'os:getcwd' changed .* \('(bias|weight)'\)"
    ):
        assembling._compiled(model, "os:getcwd", Kernel(call=make))


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_what_the_check_takes_is_part_of_the_time_to_the_first_step(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Oracle: a scripted clock that only the check moves: kernels may be compiled in it."""
    now = [0.0]

    def check(_: Any) -> list[dict[str, Any]]:
        now[0] += 1000.0
        return []

    monkeypatch.setattr(checking, "check_numbers", check)
    for room in (worker, inference):
        monkeypatch.setattr(room, "perf_counter", lambda: now[0])
    sent: list[dict[str, Any]] = []
    worker.run_trial(make_request({"mode": mode}), sent.append, [0])

    assert sent[-1]["time_to_first_step_seconds"] > 1000.0
    assert sent[-1]["burn_in_seconds"] == 0.0


def test_the_check_draws_nothing_from_the_trials_generators(make_request: MakeRequest) -> None:
    """Oracle: the generator's state before."""
    trial = with_kernel(assemble(make_request()), "gelu", gelu)
    before = torch.get_rng_state()
    check_numbers(trial)

    assert torch.equal(torch.get_rng_state(), before)


def test_the_record_carries_the_errors(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the rows that the check gave; a failing one ends the trial before its burn-in."""
    sent: list[dict[str, Any]] = []
    worker.run_trial(make_request(mlm_loss="chunked"), sent.append, [0])

    rows = sent[-1]["kernel_errors"]
    assert {row["operation"] for row in rows} == {"mlm_loss"}

    def fail(_: Any) -> list[dict[str, Any]]:
        raise KernelCheckError("wrong")

    monkeypatch.setattr(checking, "check_numbers", fail)
    sent.clear()
    worker.run_task("trial", make_request(), sent.append, [0], lambda: None)
    assert [message["kind"] for message in sent] == ["ready", "failure"]
    assert sent[-1] == {"kind": "failure", "status": "failed", "reason": "wrong"}
