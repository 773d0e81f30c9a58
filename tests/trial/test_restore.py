"""The contract of every entry: burn-in and restore leave no mark, bit for bit.

Oracle: the same trial, assembled anew and trained without any burn-in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch._dynamo.utils import counters

from bertopt_bench import catalogue
from bertopt_bench.trial import passes
from bertopt_bench.trial.assemble import assemble

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.trial.live import Trial

    MakeRequest = Callable[..., dict[str, Any]]

NEEDS_CUDA = {"efficient", "cudnn", "flex", "varlen", "flash_attn"}
DECLARED = [
    name for name, entry in catalogue.entries("optimizer").items() if "Initial" in entry.notes
]


def train(trial: Trial) -> tuple[list[float], dict[str, torch.Tensor], float]:
    """Train all steps; give losses, weights and the held-out loss."""
    for index in range(trial.steps):
        trial.step(index)
    losses = trial.drain()
    evaluation = trial.evaluate()
    weights = {name: value.clone() for name, value in trial.model.state_dict().items()}
    return losses, weights, evaluation.loss


def check_burn_in_leaves_no_mark(request: dict[str, Any]) -> None:
    """Compare a trial with burn-in, trace and phases to one without."""
    plain = assemble(request)
    losses, weights, held_out = train(plain)
    plain.close()

    burned = assemble(request)
    passes.burn_in(burned, 3)
    passes.trace(burned)
    passes.time_phases(burned, 2)
    burned.restore()
    graphs = counters["stats"]["unique_graphs"]
    again = train(burned)
    burned.close()

    assert again[0] == losses
    assert again[2] == held_out
    for name, value in weights.items():
        assert torch.equal(again[1][name], value), name
    assert counters["stats"]["unique_graphs"] == graphs
    start = assemble(request).model.state_dict()
    assert any(not torch.equal(weights[name], start[name]) for name in weights)


@pytest.mark.parametrize("name", catalogue.entries("optimizer"))
def test_optimizer(make_request: MakeRequest, name: str) -> None:
    check_burn_in_leaves_no_mark(make_request(optimizer=name, schedule="constant"))


@pytest.mark.parametrize("name", catalogue.entries("schedule"))
def test_schedule(make_request: MakeRequest, name: str) -> None:
    check_burn_in_leaves_no_mark(make_request(schedule=name))


@pytest.mark.parametrize("name", catalogue.entries("regularizer"))
def test_regularizer(make_request: MakeRequest, name: str) -> None:
    check_burn_in_leaves_no_mark(make_request(regularizer=[name], schedule="constant"))


@pytest.mark.parametrize("name", [n for n in catalogue.entries("precision") if n != "tf32"])
def test_precision(make_request: MakeRequest, name: str) -> None:
    check_burn_in_leaves_no_mark(make_request(precision=name, schedule="constant"))


@pytest.mark.parametrize(
    "name", [n for n in catalogue.entries("kernel.attention") if n not in NEEDS_CUDA]
)
def test_attention(make_request: MakeRequest, name: str) -> None:
    check_burn_in_leaves_no_mark(make_request(attention=name, schedule="constant"))


@pytest.mark.parametrize("name", ["default", "loop", "foreach", "fused"])
def test_optimizer_step(make_request: MakeRequest, name: str) -> None:
    check_burn_in_leaves_no_mark(make_request(optimizer_step=name, schedule="constant"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "max_autotune"])
def test_compile(make_request: MakeRequest, name: str) -> None:
    check_burn_in_leaves_no_mark(
        make_request(compile=name, regularizer=["dropout"], schedule="constant")
    )


@pytest.mark.parametrize("name", catalogue.entries("kernel.gelu"))
def test_gelu(make_request: MakeRequest, name: str) -> None:
    check_burn_in_leaves_no_mark(make_request(gelu=name, schedule="constant"))


@pytest.mark.parametrize("name", ["sparse", "dense", "chunked", {"name": "chunked", "rows": 3}])
def test_mlm_loss(make_request: MakeRequest, name: Any) -> None:
    check_burn_in_leaves_no_mark(make_request(mlm_loss=name, schedule="constant"))


@pytest.mark.parametrize("name", catalogue.entries("kernel.checkpointing"))
def test_checkpointing(make_request: MakeRequest, name: str) -> None:
    check_burn_in_leaves_no_mark(
        make_request(checkpointing=name, regularizer=["dropout"], schedule="constant")
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", DECLARED)
def test_compiled_optimizer_step(make_request: MakeRequest, name: str) -> None:
    """No graph is made in the timed loop, though the rate changes in each step."""
    torch.compiler.reset()
    check_burn_in_leaves_no_mark(
        make_request(optimizer=name, optimizer_step="compiled", schedule="linear")
    )


@pytest.mark.slow
def test_compiled_optimizer_step_with_decay_and_averages(make_request: MakeRequest) -> None:
    """Hooks run around it: decay that the optimizer has no argument for, an average after it."""
    torch.compiler.reset()
    check_burn_in_leaves_no_mark(
        make_request(
            optimizer="adam", optimizer_step="compiled", regularizer=["weight_decay", "ema"]
        )
    )


@pytest.mark.slow
def test_everything_compiled(make_request: MakeRequest) -> None:
    """Model with recomputed layers and dropout, chunked loss, optimizer step."""
    torch.compiler.reset()
    check_burn_in_leaves_no_mark(
        make_request(
            compile="default",
            optimizer_step="compiled",
            checkpointing="layers",
            mlm_loss="chunked",
            regularizer=["dropout"],
        )
    )


def test_composed_regularizers_with_micro_batches(make_request: MakeRequest) -> None:
    check_burn_in_leaves_no_mark(
        make_request(
            regularizer=["dropout", "weight_decay", "grad_clip", "ema"],
            workload={"micro_batches": 2},
            schedule="constant",
        )
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_on_cuda(make_request: MakeRequest, precision: str) -> None:
    check_burn_in_leaves_no_mark(
        make_request(device="cuda", precision=precision, schedule="constant")
    )


ONE_HEAD = {"model": {"hidden": 16, "layers": 1, "heads": 1, "intermediate": 32}}  # of 16
ON_CUDA = [
    {"attention": "flex", "workload": ONE_HEAD},
    {"attention": "flash", "workload": {"layout": "packed"}},
    {"attention": "flash", "workload": {"layout": "unpadded"}, "compile": "default"},
    {"optimizer_step": "capturable"},
    {"cuda_graph": "step"},
    {"cuda_graph": "step", "optimizer_step": "fused", "regularizer": ["dropout", "grad_clip"]},
    {"cuda_graph": "step", "checkpointing": "layers", "mlm_loss": "chunked"},
    {"compile": "reduce_overhead"},
    {"optimizer_step": "compiled"},
]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("axes", ON_CUDA)
def test_kernels_of_cuda(make_request: MakeRequest, axes: dict[str, Any]) -> None:
    torch.compiler.reset()
    check_burn_in_leaves_no_mark(make_request(device="cuda", precision="bf16", **axes))
