"""Skip rules of kernels: which implementation cannot run where (see ``axes.skips``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.asking import AMPERE, capability_of, dotted
from bertopt_bench.axes.kernels import mlm_loss
from bertopt_bench.axes.optimizers import LOOP_ONLY
from bertopt_bench.matrix.content import (
    COMPILERS,
    FLASH,
    HALF,
    attention_dropout,
    kernel_name,
    layout_of,
    walks_segments,
)
from bertopt_bench.matrix.modes import is_inference

if TYPE_CHECKING:
    from collections.abc import Mapping

    Cell = Mapping[str, Any]
    Capabilities = Mapping[str, Any]

_ON_CUDA = {  # entries that exist on CUDA only, by operation
    "attention": ("efficient", "cudnn", "varlen", "flash_attn"),
    "layer_norm": ("liger",),
    "mlm_loss": ("liger", "cut_cross_entropy"),
    "optimizer_step": ("capturable",),
    "cuda_graph": ("step",),
}
_COMPILED = {  # entries that compile, by operation: torch.compile's C++, and Triton's launchers
    "compile": COMPILERS,
    "optimizer_step": ("compiled",),
    "attention": ("flex",),
    "layer_norm": ("liger",),
    "mlm_loss": ("liger", "cut_cross_entropy"),
}
_CHUNKED_SINCE = (2, 13)
_FUSED_ALONE = ("sgd", "momentum", "nesterov")
"""They count no steps; but torch.optim.SGD's loop and lists take the rate as a number (``alpha``),
and only its fused kernel reads it from the device (``_fused_sgd_.tensor_lr``)."""

_LISTS_ALONE = ("rmsprop",)  # its loop takes the rate as a number even where it is capturable
_CAPTURED = ("none", "l1", "l2", "weight_decay", "dropout", "label_smoothing", "grad_clip")
"""Regularizers that keep nothing between steps and ask the host for nothing."""

_COUNTING_LOSSES = ("liger", "cut_cross_entropy")
"""Their sources ask for a number on the host: `target_mask.sum().item()`, `nonzero()`."""

_FUSED_ADAGRAD_ON_CUDA = (2, 12)
_UNEQUAL_SINCE = (2, 10)
_MOST_HEAD_SIZE = 256  # of flash attention
_LEAST_FLEX_HEAD_SIZE = 16


def no_foreach_step(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip the foreach step of optimizers that have none."""
    return _no_step(cell, capabilities, "foreach")


def no_fused_step(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip the fused step of optimizers that have none."""
    return _no_step(cell, capabilities, "fused")


def fused_adagrad_needs_torch(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip Adagrad's fused step on a GPU where torch has it for CPUs only, as before 2.12.

    Source: the release notes of torch 2.12.
    """
    step, device = cell["kernel"]["optimizer_step"]["name"], cell["device"]["name"]
    if (cell["optimizer"]["name"], step, device) != ("adagrad", "fused", "cuda"):
        return None
    if _has_torch(capabilities, _FUSED_ADAGRAD_ON_CUDA):
        return None
    return f"adagrad's fused step on CUDA needs torch 2.12 or newer; this: {capabilities['torch']}"


def no_capturable_step(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip the capturable step of optimizers that have none."""
    return _no_step(cell, capabilities, "capturable")


def no_initial_state(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip compiled and captured steps of optimizers that do not say how their state begins."""
    step, graph = kernel_name(cell, "optimizer_step"), kernel_name(cell, "cuda_graph")
    if step not in {"compiled", "capturable"} and graph != "step":
        return None
    optimizer = cell["optimizer"]["name"]
    if optimizer in capabilities.get("initial", ()):
        return None
    return (
        f"optimizer {optimizer} declares no initial state ('Initial:' in its docstring): a "
        "compiled or captured step could not be put back after burn-in"
    )


def kernel_needs_cuda(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip kernels that exist on a GPU only."""
    if cell["device"]["name"] == "cuda":
        return None
    for operation, names in _ON_CUDA.items():
        name = kernel_name(cell, operation)
        if name in names:
            return f"{operation} {name} exists on CUDA only"
    if kernel_name(cell, "attention") == "flex" and not is_inference(cell):
        return "attention flex has no backward pass on a CPU: it trains on CUDA only"
    if kernel_name(cell, "compile") == "reduce_overhead":
        return (
            "compile reduce_overhead is a mode of CUDA graphs; on a CPU it would be default again"
        )
    return None


def attention_without_dropout(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip attention dropout with kernels that have none."""
    kernel = kernel_name(cell, "attention")
    if not attention_dropout(cell):
        return None
    if kernel in {"flex", "varlen"}:
        return f"attention {kernel} has no dropout: set attention_dropout = 0"
    if kernel in FLASH and cell["device"]["name"] == "cuda" and layout_of(cell) != "padded":
        return (
            f"attention {kernel} has no dropout over unequal lengths (layout {layout_of(cell)}): "
            "set attention_dropout = 0"
        )
    return None


def varlen_needs_a_layout(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip varlen attention over padded text: it walks over sequences with nothing between."""
    if kernel_name(cell, "attention") != "varlen" or layout_of(cell) != "padded":
        return None
    return "attention varlen needs text without padding: a layout that is unpadded or packed"


def attention_needs_half(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip attention kernels that cannot compute in the precision on a GPU."""
    kernel, precision = cell["kernel"]["attention"]["name"], cell["precision"]["name"]
    if cell["device"]["name"] != "cuda":
        return None
    if kernel in {"cudnn", "varlen", *FLASH} and precision not in HALF:
        return f"attention {kernel} computes in bf16 and fp16 only on CUDA, not in {precision}"
    if kernel == "efficient" and precision == "fp64":
        return "attention efficient computes in 16 and 32 bits only, not in fp64"
    return None


def flash_with_dropout_on_cpu(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip flash attention with attention dropout on a CPU, which has no such kernel."""
    if cell["kernel"]["attention"]["name"] != "flash" or cell["device"]["name"] != "cpu":
        return None
    if not attention_dropout(cell):
        return None
    return "flash attention on a CPU has no dropout: set attention_dropout = 0"


def flash_with_padding_on_cuda(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip flash attention over padded text on a GPU, whose kernel takes no mask.

    Allow: yes
    """
    flash = kernel_name(cell, "attention") in FLASH
    if not flash or cell["device"]["name"] != "cuda":
        return None
    if layout_of(cell) != "padded":
        return None
    return (
        "flash attention on CUDA takes no mask, and padded text needs one: take layout unpadded "
        "or packed"
    )


def no_kernel_for_unequal_lengths(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip layouts without padding where a GPU cannot run flash attention's form for them.

    Without it a mask keeps sequences apart, in any kernel that takes one.

    Source: torch.nn.attention.varlen, in torch since 2.10.
    """
    capability = capability_of(cell, capabilities)
    if not walks_segments(cell) or capability is None:
        return None
    advice = "take attention efficient or math, which keep sequences apart by a mask"
    needed = f"attention {kernel_name(cell, 'attention')} over unequal lengths"
    if capability < AMPERE:
        return f"{needed} needs compute capability 8.0, this GPU has {dotted(capability)}; {advice}"
    if kernel_name(cell, "attention") != "flash_attn" and not _has_torch(
        capabilities, _UNEQUAL_SINCE
    ):
        return f"{needed} needs torch 2.10 or newer, this is {capabilities['torch']}; {advice}"
    size = _head_size(cell)
    if size % 8 or size > _MOST_HEAD_SIZE:
        return (
            f"{needed} takes heads of a multiple of 8 up to {_MOST_HEAD_SIZE}, not of {size}; "
            f"{advice}"
        )
    return None


def flex_needs_wide_heads(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip FlexAttention with heads that are too narrow for its matrix products.

    Source: torch.nn.attention.flex_attention, torch 2.13: "embedding dimension ... at least 16".
    """
    if kernel_name(cell, "attention") != "flex" or _head_size(cell) >= _LEAST_FLEX_HEAD_SIZE:
        return None
    return (
        f"attention flex takes heads of {_LEAST_FLEX_HEAD_SIZE} and more, not of {_head_size(cell)}"
    )


def loss_needs_half(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip the cut cross entropy in other than 16 bits."""
    name, precision = kernel_name(cell, "mlm_loss"), cell["precision"]["name"]
    if name != "cut_cross_entropy" or cell["device"]["name"] != "cuda" or precision in HALF:
        return None
    return f"mlm_loss cut_cross_entropy computes in bf16 and fp16 only, not in {precision}"


def chunked_loss_needs_torch(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip the chunked loss where torch has none yet."""
    if kernel_name(cell, "mlm_loss") != "chunked":
        return None
    if _has_torch(capabilities, _CHUNKED_SINCE):
        return None
    return f"mlm_loss chunked needs torch 2.13 or newer, this is {capabilities['torch']}"


def loss_without_smoothing(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip label smoothing with losses that compute the plain one."""
    name = kernel_name(cell, "mlm_loss")
    smoothed = any(part.get("label_smoothing") for part in cell["regularizer"])
    if not smoothed or name in {None, *mlm_loss.SMOOTHING}:
        return None
    return f"mlm_loss {name} computes no label smoothing: take {' or '.join(mlm_loss.SMOOTHING)}"


def uncapturable_step(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip CUDA graphs of whole steps that ask the host, or hold state that no graph can renew."""
    if kernel_name(cell, "cuda_graph") != "step":
        return None
    step = kernel_name(cell, "optimizer_step")
    names = [part["name"] for part in cell["regularizer"]]
    others = [name for name in names if name not in _CAPTURED]
    compiler, recomputes = (
        kernel_name(cell, "compile"),
        kernel_name(cell, "checkpointing") == "layers",
    )
    layout, attention, loss = (
        layout_of(cell),
        kernel_name(cell, "attention"),
        kernel_name(cell, "mlm_loss"),
    )
    reasons = {
        f"layout {layout} has tensors of other shapes in each batch": layout != "padded",
        f"it has the update in it, so optimizer_step {step} cannot be": step
        in {"compiled", "capturable"},
        "the scaler of fp16 asks the host in each step": cell["precision"]["name"] == "fp16",
        f"compile {compiler} captures its own": compiler in {"reduce_overhead", "max_autotune"},
        f"regularizer {', '.join(others)} keeps state or asks the host": bool(others),
        "recomputed dropout reads the random state on the host": recomputes and "dropout" in names,
        f"mlm_loss {loss} counts the masked slots on the host": loss in _COUNTING_LOSSES,
        "attention flex makes its blocks anew for each mask": attention == "flex",
    }
    found = [reason for reason, holds in reasons.items() if holds]
    found += _update_asks(cell, capabilities)
    return f"no CUDA graph of the step: {found[0]}" if found else None


def graphs_hide_kernels(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip forced attention where the compiler's CUDA graphs are replayed: no operator shows then.

    What cannot be proved to have run is not timed under its name.
    """
    compiler, attention = kernel_name(cell, "compile"), cell["kernel"]["attention"]["name"]
    replays = cell["device"]["name"] == "cuda" and compiler in {"reduce_overhead", "max_autotune"}
    if not replays or attention == "default":
        return None
    return (
        f"compile {compiler} replays graphs that show no operator, so that attention {attention} "
        "cannot be proved to have run: take compile default"
    )


def gradients_in_a_graphs_pool(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip the compiler's CUDA graphs where gradients outlive a replay, which overwrites them.

    Source: pytorch issue 169545; torch._inductor.cudagraph_trees.
    """
    compiler = kernel_name(cell, "compile")
    if cell["device"]["name"] != "cuda" or compiler not in {"reduce_overhead", "max_autotune"}:
        return None
    kept = {
        "micro_batches are summed": cell["workload"].get("micro_batches", 1) > 1,
        "optimizer_step capturable keeps them": kernel_name(cell, "optimizer_step") == "capturable",
    }
    found = [reason for reason, holds in kept.items() if holds]
    if not found:
        return None
    return f"compile {compiler} overwrites gradients in its graphs' memory, and {found[0]}"


def _update_asks(cell: Cell, capabilities: Capabilities) -> list[str]:
    """Say why an update cannot be part of a graph: it would ask the host for its rate or count.

    Source: torch.optim's sgd.py and rmsprop.py, torch 2.13: ``alpha=-lr`` of a tensor.
    """
    optimizer, step = cell["optimizer"]["name"], kernel_name(cell, "optimizer_step")
    if optimizer in _FUSED_ALONE:
        asks = f"{optimizer} asks the host for its rate; optimizer_step fused does not"
        return [] if step == "fused" else [asks]
    if optimizer in _LISTS_ALONE and step == "loop":
        return [f"{optimizer}'s loop asks the host for its rate; optimizer_step foreach does not"]
    if "capturable" in capabilities["accepts"].get(optimizer, ()):
        return []
    return [f"optimizer {optimizer} has no capturable step"]


def flex_takes_no_blocks(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip layouts under FlexAttention whose sequences its mask, of padding alone, keeps not apart.

    On a CPU unpadded sequences are calls of many lengths, each of which it would compile anew.
    """
    layout = layout_of(cell)
    if cell["kernel"]["attention"]["name"] != "flex" or layout == "padded":
        return None
    if layout == "packed":
        return "attention flex keeps padding out, not packed sequences apart; take layout padded"
    if cell["device"]["name"] == "cpu":
        return "attention flex compiles a kernel for each length on a CPU; take layout padded"
    return None


def flex_within_a_compiled_model_on_cpu(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip FlexAttention as part of a compiled model's graph on a CPU: Inductor cannot write it.

    Source: torch._inductor.codegen.cpp_flex_attention_template.choose_flex_template, torch 2.13: it
    takes four sizes of what queries are a view of, and a projection's product has two.
    """
    compiler = kernel_name(cell, "compile")
    flex = kernel_name(cell, "attention") == "flex" and cell["device"]["name"] == "cpu"
    if not flex or compiler not in _COMPILED["compile"]:
        return None
    return (
        f"attention flex cannot be part of the graph that compile {compiler} makes on a CPU: take "
        "compile off, where its call alone is compiled"
    )


def no_compiler(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip what compiles, torch.compile and kernels in Triton, without a C++ compiler.

    Elsewhere: yes
    """
    found = [
        f"{operation} {name}"
        for operation, names in _COMPILED.items()
        if (name := kernel_name(cell, operation)) in names
    ]
    if capabilities["compiler"] or not found:
        return None
    return f"{found[0]} needs a C++ compiler, and none was found: install g++ or clang++"


def _head_size(cell: Cell) -> int:
    """Give the size of a head; of the models that have a name it is 64."""
    model = cell["workload"]["model"]
    return 64 if isinstance(model, str) else model["hidden"] // model["heads"]


def _has_torch(capabilities: Capabilities, version: tuple[int, int]) -> bool:
    """Say whether torch is of this version or newer."""
    return tuple(int(part) for part in capabilities["torch"].split(".")[:2]) >= version


def _no_step(cell: Cell, capabilities: Capabilities, kind: str) -> str | None:
    optimizer = cell["optimizer"]["name"]
    accepts = capabilities["accepts"].get(optimizer)
    if cell["kernel"]["optimizer_step"]["name"] != kind or accepts is None:
        return None
    if kind in accepts and optimizer not in LOOP_ONLY:
        return None
    return f"optimizer {optimizer} has no {kind} step"
