"""What a trace proves: kernels are looked for where they belong; what was captured is seen."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from bertopt_bench import catalogue
from bertopt_bench.axes.kernels import COMPILED, LAUNCHED, Kernel, _steps
from bertopt_bench.measure.memory import storage_bytes
from bertopt_bench.measure.operation_sums import StepSpans
from bertopt_bench.measure.traces import Node
from bertopt_bench.measure.tracing import StepTrace
from bertopt_bench.trial import passes, stepping
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.attributing import attribute_memory
from bertopt_bench.trial.layouts import Arrangement, open_batches
from bertopt_bench.workload.filling import Filled

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeRequest = Callable[..., dict[str, Any]]

REGION = "Torch-Compiled Region: 0/0"
UPDATE = "Optimizer.step#AdamW.step"


def node(name: str, *children: Node) -> Node:
    return Node(name, "cpu_op", (0, 1), 0.0, 1.0, {}, list(children))


def traced(*roots: Node, device: tuple[str, ...] = ()) -> StepTrace:
    names = {one.name for root in roots for one in root.walk()}
    spans = StepSpans(1.0, roots, {}, on_device=bool(device))
    return StepTrace(tuple(sorted(names | set(device))), 0, spans)


def trial(device: str = "cpu", **kernels: Kernel) -> Any:
    return SimpleNamespace(kernels=kernels, device=SimpleNamespace(type=device))


IN_THE_MODEL = traced(node(REGION), node(UPDATE, node("aten::_fused_adamw_")))
IN_THE_UPDATE = traced(node("aten::mm"), node(UPDATE, node(REGION)))


@pytest.mark.parametrize(
    ("operation", "right", "wrong"),
    [
        ("compile", IN_THE_MODEL, IN_THE_UPDATE),
        ("optimizer_step", IN_THE_UPDATE, IN_THE_MODEL),
    ],
)
def test_a_compiled_step_is_no_compiled_model(
    operation: str, right: StepTrace, wrong: StepTrace
) -> None:
    """A region counts where it belongs: in an optimizer's own range, or outside of all of them."""
    forced = trial(**{operation: Kernel(expects=COMPILED)})

    passes.check_kernels(forced, [right])
    with pytest.raises(passes.KernelMismatchError, match=rf"kernel\.{operation} was forced"):
        passes.check_kernels(forced, [wrong])


def test_a_devices_own_names_count_outside_of_the_update() -> None:
    """Nothing says where a kernel belongs; oracle: a name that no host event has."""
    forced = trial(attention=Kernel(expects=("flash_fwd_kernel",)))

    passes.check_kernels(forced, [traced(node("aten::mm"), device=("flash_fwd_kernel<64>",))])


@pytest.mark.parametrize("name", ["reduce_overhead", "max_autotune"])
def test_modes_of_cuda_graphs_must_replay_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a compiled region alone is not enough, nor are graphs that torch left out."""
    kernel = catalogue.resolve("kernel.compile", name)()
    replayed = traced(node(REGION, node(LAUNCHED[0])))
    left_out = 0
    monkeypatch.setattr(passes, "graphs_left_out", lambda: left_out)

    passes.check_kernels(trial(compile=kernel), [IN_THE_MODEL])  # a CPU has none
    passes.check_kernels(trial("cuda", compile=kernel), [replayed])
    with pytest.raises(passes.KernelMismatchError, match="cudaGraphLaunch"):
        passes.check_kernels(trial("cuda", compile=kernel), [IN_THE_MODEL])
    left_out = 2
    with pytest.raises(passes.KernelMismatchError, match="no CUDA graph of 2 of its graphs"):
        passes.check_kernels(trial("cuda", compile=kernel), [replayed])


def replayed_unseen(_: Callable[[], Any]) -> Callable[[], Any]:
    """Stand in for a CUDA graph, whose replay shows one call and none of what it does."""

    def replay() -> None:
        with torch.profiler.record_function(LAUNCHED[0]):
            pass

    return replay


def test_what_a_captured_step_holds_is_seen_by_its_parts(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the operations' names, which the replay does not show; a wrong one still fails."""
    run = partial(_steps.Captured, capture=replayed_unseen, warm=lambda call: call())
    monkeypatch.setattr(
        "bertopt_bench.trial.assemble.capture_whole_step",
        lambda made: setattr(made, "whole_step", stepping.WholeStep(made, run)),
    )
    made = assemble(make_request(attention="math", cuda_graph="step", optimizer_step="fused"))
    passes.burn_in(made, 3)

    found, _ = passes.trace(made)

    assert LAUNCHED[0] in found.operations
    assert "aten::_scaled_dot_product_attention_math" in found.operations
    attention = replace(made.kernels["attention"], expects=("_flash_",), forbids=())
    made.kernels = {**made.kernels, "attention": attention}
    with pytest.raises(passes.KernelMismatchError, match=r"kernel\.attention was forced"):
        passes.trace(made)
    made.close()


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"mlm_loss": "dense", "gelu": "tanh"},
        {"mlm_loss": "chunked"},
        {"regularizer": ["dropout"]},
        {"checkpointing": "layers"},
        {"workload": {"layout": "unpadded"}},
        {"workload": {"layout": "packed"}},
        {"workload": {"layout": "packed"}, "checkpointing": "layers"},
        {"workload": {"position_embedding": "sinusoidal"}, "precision": "bf16"},
    ],
)
def test_the_model_is_one_graph(make_request: MakeRequest, axes: dict[str, Any]) -> None:
    """``fullgraph`` holds for what kernels and layouts make of the model; oracle: eager losses.

    Dynamo alone decides what is one graph: the graphs run eagerly here.
    """
    torch.compiler.reset()
    request = make_request(**axes)
    layout = request["cell"]["workload"].get("layout", "padded")
    losses = []
    for compiled in (False, True):
        made = assemble(request)
        text, arrangement = request["text"], Arrangement(layout, "rows", fixed=True)
        made.batches = open_batches(
            text["batches"]["1"], made.device.torch_device, 1, arrangement
        )  # as a compiled cell lays them out
        if compiled:
            made.compiled = torch.compile(
                made.model, backend="eager", dynamic=False, fullgraph=True
            )
        for index in range(2):
            made.step(index)
        losses.append(made.drain())
        made.evaluate()

    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_the_vocabulary_is_the_texts(make_request: MakeRequest) -> None:
    """Oracle: the request's text, which has half of the pieces that the cell asks for."""
    request = make_request()
    asked = 2 * request["text"]["vocabulary_size"]
    request["cell"]["workload"]["vocabulary_size"] = asked
    trial = assemble(request)

    assert trial.prepared_cell["workload"]["vocabulary_size"] == asked / 2
    found = attribute_memory(trial, 1)["formula"]["peak"]["parameter_bytes"]
    assert found == storage_bytes(trial.model.parameters())


@pytest.mark.parametrize(
    ("shares", "right"),
    [
        ([(7, 7)], 0),
        ([(8, 8)] * 3, 1),
        ([(5, 4), (4, 4), (6, 1)], 2),
        ([(6, 2), (5, 5), (6, 2)], 0),
        ([(6, 2), (6, 3), (6, 1)], 1),
    ],
)
def test_the_traced_step_is_the_one_that_needs_most(
    make_request: MakeRequest, shares: list[tuple[int, int]], right: int
) -> None:
    """Oracle: by hand: in eighths, where a pair costs a hundredth of a slot.

    Where all are equal it is the second, which the first has warmed.
    """
    request = make_request({"layout": "unpadded", "batch_size": 512}, attention="math")
    seen = [
        Filled(slots / 8, slots / 8, pairs / 8, pairs / 8, slots / 8) for slots, pairs in shares
    ]
    batches = SimpleNamespace(count=len(seen), filled=seen.__getitem__)
    trial = SimpleNamespace(batches=batches, prepared_cell=request["cell"])

    assert passes.fullest(cast("Any", trial)) == right
