"""Skip rules: ``(cell, capabilities) -> reason or None``, asked before a cell is run.

``cell`` is the canonical cell, ``capabilities`` what ``measure.capabilities`` found on this
machine, with ``accepts`` (keywords by optimizer) added. A matrix may ``allow`` the rules that say
so: what they skip is possible, only a bad idea.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.optimizers import LOOP_ONLY, PACKAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    Cell = Mapping[str, Any]
    Capabilities = Mapping[str, Any]

_AMPERE = (8, 0)
_DEFAULT_POSITIONS = 512
_HALF = ("bf16", "fp16")
_MOST_HEAD_SIZE = 256  # of flash attention


def no_cuda(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip CUDA where torch finds no such device."""
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
    capability = _capability(cell, capabilities)
    if capability is None or capability >= _AMPERE:
        return None
    return f"tf32 needs compute capability 8.0, this GPU has {_dotted(capability)}"


def bf16_needs_support(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip bf16 on GPUs that only emulate it.

    Allow: yes
    """
    capability = _capability(cell, capabilities)
    if cell["precision"]["name"] != "bf16" or capability is None or capability >= _AMPERE:
        return None
    return f"bf16 is emulated below compute capability 8.0, this GPU has {_dotted(capability)}"


def fp16_on_cpu(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip fp16 on a CPU: some 30 times slower than fp32, and unstable.

    Allow: yes
    """
    if (cell["precision"]["name"], cell["device"]["name"]) != ("fp16", "cpu"):
        return None
    return "fp16 training on a CPU is some 30 times slower than fp32 and unstable"


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
    """Skip what needs a package that is not installed."""
    needed = {"optimizers": PACKAGES.get(cell["optimizer"]["name"])}
    if str(cell["workload"].get("corpus", "")).startswith("hf:"):
        needed["hub"] = "datasets"
    for extra, package in needed.items():
        if package and capabilities["packages"].get(package) is None:
            return f"{package} is not installed: pip install 'bertopt-bench[{extra}]'"
    return None


def no_foreach_step(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip the foreach step of optimizers that have none."""
    return _no_step(cell, capabilities, "foreach")


def no_fused_step(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip the fused step of optimizers that have none."""
    return _no_step(cell, capabilities, "fused")


def attention_needs_cuda(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip efficient and cudnn attention without a GPU."""
    kernel = cell["kernel"]["attention"]["name"]
    if kernel not in {"efficient", "cudnn"} or cell["device"]["name"] == "cuda":
        return None
    return f"attention {kernel} exists on CUDA only"


def attention_needs_half(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip attention kernels that cannot compute in the precision on a GPU."""
    kernel, precision = cell["kernel"]["attention"]["name"], cell["precision"]["name"]
    if cell["device"]["name"] != "cuda":
        return None
    if kernel in {"flash", "cudnn"} and precision not in _HALF:
        return f"attention {kernel} computes in bf16 and fp16 only on CUDA, not in {precision}"
    if kernel == "efficient" and precision == "fp64":
        return "attention efficient computes in 16 and 32 bits only, not in fp64"
    return None


def flash_with_dropout_on_cpu(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip flash attention with attention dropout on a CPU, which has no such kernel."""
    if cell["kernel"]["attention"]["name"] != "flash" or cell["device"]["name"] != "cpu":
        return None
    if not any(part.get("attention_dropout") for part in cell["regularizer"]):
        return None
    return "flash attention on a CPU has no dropout: set attention_dropout = 0"


def flash_with_padding_on_cuda(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip flash attention over padded text on a GPU, whose kernel takes no mask.

    Allow: yes
    """
    if cell["kernel"]["attention"]["name"] != "flash" or cell["device"]["name"] != "cuda":
        return None
    if _layout(cell) != "padded":
        return None
    return "flash attention on CUDA takes no mask, and padded text needs one"


def forced_flash_without_padding_on_cuda(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip forced flash attention on a GPU over sequences of unequal lengths: it has no mask."""
    if cell["kernel"]["attention"]["name"] != "flash" or cell["device"]["name"] != "cuda":
        return None
    if _layout(cell) == "padded":
        return None
    return (
        f"layout {_layout(cell)} on CUDA needs a mask, which forced flash attention does not take; "
        "attention default runs flash's own kernel for unequal lengths in bf16 and fp16"
    )


def no_kernel_for_unequal_lengths(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip layouts without padding where a GPU's default attention cannot run them.

    That is flash attention for unequal lengths (torch.nn.attention.varlen), in bf16 and fp16 and
    without attention dropout; otherwise a mask keeps sequences apart, in any kernel that takes one.
    """
    capability = _capability(cell, capabilities)
    dropout = any(part.get("attention_dropout") for part in cell["regularizer"])
    if (
        _layout(cell) == "padded"
        or cell["kernel"]["attention"]["name"] != "default"
        or cell["precision"]["name"] not in _HALF
        or capability is None
        or dropout
    ):
        return None
    advice = "take attention efficient or math, which keep sequences apart by a mask"
    if capability < _AMPERE:
        return (
            "attention over unequal lengths needs compute capability 8.0, this GPU has "
            f"{_dotted(capability)}; {advice}"
        )
    model = cell["workload"]["model"]
    size = 64 if isinstance(model, str) else model["hidden"] // model["heads"]
    if size % 8 or size > _MOST_HEAD_SIZE:
        return (
            "attention over unequal lengths takes heads of a multiple of 8 up to "
            f"{_MOST_HEAD_SIZE}, not of {size}; {advice}"
        )
    return None


def flex_takes_no_blocks(cell: Cell, _capabilities: Capabilities) -> str | None:
    """Skip packed text under FlexAttention, whose mask here is one of padding alone."""
    if cell["kernel"]["attention"]["name"] != "flex" or _layout(cell) != "packed":
        return None
    return "attention flex keeps padding out, not packed sequences apart; take layout unpadded"


def no_compiler(cell: Cell, capabilities: Capabilities) -> str | None:
    """Skip torch.compile without a C++ compiler."""
    if cell["kernel"]["compile"]["name"] == "off" or capabilities["compiler"]:
        return None
    return "torch.compile needs a C++ compiler, and none was found: install g++ or clang++"


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


def _no_step(cell: Cell, capabilities: Capabilities, kind: str) -> str | None:
    optimizer = cell["optimizer"]["name"]
    accepts = capabilities["accepts"].get(optimizer)
    if cell["kernel"]["optimizer_step"]["name"] != kind or accepts is None:
        return None
    if kind in accepts and optimizer not in LOOP_ONLY:
        return None
    return f"optimizer {optimizer} has no {kind} step"


def _layout(cell: Cell) -> str:
    layout: str = cell["workload"].get("layout", "padded")
    return layout


def _capability(cell: Cell, capabilities: Capabilities) -> tuple[int, int] | None:
    """Give the compute capability of the cell's GPU, None for a CPU or an absent GPU."""
    known = capabilities["cuda"]["capability"]
    index = cell["device"].get("index", 0)
    if cell["device"]["name"] != "cuda" or index >= len(known):
        return None
    major, minor = known[index]
    return major, minor


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
