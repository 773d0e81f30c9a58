"""A real profile: its tables are torch's own, and making it leaves no mark."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.profiler import profile

from bertopt_bench.measure.trace_tables import tabulate_trace
from bertopt_bench.measure.traces import MODULE, PHASE, mend, parse_trace, read_trace
from bertopt_bench.measure.tracing import StepTrace
from bertopt_bench.trial import assemble, checking, passes, profiling

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bertopt_bench.measure.trace_tables import TraceTables

STEPS = 3


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def profiled(
    request: pytest.FixtureRequest,
    make_request: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, TraceTables, int, dict[str, Any]]:
    """Profile a trial; give torch's profiler, our tables, the bytes held, the raw trace."""
    file = tmp_path_factory.mktemp("profile") / "trace.json"
    kept: list[Any] = []
    export = profile.export_chrome_trace
    trial = assemble.assemble(make_request(precision=request.param))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            profile,
            "export_chrome_trace",
            lambda self, path: (kept.append(self), export(self, path))[1],
        )
        held = profiling.record_trace(trial, 2, STEPS, file)
    trial.close()
    raw = read_trace(file)
    return kept[0], tabulate_trace(parse_trace(mend(raw, "made")), held), held, raw


def test_calls_own_and_total_time_are_those_of_key_averages(
    profiled: tuple[Any, TraceTables, int, dict[str, Any]],
) -> None:
    """Oracle: torch.profiler's key_averages on the same run, operator by operator, 1 %."""
    profiler, tables, *_ = profiled
    ours: dict[str, list[float]] = {}
    for row in tables.operators:
        sums = ours.setdefault(row.name, [0.0, 0.0, 0.0])
        sums[0] += row.calls
        sums[1] += sum(row.self_seconds)
        sums[2] += sum(row.total_seconds)
    theirs = {
        row.key: row
        for row in profiler.key_averages()
        if not row.key.startswith((PHASE, MODULE, "ProfilerStep", "Optimizer."))
        and row.key != "[memory]"
    }

    assert ours.keys() == theirs.keys()
    for name, (calls, own, total) in ours.items():
        assert calls == theirs[name].count, name
        assert own == pytest.approx(theirs[name].self_cpu_time_total * 1e-6, rel=0.01, abs=2e-7)
        assert total == pytest.approx(theirs[name].cpu_time_total * 1e-6, rel=0.01, abs=2e-7)


def test_shapes_are_kept_apart_as_key_averages_does(
    profiled: tuple[Any, TraceTables, int, dict[str, Any]],
) -> None:
    """Oracle: key_averages(group_by_input_shape=True): the number of groups of products."""
    profiler, tables, *_ = profiled
    names = {"aten::mm", "aten::addmm", "aten::bmm", "aten::native_layer_norm"}
    theirs = [row for row in profiler.key_averages(group_by_input_shape=True) if row.key in names]

    shapes = {(row.name, row.shapes) for row in tables.operators if row.name in names}
    assert len(shapes) == len({(row.key, str(row.input_shapes)) for row in theirs})


def test_every_step_has_its_phases_and_operators_fill_modules(
    profiled: tuple[Any, TraceTables, int, dict[str, Any]],
) -> None:
    """Oracle: the model's own module paths; the parts of a step sum to the step exactly."""
    _, tables, *_ = profiled

    assert len(tables.step_seconds) == STEPS
    for step in range(STEPS):
        parts = sum(row.seconds[step] for row in tables.phases)
        assert parts == pytest.approx(tables.step_seconds[step], rel=1e-6)
    modules = {(row.module, row.phase) for row in tables.modules}
    layer = "bert.encoder.layer.*"
    for path in (
        "bert.embeddings.LayerNorm",
        f"{layer}.attention.self.query",
        f"{layer}.attention.self",
        f"{layer}.output.dense",
        "cls.predictions.transform.dense",
    ):
        assert (path, "forward") in modules
        assert (path, "backward") in modules
    assert ("(optimizer)", "optimizer") in modules
    assert ("(loss)", "backward") in modules
    products = [row for row in tables.modules if row.operator == "aten::mm"]
    assert all(not row.module.startswith("(") for row in products), "each product has its module"


def test_memory_returns_to_what_is_held_and_peaks_where_the_memory_pass_says(
    profiled: tuple[Any, TraceTables, int, dict[str, Any]],
    make_request: Callable[..., dict[str, Any]],
    request: pytest.FixtureRequest,
) -> None:
    """Oracle: the trial's separate memory pass, another run of the profiler, 2 %."""
    _, tables, held, _ = profiled
    trial = assemble.assemble(make_request(precision=request.node.callspec.params["profiled"]))
    passes.burn_in(trial, 1)
    _, peak = passes.trace(trial)
    trial.close()

    assert tables.timeline is not None
    assert tables.timeline.low_bytes[0] >= held
    assert tables.timeline.low_bytes[-1] == pytest.approx(held, rel=0.02)
    assert max(tables.peak_bytes) == pytest.approx(peak, rel=0.02)


def test_after_a_profile_no_hook_is_left_and_training_goes_on_as_without(
    make_request: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Oracle: losses of a trial that was never profiled, bit for bit."""

    def losses(*, profiled: bool) -> list[float]:
        trial = assemble.assemble(make_request())
        if profiled:
            profiling.record_trace(trial, 2, 2, tmp_path / "trace.json")
            trial.restore()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in trial.model.modules())
        for index in range(3):
            trial.step(index)
        seen = trial.drain()
        trial.close()
        return seen

    assert losses(profiled=True) == losses(profiled=False)


def test_the_ranged_step_trains_as_the_timed_one(
    make_request: Callable[..., dict[str, Any]],
) -> None:
    """Oracle: Trial.step: the same weights after two steps of two micro-batches, bit for bit."""
    from contextlib import nullcontext

    weights = []
    for ranged in (True, False):
        trial = assemble.assemble(make_request({"micro_batches": 2}))
        for index in range(2):
            if ranged:
                profiling.ranged_step(trial, index, nullcontext)
            else:
                trial.step(index)
        weights.append([p.detach().clone() for p in trial.model.parameters()])
        trial.close()

    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_the_chosen_steps_are_traced_after_those_before_them(
    make_request: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Oracle: the weights of as many steps as there are up to the last traced one; two ranges."""
    trial = assemble.assemble(make_request())
    profiling.record_trace(trial, 4, 2, tmp_path / "trace.json")
    found = [p.detach().clone() for p in trial.model.parameters()]
    trial.close()
    plain = assemble.assemble(make_request())
    for index in range(5):
        plain.step(index % plain.batches.count)

    assert all(torch.equal(a, b) for a, b in zip(found, plain.model.parameters(), strict=True))
    names = [e["name"] for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]]
    assert names.count("phase: optimizer") == 2
    plain.close()


def test_nvtx_ranges_do_nothing_without_cuda(
    make_request: Callable[..., dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Oracle: torch.cuda.nvtx itself fails without CUDA; here the steps run all the same."""
    request = {**make_request(), "first_profiled_step": 2, "profiled_steps": 2}

    profiling.run_in_ranges(request)

    assert capfd.readouterr().out == ""


def test_a_forced_kernel_that_did_not_run_fails_the_profile(
    make_request: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: the same check as in a trial; nothing is traced then."""
    monkeypatch.setattr(passes, "trace_step", lambda *_: StepTrace(("aten::mm",), 0))
    request = {
        **make_request(attention="flash"),
        "first_profiled_step": 2,
        "profiled_steps": 1,
        "trace_file": str(tmp_path / "trace.json"),
    }
    with pytest.raises(passes.KernelMismatchError, match="attention was forced"):
        profiling.run_profile(request, lambda _: None, [0])

    assert not (tmp_path / "trace.json").exists()


def test_a_kernel_of_other_numbers_fails_the_profile(
    make_request: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Oracle: the same check as in a trial: times of a wrong kernel would explain nothing."""
    request = {
        **make_request(),
        "first_profiled_step": 2,
        "profiled_steps": 1,
        "trace_file": str(tmp_path / "trace.json"),
    }
    request["cell"]["kernel"]["gelu"] = {"name": "torch.nn.functional:silu"}
    with pytest.raises(checking.KernelCheckError, match="silu': its output differs from float64"):
        profiling.run_profile(request, lambda _: None, [0])

    assert not (tmp_path / "trace.json").exists()
