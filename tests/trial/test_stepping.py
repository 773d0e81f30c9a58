"""Compiled and captured steps: the same updates, put back in place, and proved by the trace."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bertopt_bench import catalogue
from bertopt_bench.axes.kernels import _steps
from bertopt_bench.errors import UserError
from bertopt_bench.trial import passes, stepping
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.optimizing import InPlaceReset, initial_values, set_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bertopt_bench.trial.live import Trial

    MakeRequest = Callable[..., dict[str, Any]]

DECLARED = {
    name: entry.notes["Initial"]
    for name, entry in catalogue.entries("optimizer").items()
    if "Initial" in entry.notes
}


def train(trial: Trial) -> tuple[list[float], dict[str, torch.Tensor]]:
    for index in range(trial.steps):
        trial.step(index)
    return trial.drain(), {k: v.clone() for k, v in trial.model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "momentum", "lamb"])
def test_compiled_steps_train_as_eager_ones(make_request: MakeRequest, name: str) -> None:
    """Oracle: the optimizer's own step, over a falling rate: losses to rounding."""
    torch.compiler.reset()
    expected = train(assemble(make_request(optimizer=name)))
    found = train(assemble(make_request(optimizer=name, optimizer_step="compiled")))

    assert found[0] == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_a_compiled_step_is_proved_by_its_trace(make_request: MakeRequest, name: str) -> None:
    """Oracle: the profiler's names; an eager step in its place fails the trial."""
    torch.compiler.reset()
    trial = assemble(make_request(optimizer=name, optimizer_step="compiled"))
    traced, _ = passes.trace(trial)

    assert any("Torch-Compiled Region" in operation for operation in traced.operations)

    eager = assemble(make_request(optimizer=name))
    eager.kernels = trial.kernels
    with pytest.raises(passes.KernelMismatchError, match=r"kernel\.optimizer_step was forced"):
        passes.trace(eager)


def test_a_step_that_cannot_be_one_graph_raises() -> None:
    """Nothing falls back to eager unseen; oracle: adafactor, which reads norms to the host."""
    torch.compiler.reset()
    weight = torch.ones(3, 3, requires_grad=True)
    weight.grad = torch.ones(3, 3)
    optimizer = catalogue.resolve("optimizer", "adafactor")(
        [{"params": [weight], "role": "matrix"}], lr=0.1
    )
    _steps.compile_step(optimizer)

    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        optimizer.step()


@pytest.mark.parametrize("name", DECLARED)
def test_declared_values_are_those_of_a_fresh_state(name: str) -> None:
    """Two steps, a reset, and two more are two steps of a fresh optimizer; oracle: bit equality.

    The state tensors stay where they are.
    """

    def run(weights: list[torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
        for step in range(2):
            for weight in weights:
                weight.grad = torch.cos(weight.detach() * (step + 1))
            set_rates(optimizer, 1.0 - 0.25 * step)
            optimizer.step()

    draws = [torch.randn(5, 3), torch.randn(3)]
    trained = []
    for twice in (False, True):
        weights = [draw.clone().requires_grad_() for draw in draws]
        roles = zip(("matrix", "vector"), weights, strict=True)
        optimizer = catalogue.resolve("optimizer", name)(
            [{"params": [weight], "role": role} for role, weight in roles], lr=0.1
        )
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        choice = catalogue.canonical(catalogue.find("optimizer", name), {})
        reset = InPlaceReset(optimizer, initial_values(DECLARED[name], choice))
        run(weights, optimizer)
        if twice:
            places = [v.data_ptr() for s in optimizer.state.values() for v in s.values()]
            reset()
            with torch.no_grad():
                for weight, draw in zip(weights, draws, strict=True):
                    weight.copy_(draw)
            run(weights, optimizer)
            if name != "lamb":  # which keeps its last trust ratios, new tensors each step
                assert places == [
                    v.data_ptr() for s in optimizer.state.values() for v in s.values()
                ]
        trained.append([weight.detach().clone() for weight in weights])

    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


def test_state_that_is_not_declared_is_refused() -> None:
    """Oracle: the state's name, and where to declare it."""
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.ones(2)
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    reset = InPlaceReset(optimizer, {})
    optimizer.step()

    with pytest.raises(UserError, match=r"keeps 'momentum_buffer' .* declares nothing.*Initial:"):
        reset()


@pytest.mark.parametrize(
    ("note", "values"),
    [
        ("nothing.", {}),
        ("step 0, exp_avg 0.5.", {"step": 0.0, "exp_avg": 0.5}),
        ("sum start", {"sum": 0.25}),
    ],
)
def test_initial_values_are_numbers_or_options(note: str, values: dict[str, float]) -> None:
    """Oracle: written out."""
    assert initial_values(note, {"name": "x", "start": 0.25}) == values


@pytest.mark.parametrize("note", ["", "step", "step zero", "step 0; sum 1"])
def test_other_declarations_are_refused(note: str) -> None:
    """Oracle: the docstring's line, quoted."""
    with pytest.raises(UserError, match="Initial: "):
        initial_values(note, {})


OWN = '''
"""An optimizer of a user's own, which says how its state begins."""
import torch


class Signs(torch.optim.Optimizer):
    """Step by the sign of a momentum.

    Initial: momentum 0.
    """

    def __init__(self, params, *, lr: float = 1e-3, decay: float = 0.9):
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["decay"])
                weight.sub_(group["lr"] * state["momentum"].sign())
'''


@pytest.mark.slow
def test_an_optimizer_of_ones_own_can_be_compiled(
    make_request: MakeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: its eager step; and a second run after the reset equals the first bit for bit."""
    (tmp_path / "own_signs.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.compiler.reset()
    request = make_request(optimizer_step="compiled")
    request["cell"]["optimizer"] = {"name": "own_signs:Signs", "lr": 1e-3, "decay": 0.9}
    eager = make_request()
    eager["cell"]["optimizer"] = request["cell"]["optimizer"]

    trial = assemble(request)
    first = train(trial)
    trial.restore()
    again = train(trial)

    assert first[0] == pytest.approx(train(assemble(eager))[0], rel=1e-5)
    assert again[0] == first[0]
    assert all(torch.equal(again[1][key], value) for key, value in first[1].items())


# ---- the whole step as one captured call, with a capture that replays by calling again ----


def _again(call: Callable[[], Any]) -> Callable[[], Any]:
    """Stand in for a CUDA graph: capturing runs nothing, replaying calls."""
    return call


def with_captured_step(request: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Trial:
    run = partial(_steps.Captured, capture=_again, warm=lambda call: call())
    monkeypatch.setattr(
        stepping, "capture_whole_step", lambda trial: setattr(
            trial, "whole_step", stepping.WholeStep(trial, run)
        )
    )  # fmt: skip
    monkeypatch.setattr("bertopt_bench.trial.assemble.capture_whole_step",
                        stepping.capture_whole_step)  # fmt: skip
    return assemble(request)


AXES: list[dict[str, Any]] = [
    {"optimizer": "sgd"},
    {"optimizer": "nesterov", "workload": {"micro_batches": 2}},
    {"optimizer": "momentum", "regularizer": ["dropout", "weight_decay", "grad_clip"]},
    {"optimizer": "momentum", "regularizer": ["l1"], "mlm_loss": "chunked"},
    {"optimizer": "momentum", "precision": "bf16", "mlm_loss": "dense"},
]


@pytest.mark.parametrize("axes", AXES)
def test_a_whole_step_from_buffers_equals_the_plain_one(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, axes: dict[str, Any]
) -> None:
    """Oracle: the trial that steps without buffers, to rounding of the rate and the division."""
    plain = train(assemble(make_request(**axes)))
    captured = train(with_captured_step(make_request(cuda_graph="step", **axes), monkeypatch))

    assert captured[0] == pytest.approx(plain[0], rel=1e-5)
    for key, value in plain[1].items():
        torch.testing.assert_close(captured[1][key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", AXES)
def test_a_whole_step_is_put_back_in_place(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, axes: dict[str, Any]
) -> None:
    """Oracle: its own first run, bit for bit; what the capture holds on to stays where it lies."""
    trial = with_captured_step(make_request(cuda_graph="step", **axes), monkeypatch)

    def places() -> list[int]:
        gradients = [p.grad for p in trial.model.parameters() if p.grad is not None]
        return [t.data_ptr() for t in (*gradients, *trial.resident_tensors())]

    first = train(trial)
    before = places()
    trial.restore()
    again = train(trial)

    assert places() == before
    assert again[0] == first[0]
    assert all(torch.equal(again[1][key], value) for key, value in first[1].items())
    assert trial.whole_step is not None


def test_the_peak_of_a_captured_step_is_that_of_its_parts(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the plain trial; kept gradients lie there besides. Replays here do nothing at all."""
    plain = assemble(make_request(optimizer="momentum"))
    trial = with_captured_step(make_request(optimizer="momentum", cuda_graph="step"), monkeypatch)
    for one in (plain, trial):
        train(one)
    trial.whole_step = lambda _: None
    monkeypatch.setattr(passes, "check_kernels", lambda *_: None)  # no graph was launched here

    least = passes.trace(plain)[1]
    gradients = sum(p.numel() * p.element_size() for p in trial.model.parameters())
    assert least <= passes.trace(trial)[1] <= least + gradients


def test_a_captured_call_is_replayed_after_its_eager_runs() -> None:
    """Oracle: the calls, counted: two eager ones, one capture, then replays only."""
    said: list[str] = []

    def capture(_: Callable[[], Any]) -> Callable[[], Any]:
        said.append("captured")
        return lambda: said.append("replayed")

    captured = _steps.Captured(lambda: said.append("ran"), capture, lambda call: call())
    for _ in range(4):
        captured()

    assert said == ["ran", "ran", "captured", "replayed", "replayed"]


class Streams:
    """Stands in for what a capture asks of torch.cuda; notes in which stream calls are made."""

    def __init__(self) -> None:
        self.made, self.current, self.log = 0, "main", list[str]()

    def make(self) -> Any:
        self.made += 1
        return SimpleNamespace(name=f"side {self.made}", wait_stream=lambda _: None)

    @contextmanager
    def within(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream.name
        yield
        self.current = before

    def graph(self, _graph: Any, stream: Any) -> Any:
        return self.within(stream)

    def called(self) -> None:
        self.log.append(self.current)


def test_a_call_is_captured_in_the_stream_that_it_ran_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the streams that the calls see: one side stream, for eager runs and the capture."""
    streams = Streams()
    given = {
        "Stream": streams.make,
        "stream": streams.within,
        "graph": streams.graph,
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "current_stream": lambda: SimpleNamespace(wait_stream=lambda _: None),
        "current_device": lambda: 0,
        "synchronize": lambda: None,
    }
    for name, value in given.items():
        monkeypatch.setattr(torch.cuda, name, value)
    _steps._side.cache_clear()
    step = _steps.Captured(streams.called, _steps.capture, _steps.beside)
    try:
        for _ in range(4):
            step()
    finally:
        _steps._side.cache_clear()

    assert streams.log == ["side 1"] * 3  # two eager runs and the capture


class OnGpu:
    """An optimizer whose weights say that they lie on a GPU."""

    def __init__(self, *groups: dict[str, Any], cuda: bool = True) -> None:
        weight = SimpleNamespace(is_cuda=cuda, dtype=torch.float32, device="cpu")
        self.param_groups = [{"params": [weight], "lr": 0.1, **group} for group in groups]
        self.state: dict[Any, Any] = {}

    def step(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("cuda", [True, False])
def test_a_reset_leaves_what_dynamo_would_set_on_a_gpu(cuda: bool) -> None:
    """Groups that know ``capturable`` have it from the start; oracle: Dynamo's own rule."""
    optimizer: Any = OnGpu({"capturable": False}, {}, cuda=cuda)
    _steps.compile_step(optimizer)
    reset = InPlaceReset(optimizer, {})
    if cuda:  # torch._dynamo.variables.optimizer, _set_capturable
        optimizer.param_groups[0]["capturable"] = True
    reset()

    assert optimizer.param_groups[0]["capturable"] is cuda
    assert "capturable" not in optimizer.param_groups[1]
