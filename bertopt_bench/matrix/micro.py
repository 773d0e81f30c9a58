"""What can be measured alone: operations, their implementations and options; and a duel's arms.

A micro cell is a cell with fewer axes. Its workload is named ``micro`` and holds the operation with
its shapes; ``kernel.<operation>`` is the implementation, ``precision`` the dtype.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.arms import OWN_KEYS, TEXTS, Arm, Asked, arm_labels, make_arm
from bertopt_bench.matrix.cells import Cell
from bertopt_bench.matrix.content import FLASH
from bertopt_bench.matrix.identity import canonical_json, cell_id
from bertopt_bench.matrix.keys import TIMING, Key, Place
from bertopt_bench.matrix.overrides import split_override, split_words
from bertopt_bench.matrix.spec import Matrix
from bertopt_bench.workload.formulas import parameter_count
from bertopt_bench.workload.operation_work import DIRECTIONS, bert_like, buffer_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MICRO = "micro"
"""The name of a micro cell's workload."""

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
CACHES = ("hot", "cold")
COPIES = 12
"""Of the inputs: as drawn, as cast, in float64, gradients, snapshots."""

COLD_BYTES = 2**30
"""Of cold slots with their saved tensors, at most; or of what overwrites the caches."""

_DTYPE = Key("str", "float32", choices=tuple(PRECISIONS))
_CACHE = Key("str", "hot", choices=CACHES)
_DEVICE = Key("str", "cpu", choices=("cpu", "cuda"))
_TAIL: Mapping[str, Key] = {
    "dtype": _DTYPE,
    "direction": Key("str", "both", choices=DIRECTIONS),
    "cache": _CACHE,
    "device": _DEVICE,
}
_ROWS: Mapping[str, Key] = {
    "batch_size": Key("int", 8, least=1, most=1_000_000),
    "seq_len": Key("int", 128, least=1, most=1_000_000),
}
_PACKAGES = {"liger": "liger_kernel", "cut_cross_entropy": "cut_cross_entropy"}
_LEAST_FLEX_HEAD = 16  # torch/_inductor/kernel/flex/flex_attention.py
_HIDDEN = Key("int", 256, least=1, most=1_000_000)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that can be measured alone.

    ``keys`` are its options with defaults and limits, ``signature`` is how an implementation of a
    user's own is called.
    """

    name: str
    implementations: tuple[str, ...]
    keys: Mapping[str, Key]
    signature: str


OPERATIONS: Mapping[str, Operation] = {
    one.name: one
    for one in (
        Operation(
            "attention",
            ("default", "math", "flash", "efficient", "cudnn", "flex", "varlen", "flash_attn"),
            {
                **_ROWS,
                "heads": Key("int", 4, least=1, most=10_000),
                "head_size": Key("int", 64, least=1, most=10_000),
                "padding": Key("float", 0.0, least=0, below=1),
                **_TAIL,
            },
            "(query, key, value, attn_mask=None), as torch's scaled_dot_product_attention",
        ),
        Operation(
            "layer_norm",
            ("default", "composed", "compiled", "liger"),
            {**_ROWS, "hidden_size": _HIDDEN, **_TAIL},
            "(input, normalized_shape, weight, bias, eps), as torch's layer_norm",
        ),
        Operation(
            "gelu",
            ("default", "composed", "compiled"),
            {**_ROWS, "hidden_size": Key("int", 1024, least=1, most=1_000_000), **_TAIL},
            "(input), with the error function, not its tanh approximation",
        ),
        Operation(
            "mlm_loss",
            ("dense", "sparse", "chunked", "liger", "cut_cross_entropy"),
            {
                **_ROWS,
                "hidden_size": _HIDDEN,
                "vocabulary_size": Key("int", 4096, least=2, most=10_000_000),
                "mask_rate": Key("float", 0.15, above=0, below=1),
                **_TAIL,
            },
            "(hidden [M, h], weight [V, h], bias [V], labels [M]) of the masked slots: the summed "
            "loss of all labels but -100",
        ),
        Operation(
            "optimizer_step",
            ("loop", "foreach", "fused", "compiled", "capturable"),
            {
                "mix": Key("str", "bert", choices=("flat", "bert", "small")),
                "hidden_size": Key("int", 128, least=8, most=16_384),
                "dtype": _DTYPE,
                "cache": _CACHE,
                "device": _DEVICE,
            },
            "(params, lr, betas, eps, weight_decay): an optimizer that steps as AdamW does",
        ),
    )
}


def find_operation(name: str) -> Operation:
    """Give an operation.

    Raises:
        UserError: there is none of that name.
    """
    if name not in OPERATIONS:
        raise UserError(
            f"no operation '{name}' to measure alone. Operations: {', '.join(OPERATIONS)}."
            f"{nearest(name, OPERATIONS)}"
        )
    return OPERATIONS[name]


def check_implementation(operation: Operation, name: str) -> str:
    """Give the name of an implementation, a built-in one or ``module:function``.

    Raises:
        UserError: it is neither.
    """
    module, colon, function = name.partition(":")
    if name in operation.implementations or (module and colon and function):
        return name
    raise UserError(
        f"no implementation '{name}' of {operation.name}. Implementations: "
        f"{', '.join(operation.implementations)}, or module:function, called as "
        f"{operation.signature}.{nearest(name, operation.implementations)}"
    )


def read_options(
    operation: Operation, given: Mapping[str, Any], option: str = "--set"
) -> dict[str, Any]:
    """Check an operation's options and fill in the defaults.

    Raises:
        MatrixError: an unknown option, a wrong type, a value outside its limits.
    """
    place = Place(option)
    place.known(given, operation.keys, f"option of {operation.name}")
    return {
        key: rule.read(given[key], place.at(key)) if key in given else rule.default
        for key, rule in operation.keys.items()
    }


def impossible(operation: str, implementation: str, options: Mapping[str, Any]) -> str | None:
    """Say why an implementation cannot run so, where that is known beforehand."""
    on_cpu, wide = options["device"] == "cpu", options["dtype"] in {"float32", "float64"}
    if operation == "attention":
        return _impossible_attention(implementation, options, on_cpu=on_cpu, wide=wide)
    if operation == "mlm_loss" and options["direction"] == "backward":
        return "the loss overwrites what its backward pass keeps: it runs once; take both"
    if implementation in _PACKAGES:
        return _impossible_package(implementation, on_cpu=on_cpu, wide=wide)
    if implementation == "capturable" and on_cpu:
        return "torch captures steps on CUDA only"
    if operation == "optimizer_step" and options["dtype"] == "float16":
        return "AdamW's second moment of small gradients is 0 in float16"
    return None


def over_segments(implementation: str, options: Mapping[str, Any]) -> bool:
    """Say whether an attention gets the real tokens alone, one sequence after the other."""
    padded_package = implementation == "flash_attn" and options["padding"] > 0
    return implementation == "varlen" or padded_package


def _impossible_package(implementation: str, *, on_cpu: bool, wide: bool) -> str | None:
    package = _PACKAGES[implementation]
    reasons = {
        f"{implementation}'s kernels run on CUDA only": on_cpu,
        "cut_cross_entropy takes 16-bit numbers only": package == "cut_cross_entropy" and wide,
        f"{package} is not installed: pip install 'bertopt-bench[kernels]'": not find_spec(package),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _impossible_attention(
    implementation: str, options: Mapping[str, Any], *, on_cpu: bool, wide: bool
) -> str | None:
    name, heads = implementation, options["head_size"]
    reasons = {
        f"torch has {name} attention on CUDA only": name in {"efficient", "cudnn"} and on_cpu,
        f"{name} has attention on CUDA only": name in {"varlen", "flash_attn"} and on_cpu,
        "flex attention has no backward pass on a CPU: take direction forward": name == "flex"
        and on_cpu
        and options["direction"] != "forward",
        f"torch's flex attention takes heads of {_LEAST_FLEX_HEAD} and more": name == "flex"
        and heads < _LEAST_FLEX_HEAD,
        "flash attention takes no mask on CUDA: take varlen": name == "flash"
        and options["padding"] > 0
        and not on_cpu,
        f"{name} attention takes 16-bit numbers only on CUDA": name in {"cudnn", "varlen", *FLASH}
        and wide
        and not on_cpu,
        "flash_attn is not installed: pip install flash-attn --no-build-isolation": name
        == "flash_attn"
        and not find_spec("flash_attn"),
        "torch's efficient attention takes no 64-bit numbers": name == "efficient"
        and options["dtype"] == "float64",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def micro_cell(operation: Operation, implementation: str, options: Mapping[str, Any]) -> Cell:
    """Make the cell of an operation, its implementation and all its options."""
    apart = {"dtype", "device"}
    shapes = {key: value for key, value in options.items() if key not in apart}
    content = {
        "workload": {"name": MICRO, "operation": operation.name, **shapes},
        "kernel": {operation.name: {"name": implementation}},
        "precision": {"name": PRECISIONS[options["dtype"]]},
        "device": {"name": options["device"]},
    }
    skip = impossible(operation.name, implementation, options)
    return Cell(cell_id(content), content, skip, implementation)


def cell_case(content: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Give back operation, implementation and options of a micro cell."""
    workload = dict(content["workload"])
    operation = workload.pop("operation")
    del workload["name"]
    dtypes = {precision: dtype for dtype, precision in PRECISIONS.items()}
    options = {
        **workload,
        "dtype": dtypes[content["precision"]["name"]],
        "device": content["device"]["name"],
    }
    return operation, content["kernel"][operation]["name"], options


def memory_bytes(content: Mapping[str, Any]) -> int:
    """Forecast what a micro cell's process holds besides torch: inputs, copies, the check."""
    operation, _, options = cell_case(content)
    parameters = 0
    if operation == "optimizer_step":
        size, vocabulary = bert_like(options["hidden_size"])
        parameters = parameter_count(size, vocabulary=vocabulary)
    held = COPIES * buffer_bytes(operation, options, parameters)
    if operation == "attention":  # weights of the float64 check, and their gradients
        rows = options["batch_size"] * options["heads"] * options["seq_len"]
        held += 6 * 8 * rows * options["seq_len"]
    if operation == "mlm_loss":
        held += 6 * 8 * options["batch_size"] * options["seq_len"] * options["vocabulary_size"]
    return held + (COLD_BYTES if options["cache"] == "cold" else 0)


def is_micro(content: Mapping[str, Any]) -> bool:
    """Say whether a cell measures an operation alone."""
    return bool(content.get("workload", {}).get("name") == MICRO)


def read_micro_arms(
    name: str,
    *,
    base: Sequence[str] = (),
    arms: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> tuple[Matrix, list[Arm]]:
    """Read the arms of a duel of implementations; the first one is the baseline.

    Args:
        name: the operation.
        base: words that the baseline adds to the first arm's, or all of it where given.
        arms: one text an arm: an implementation, options as ``dtype=bfloat16``, own keys as
            ``label=NAME``.
        overrides: options that all arms share.

    Raises:
        UserError: an unknown operation, implementation or option; an arm that cannot run here.
    """
    operation = find_operation(name)
    shared = _pairs(overrides, "--set")[1]
    texts = [" ".join(base), *arms] if base else list(arms)
    if not texts:
        raise UserError(
            f"--micro {name} has no arm. Name implementations: --arm "
            f"{operation.implementations[0]} --arm {operation.implementations[1]}."
        )
    first_name, first = _pairs([texts[0]], "--arm")
    common = {**shared, **{key: value for key, value in first.items() if key not in OWN_KEYS}}
    usual, alone = first_name or operation.implementations[0], len(texts) == 1
    read = [_read_arm(operation, text, usual, common, alone=alone) for text in texts]
    cells, asked = [cell for cell, _ in read], [one for _, one in read]
    labels = arm_labels(cells, asked)
    made = [make_arm(*one) for one in zip(labels, cells, asked, strict=True)]
    return _matrix(operation, common, texts), made


def _read_arm(
    operation: Operation, text: str, usual: str, common: Mapping[str, Any], *, alone: bool
) -> tuple[Cell, Asked]:
    """Read one arm; what it does not say is as in the first one."""
    name, given = _pairs([text], "--arm")
    chosen = check_implementation(operation, name or usual)
    own = {key: value for key, value in given.items() if key in OWN_KEYS}
    written = {key: value for key, value in given.items() if key not in OWN_KEYS}
    options = read_options(operation, {**common, **written}, "--arm")
    cell = _runnable(micro_cell(operation, chosen, options), text)
    label = str(own.pop("label", chosen if alone else ""))
    return cell, Asked(label, text, tuple(written.items()), own)


def _pairs(texts: Sequence[str], option: str) -> tuple[str, dict[str, Any]]:
    """Read words: one bare word is the implementation, the others are ``KEY=VALUE``."""
    bare, pairs = "", {}
    for word in (word for text in texts for word in split_words(text, option)):
        if "=" not in word and option == "--arm":
            if bare:
                raise UserError(f"--arm names two implementations, {bare} and {word}; keep one.")
            bare = word
            continue
        key, value = split_override(word, option)
        if key in pairs:
            raise Place(option, key).error("is given twice; keep one.")
        as_text = key in TEXTS and not isinstance(value, str)
        pairs[key] = word.partition("=")[2].strip() if as_text else value
    return bare, pairs


def _runnable(cell: Cell, text: str) -> Cell:
    if cell.skip is not None:
        raise UserError(f"arm '{text}' cannot run here: {cell.skip}.")
    return cell


def _matrix(operation: Operation, shared: Mapping[str, Any], texts: Sequence[str]) -> Matrix:
    """Stand in for the matrix that a duel of operations has not: name, source, digest, timing."""
    said = "".join(f"\n{key} = {canonical_json(value)}" for key, value in shared.items())
    source = f"# bertopt-bench duel --micro {operation.name}{said}"
    source += "".join(f"\n# --arm {text!r}" for text in texts)
    digest = hashlib.sha256(canonical_json([operation.name, dict(shared)]).encode()).hexdigest()
    return Matrix(
        file=Path(f"--micro {operation.name}"),
        name=f"{MICRO}-{operation.name}",
        description=f"{operation.name} alone",
        source=source,
        digest=digest[:16],
        seeds=(1,),
        replicates=1,
        allow=(),
        skip_slower_precisions=False,
        timing={key: rule.default for key, rule in TIMING.items()},
        levels={},
        exclusions=(),
        includes=(),
    )
