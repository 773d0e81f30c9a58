"""Skip rules: ``(cell, capabilities) -> reason or None``, asked before a cell is run.

``cell`` is the canonical cell, ``capabilities`` what ``measure.capabilities`` found on this
machine, with ``accepts`` (keywords by optimizer) and ``initial`` (optimizers that declare how their
state begins) added. A matrix may ``allow`` the rules that say so: what they skip is possible, only
a bad idea.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.asking import AMPERE, capability_of, dotted
from bertopt_bench.axes.kernels import attention, layer_norm, mlm_loss
from bertopt_bench.axes.optimizers import PACKAGES
from bertopt_bench.matrix.content import kernel_name
from bertopt_bench.matrix.modes import is_inference

if TYPE_CHECKING:
    from collections.abc import Mapping

    Cell = Mapping[str, Any]
    Capabilities = Mapping[str, Any]

_KERNEL_PACKAGES = {
    "attention": attention.PACKAGES,
    "layer_norm": layer_norm.PACKAGES,
    "mlm_loss": mlm_loss.PACKAGES,
}
_COMMANDS = {"flash_attn": "pip install flash-attn --no-build-isolation"}
_DEFAULT_POSITIONS = 512
_FUSED_MOMENTUM = ("momentum", "nesterov")


def no_cuda(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip CUDA where torch finds no such device.

    Elsewhere: yes
    """
    if cell["device"]["name"] != "cuda":
        return None
    count, index = capabilities["cuda"]["count"], cell["device"].get("index", 0)
    if index < count:
        return None
    found = f"only {count}" if count else "none"
    return f"device cuda, index {index}: torch finds {found} here"


def tf32_needs_cuda(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip tf32 without an NVIDIA GPU of compute capability 8.0 or newer."""
    if cell["precision"]["name"] != "tf32":
        return None
    if cell["device"]["name"] != "cuda":
        return "tf32 is a mode of NVIDIA GPUs; on a CPU it would be fp32 again"
    capability = capability_of(cell, capabilities)
    if capability is None or capability >= AMPERE:
        return None
    return f"tf32 needs compute capability 8.0, this GPU has {dotted(capability)}"


def bf16_needs_support(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip bf16 on GPUs that only emulate it.

    Allow: yes
    """
    capability = capability_of(cell, capabilities)
    if cell["precision"]["name"] != "bf16" or capability is None or capability >= AMPERE:
        return None
    return f"bf16 is emulated below compute capability 8.0, this GPU has {dotted(capability)}"


def fp16_on_cpu(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip fp16 on a CPU: some 30 times slower than fp32, and unstable.

    Allow: yes
    """
    if (cell["precision"]["name"], cell["device"]["name"]) != ("fp16", "cpu"):
        return None
    slower = "on a CPU is some 30 times slower than fp32"
    return f"fp16 {slower}" if is_inference(cell) else f"fp16 training {slower} and unstable"


def fused_momentum_under_a_scaler(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip the fused step of SGD with momentum in fp16: its scaler may leave out the first step.

    Source: torch.optim.sgd, ``_fused_sgd``, torch 2.13: the kernel that is to write the first
    momentum into new, unwritten memory returns early then, and the next step adds to what lies
    there (seen on a CPU: weights became NaN).
    """
    optimizer, step = cell["optimizer"]["name"], kernel_name(cell, "optimizer_step")
    if optimizer not in _FUSED_MOMENTUM or step != "fused" or cell["precision"]["name"] != "fp16":
        return None
    return (
        f"{optimizer}'s fused step reads memory that nobody wrote where fp16's scaler leaves out "
        "the first step: take optimizer_step foreach"
    )


def slower_than_fp32(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip a precision that this machine runs slower than fp32, where the matrix asks for that."""
    if not capabilities.get("skip_slower_precisions"):
        return None
    ratios = capabilities.get("precision_ratio", {}).get(cell["device"]["name"], {})
    ratio = ratios.get(cell["precision"]["name"])
    if ratio is None or ratio <= 1.0:
        return None
    precision = cell["precision"]["name"]
    return f"{precision} took {ratio:.2f} times as long as fp32 here (skip_slower_precisions)"


def missing_package(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip what needs a package that is not installed.

    Elsewhere: yes
    """
    needed = {"optimizers": PACKAGES.get(cell["optimizer"]["name"])}
    workload = cell["workload"]
    if str(workload.get("corpus", workload.get("dataset", ""))).startswith("hf:"):
        needed["hub"] = "datasets"
    found = [(f"'bertopt-bench[{extra}]'", package) for extra, package in needed.items()]
    kernels = _KERNEL_PACKAGES if cell["device"]["name"] == "cuda" else {}  # else: no use of them
    for operation, packages in kernels.items():
        found.append(("'bertopt-bench[kernels]'", packages.get(kernel_name(cell, operation) or "")))
    for target, package in found:
        if package and capabilities["packages"].get(package) is None:
            command = _COMMANDS.get(package, f"pip install {target}")
            return f"{package} is not installed: {command}"
    return None


def decay_twice(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip decay that is asked for twice, or both ways of an optimizer that has one argument."""
    asked = [(f"optimizer {cell['optimizer']['name']}", cell["optimizer"])]
    asked += [(f"regularizer {part['name']}", part) for part in cell["regularizer"]]
    found = {
        kind: [f"{who} ({choice[kind]})" for who, choice in asked if choice.get(kind)]
        for kind in ("weight_decay", "l2")
    }
    for kind, places in found.items():
        if len(places) > 1:
            return f"{kind} is set in {len(places)} places: {', '.join(places)}; keep one"
    accepts = capabilities["accepts"].get(cell["optimizer"]["name"], ())
    if all(found.values()) and found.keys() <= set(accepts):
        return f"{asked[0][0]} decays either way, not both: keep weight_decay or l2"
    return None


def sequence_too_long(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip sequences longer than the model has positions for."""
    model, seq_len = cell["workload"]["model"], cell["workload"]["seq_len"]
    positions = _DEFAULT_POSITIONS
    if not isinstance(model, str):
        positions = model.get("positions", _DEFAULT_POSITIONS)
    if seq_len <= positions:
        return None
    return f"seq_len {seq_len} is more than the model's {positions} positions"


def uneven_micro_batches(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip batches that micro-batches do not divide."""
    batch, parts = cell["workload"]["batch_size"], cell["workload"]["micro_batches"]
    return None if batch % parts == 0 else f"batch_size {batch} is no multiple of {parts} parts"


def next_sentence_elsewhere(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip pairs of sentences where they are not trained: inference, a step captured whole."""
    if not cell["workload"].get("next_sentence"):
        return None
    if cell["workload"].get("mode") == "inference":
        return "next_sentence is of training: inference runs the encoder and the MLM head"
    if kernel_name(cell, "cuda_graph") == "step":
        return "a captured whole step computes the MLM loss alone: no next_sentence with cuda_graph"
    return None


def micro_batches_in_inference(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip inference in micro-batches: a batch goes through whole, in one forward pass."""
    workload = cell["workload"]
    if workload.get("mode") != "inference" or workload["micro_batches"] == 1:
        return None
    return "micro_batches are of training: inference takes a batch whole, choose batch_size instead"
