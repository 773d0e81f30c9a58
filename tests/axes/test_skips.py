"""Skip rules: each one fires on its own impossible cell, and on no possible one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bertopt_bench import catalogue

RULES = catalogue.skip_rules()
CELL: dict[str, Any] = {
    "workload": {
        "name": "mlm",
        "model": "tiny",
        "corpus": "python_docs",
        "seq_len": 64,
        "batch_size": 16,
        "micro_batches": 1,
        "steps": 20,
    },
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.0},
    "schedule": {"name": "linear"},
    "regularizer": [{"name": "none"}],
    "precision": {"name": "fp32"},
    "device": {"name": "cpu", "threads": 0},
    "kernel": {
        "attention": {"name": "default"},
        "optimizer_step": {"name": "default"},
        "compile": {"name": "off"},
    },
}
OPERATIONS = [axis.partition(".")[2] for axis in catalogue.AXES if axis.startswith("kernel.")]
CPU_ONLY: dict[str, Any] = {
    "torch": "2.13.0",
    "cuda": {"count": 0, "names": [], "capability": []},
    "packages": {
        "pytorch_optimizer": "4.1.0",
        "datasets": "3.0",
        "pyarrow": None,
        "liger_kernel": "0.6.0",
        "cut_cross_entropy": "25.1.1",
        "flash_attn": "2.8.3",
    },
    "compiler": True,
    "accepts": {
        name: sorted(entry.accepts) for name, entry in catalogue.entries("optimizer").items()
    },
    "initial": [
        name for name, entry in catalogue.entries("optimizer").items() if "Initial" in entry.notes
    ],
    "precision_ratio": {},
    "skip_slower_precisions": False,
}


def gpu(*capability: int) -> dict[str, Any]:
    return CPU_ONLY | {"cuda": {"count": 1, "names": ["a GPU"], "capability": [capability]}}


def cell(**changes: Any) -> dict[str, Any]:
    """Give the plain cell with entries named, keys of the workload or kernels replaced."""
    changed = copy.deepcopy(CELL)
    for key, value in changes.items():
        if key in changed["workload"]:
            changed["workload"][key] = value
        elif key in OPERATIONS:
            changed["kernel"][key] = {"name": value}
        elif key == "regularizer":
            changed[key] = value
        elif key == "layout":
            changed["workload"][key] = value
        else:
            changed[key] = value if isinstance(value, dict) else {"name": value}
    return changed


def laid_out(layout: str, **changes: Any) -> dict[str, Any]:
    changed = cell(**changes)
    changed["workload"]["layout"] = layout
    return changed


CLASSIFIER: dict[str, Any] = {
    "name": "classification",
    "model": "minilm",
    "weights": "minilm",
    "tokenizer": "minilm",
    "position_embedding": "learned",
}


def classifier(changes: dict[str, Any] | None = None, **axes: Any) -> dict[str, Any]:
    changed = cell(**axes)
    return {**changed, "workload": {**changed["workload"], **CLASSIFIER, **(changes or {})}}


def fired(content: dict[str, Any], capabilities: dict[str, Any]) -> dict[str, str]:
    checked = {name: rule.check(content, capabilities) for name, rule in RULES.items()}
    return {name: reason for name, reason in checked.items() if reason is not None}


NO_EXTRAS = CPU_ONLY | {"packages": {"pytorch_optimizer": None, "datasets": None}}
DECAY = {"name": "weight_decay", "weight_decay": 0.01}
COUPLED = {"name": "l2", "l2": 1e-4}
DROPOUT = {"name": "dropout", "dropout": 0.0, "attention_dropout": 0.1}
NARROW_HEADS = {"hidden": 64, "heads": 8, "positions": 512}
ODD_HEADS = {"hidden": 60, "heads": 5, "positions": 512}
SMOOTHING = {"name": "label_smoothing", "label_smoothing": 0.1}
GPU: dict[str, Any] = {"device": "cuda", "precision": "bf16"}

SKIPPED = [
    ("no_cuda", cell(device="cuda"), CPU_ONLY),
    ("no_cuda", cell(device={"name": "cuda", "index": 1}), gpu(9, 0)),
    ("tf32_needs_cuda", cell(precision="tf32"), CPU_ONLY),
    ("tf32_needs_cuda", cell(precision="tf32", device="cuda"), gpu(7, 0)),
    ("bf16_needs_support", cell(precision="bf16", device="cuda"), gpu(7, 5)),
    ("fp16_on_cpu", cell(precision="fp16"), CPU_ONLY),
    (
        "slower_than_fp32",
        cell(precision="bf16"),
        CPU_ONLY
        | {"skip_slower_precisions": True, "precision_ratio": {"cpu": {"fp32": 1.0, "bf16": 1.3}}},
    ),
    *[
        (
            "fused_momentum_under_a_scaler",
            cell(optimizer=name, optimizer_step="fused", precision="fp16", device="cuda"),
            gpu(9, 0),
        )
        for name in ("momentum", "nesterov")
    ],
    ("missing_package", cell(optimizer="lion"), NO_EXTRAS),
    ("missing_package", cell(corpus="hf:some/set"), NO_EXTRAS),
    ("no_foreach_step", cell(optimizer="muon", optimizer_step="foreach"), CPU_ONLY),
    ("no_fused_step", cell(optimizer="nadam", optimizer_step="fused"), CPU_ONLY),
    ("no_capturable_step", cell(optimizer="lion", optimizer_step="capturable", **GPU), gpu(9, 0)),
    ("no_initial_state", cell(optimizer="adafactor", optimizer_step="compiled"), CPU_ONLY),
    ("no_initial_state", cell(optimizer="my:Own", optimizer_step="compiled"), CPU_ONLY),
    ("classifier_infers_nothing", classifier({"mode": "inference"}), CPU_ONLY),
    ("classifier_is_padded", classifier({"layout": "packed"}), CPU_ONLY),
    ("classifier_has_no_mlm_loss", classifier(mlm_loss="dense"), CPU_ONLY),
    ("classifier_is_not_captured", classifier(cuda_graph="step", **GPU), gpu(9, 0)),
    ("weights_of_another_model", classifier({"model": "tiny"}), CPU_ONLY),
    ("weights_of_another_tokenizer", classifier({"tokenizer": "own"}), CPU_ONLY),
    *[
        ("kernel_needs_cuda", cell(**axes), CPU_ONLY)
        for axes in (
            {"attention": "efficient"},
            {"attention": "cudnn"},
            {"attention": "flash_attn"},
            {"attention": "flex"},
            {"layer_norm": "liger"},
            {"mlm_loss": "liger"},
            {"mlm_loss": "cut_cross_entropy"},
            {"optimizer_step": "capturable"},
            {"compile": "reduce_overhead"},
            {"cuda_graph": "step"},
        )
    ],
    ("attention_without_dropout", cell(attention="flex", regularizer=[DROPOUT], **GPU), gpu(9, 0)),
    (
        "uncapturable_step",
        laid_out("packed", cuda_graph="step", attention="varlen", **GPU),
        gpu(9, 0),
    ),
    ("varlen_needs_a_layout", cell(attention="varlen", **GPU), gpu(9, 0)),
    ("missing_package", cell(layer_norm="liger", **GPU), NO_EXTRAS | {"cuda": gpu(9, 0)["cuda"]}),
    (
        "missing_package",
        cell(mlm_loss="cut_cross_entropy", **GPU),
        NO_EXTRAS | {"cuda": gpu(9, 0)["cuda"]},
    ),
    ("loss_needs_half", cell(mlm_loss="cut_cross_entropy", device="cuda"), gpu(9, 0)),
    ("chunked_loss_needs_torch", cell(mlm_loss="chunked"), CPU_ONLY | {"torch": "2.12.1"}),
    ("loss_without_smoothing", cell(mlm_loss="chunked", regularizer=[SMOOTHING]), CPU_ONLY),
    ("loss_without_smoothing", cell(mlm_loss="my:loss", regularizer=[SMOOTHING]), CPU_ONLY),
    *[
        ("uncapturable_step", cell(cuda_graph="step", device="cuda", **axes), gpu(9, 0))
        for axes in (
            {"optimizer": "lion"},
            {"optimizer": "sgd"},
            {"optimizer": "momentum", "optimizer_step": "foreach"},
            {"optimizer": "nesterov", "optimizer_step": "loop"},
            {"optimizer": "rmsprop", "optimizer_step": "loop"},
            {"optimizer_step": "compiled"},
            {"precision": "fp16"},
            {"compile": "max_autotune"},
            {"regularizer": [{"name": "ema", "decay": 0.9}]},
            {"regularizer": [{"name": "my:Own"}]},
            {"regularizer": [{"name": "dropout", "dropout": 0.1}], "checkpointing": "layers"},
            {"mlm_loss": "liger", "precision": "bf16"},
            {"attention": "flex", "precision": "bf16"},
        )
    ],
    (
        "gradients_in_a_graphs_pool",
        cell(compile="reduce_overhead", optimizer_step="capturable", **GPU),
        gpu(9, 0),
    ),
    (
        "gradients_in_a_graphs_pool",
        cell(compile="max_autotune", micro_batches=2, **GPU),
        gpu(9, 0),
    ),
    ("graphs_hide_kernels", cell(compile="reduce_overhead", attention="math", **GPU), gpu(9, 0)),
    ("attention_needs_half", cell(attention="cudnn", device="cuda"), gpu(9, 0)),
    (
        "attention_needs_half",
        cell(attention="efficient", device="cuda", precision="fp64"),
        gpu(9, 0),
    ),
    ("flash_with_dropout_on_cpu", cell(attention="flash", regularizer=[DROPOUT]), CPU_ONLY),
    (
        "flash_with_padding_on_cuda",
        cell(attention="flash", device="cuda", precision="bf16"),
        gpu(9, 0),
    ),
    *[
        (
            "attention_without_dropout",
            laid_out("packed", attention=kernel, regularizer=[DROPOUT], **GPU),
            gpu(9, 0),
        )
        for kernel in ("flash", "flash_attn")
    ],
    ("attention_needs_half", laid_out("packed", attention="flash", device="cuda"), gpu(9, 0)),
    (
        "no_kernel_for_unequal_lengths",
        cell(device="cuda", precision="fp16", layout="unpadded"),
        gpu(7, 5),
    ),
    (
        "no_kernel_for_unequal_lengths",
        cell(device="cuda", precision="fp16", layout="packed", model=ODD_HEADS),
        gpu(9, 0),
    ),
    (
        "no_kernel_for_unequal_lengths",
        laid_out("unpadded", attention="flash", **GPU),
        gpu(9, 0) | {"torch": "2.9.1"},
    ),
    (
        "flex_takes_no_blocks",
        cell(attention="flex", layout="unpadded")
        | {"workload": {**CELL["workload"], "mode": "inference", "layout": "unpadded"}},
        CPU_ONLY,
    ),
    (
        "flex_within_a_compiled_model_on_cpu",
        cell(attention="flex", compile="default")
        | {"workload": {**CELL["workload"], "mode": "inference"}},
        CPU_ONLY,
    ),
    ("flex_needs_wide_heads", cell(attention="flex", model=NARROW_HEADS, **GPU), gpu(9, 0)),
    (
        "flex_takes_no_blocks",
        cell(attention="flex", device="cuda", precision="bf16", layout="packed"),
        gpu(9, 0),
    ),
    ("no_compiler", cell(compile="default"), CPU_ONLY | {"compiler": False}),
    ("no_compiler", cell(layer_norm="liger", **GPU), gpu(9, 0) | {"compiler": False}),
    (
        "decay_twice",
        cell(optimizer={"name": "adamw", "weight_decay": 0.1}, regularizer=[DECAY]),
        CPU_ONLY,
    ),
    ("decay_twice", cell(regularizer=[DECAY, DECAY]), CPU_ONLY),
    ("decay_twice", cell(optimizer="nadam", regularizer=[DECAY, COUPLED]), CPU_ONLY),
    ("sequence_too_long", cell(seq_len=513), CPU_ONLY),
    ("sequence_too_long", cell(seq_len=65, model={"positions": 64}), CPU_ONLY),
    ("uneven_micro_batches", cell(micro_batches=3), CPU_ONLY),
    (
        "micro_batches_in_inference",
        cell() | {"workload": {**CELL["workload"], "mode": "inference", "micro_batches": 2}},
        CPU_ONLY,
    ),
    (
        "next_sentence_elsewhere",
        cell() | {"workload": {**CELL["workload"], "mode": "inference", "next_sentence": True}},
        CPU_ONLY,
    ),
    (
        "fused_adagrad_needs_torch",
        cell(optimizer="adagrad", optimizer_step="fused", device="cuda"),
        gpu(9, 0) | {"torch": "2.11.0"},
    ),
]
POSSIBLE = [
    (cell(), CPU_ONLY),
    (
        cell(attention="flex") | {"workload": {**CELL["workload"], "mode": "inference"}},
        CPU_ONLY,
    ),
    (cell(device="cuda"), gpu(7, 0)),
    (cell(device="cuda", precision="tf32"), gpu(8, 0)),
    (cell(device="cuda", precision="bf16", attention="cudnn"), gpu(9, 0)),
    (cell(device="cuda", precision="fp16"), gpu(7, 0)),
    (cell(device="cuda", attention="efficient"), gpu(8, 6)),
    (classifier(), CPU_ONLY),
    (cell(attention="flash"), CPU_ONLY),
    (cell(attention="math", regularizer=[DROPOUT]), CPU_ONLY),
    (cell(optimizer="adamw", optimizer_step="fused", regularizer=[DECAY]), CPU_ONLY),
    (cell(optimizer="adam", regularizer=[DECAY, COUPLED]), CPU_ONLY),
    (cell(optimizer="my_module:Mine", optimizer_step="fused"), CPU_ONLY),
    (cell(optimizer="lion", corpus="hf:some/set"), CPU_ONLY),
    (cell(precision="bf16"), CPU_ONLY | {"precision_ratio": {"cpu": {"bf16": 1.3}}}),
    (cell(seq_len=512, micro_batches=4), CPU_ONLY),
    (cell(compile="max_autotune"), CPU_ONLY),
    (cell(compile="max_autotune", attention="math"), CPU_ONLY),
    (cell(compile="reduce_overhead", **GPU), gpu(9, 0)),
    (cell(layout="unpadded", attention="flash"), CPU_ONLY),
    (cell(layout="packed", compile="default", regularizer=[DROPOUT]), CPU_ONLY),
    (cell(layout="packed", device="cuda", precision="bf16"), gpu(8, 0)),
    (cell(layout="packed", device="cuda", precision="fp16", attention="efficient"), gpu(7, 5)),
    (cell(layout="unpadded", device="cuda", precision="fp16", regularizer=[DROPOUT]), gpu(7, 5)),
    (cell(optimizer="lamb", optimizer_step="compiled"), CPU_ONLY),
    (cell(mlm_loss="chunked"), CPU_ONLY),
    (cell(mlm_loss="dense", regularizer=[SMOOTHING]), CPU_ONLY),
    (cell(gelu="tanh", checkpointing="layers", regularizer=[DROPOUT]), CPU_ONLY),
    (cell(attention="flex", **GPU), gpu(8, 0)),
    (cell(attention="flex", compile="default", **GPU), gpu(8, 0)),
    (laid_out("packed", attention="varlen", **GPU), gpu(8, 0)),
    (laid_out("packed", attention="flash", **GPU), gpu(8, 0)),
    (laid_out("unpadded", attention="flash_attn", **GPU), gpu(8, 0) | {"torch": "2.9.1"}),
    (cell(compile="my:compiler"), CPU_ONLY | {"compiler": False}),
    (cell(mlm_loss="cut_cross_entropy", layer_norm="liger", **GPU), gpu(8, 0)),
    (cell(cuda_graph="step", optimizer_step="fused", **GPU), gpu(8, 0)),
    (
        cell(
            cuda_graph="step",
            optimizer="momentum",
            optimizer_step="fused",
            compile="default",
            **GPU,
        ),
        gpu(8, 0),
    ),
    (cell(cuda_graph="step", optimizer="nesterov", optimizer_step="fused", **GPU), gpu(8, 0)),
    (cell(cuda_graph="step", optimizer="rmsprop", **GPU), gpu(8, 0)),
    (cell(cuda_graph="step", optimizer="radam", optimizer_step="loop", **GPU), gpu(8, 0)),
    (cell(optimizer_step="capturable", checkpointing="layers", **GPU), gpu(8, 0)),
    (cell() | {"workload": {**CELL["workload"], "mode": "inference"}}, CPU_ONLY),
    (cell(optimizer="adagrad", optimizer_step="fused"), CPU_ONLY | {"torch": "2.11.0"}),
    (cell(optimizer="adagrad", optimizer_step="fused", device="cuda"), gpu(9, 0)),
    (cell(optimizer="sgd", optimizer_step="fused", precision="fp16", device="cuda"), gpu(9, 0)),
    (
        cell(optimizer="momentum", optimizer_step="foreach", precision="fp16", device="cuda"),
        gpu(9, 0),
    ),
]


@pytest.mark.parametrize(("name", "content", "capabilities"), SKIPPED)
def test_rule_fires_alone(name: str, content: dict[str, Any], capabilities: dict[str, Any]) -> None:
    """The impossible cell is skipped by the one rule that is about it, with a reason."""
    assert list(fired(content, capabilities)) == [name]


def test_fp16_on_a_cpu_is_told_of_training_only_where_there_is_some() -> None:
    """Oracle: the mode of the cell."""
    trains = cell(precision="fp16")
    infers = trains | {"workload": {**CELL["workload"], "mode": "inference"}}

    assert "fp16 training on a CPU" in fired(trains, CPU_ONLY)["fp16_on_cpu"]
    assert "train" not in fired(infers, CPU_ONLY)["fp16_on_cpu"]


@pytest.mark.parametrize(("content", "capabilities"), POSSIBLE)
def test_possible_cells_run(content: dict[str, Any], capabilities: dict[str, Any]) -> None:
    assert fired(content, capabilities) == {}


def test_every_rule_is_tried() -> None:
    """No rule stands untested; oracle: the rules that were discovered."""
    assert {name for name, *_ in SKIPPED} == set(RULES)


def test_rules_about_what_a_machine_lacks_say_so() -> None:
    """Oracle: a device, a package or a compiler; all others hold wherever the cell would run."""
    elsewhere = {name for name, rule in RULES.items() if rule.elsewhere}

    assert elsewhere == {"no_cuda", "missing_package", "no_compiler"}


def test_allowable_rules_are_those_of_bad_ideas() -> None:
    """A matrix may allow only what is possible: slow or emulated arithmetic, unpadded text."""
    allowable = {name for name, rule in RULES.items() if rule.allowable}

    assert allowable == {"fp16_on_cpu", "bf16_needs_support", "flash_with_padding_on_cuda"}


@pytest.mark.parametrize(
    ("content", "capabilities", "text"),
    [
        (cell(optimizer="lamb"), NO_EXTRAS, "pip install 'bertopt-bench[optimizers]'"),
        (cell(corpus="hf:x"), NO_EXTRAS, "pip install 'bertopt-bench[hub]'"),
        (
            cell(mlm_loss="liger", **GPU),
            NO_EXTRAS | {"cuda": gpu(9, 0)["cuda"]},
            "liger_kernel is not installed: pip install 'bertopt-bench[kernels]'",
        ),
        (
            cell(attention="flash_attn", **GPU),
            NO_EXTRAS | {"cuda": gpu(9, 0)["cuda"]},
            "pip install flash-attn --no-build-isolation",
        ),
        (
            cell(optimizer={"name": "adamw", "weight_decay": 0.1}, regularizer=[DECAY]),
            CPU_ONLY,
            "optimizer adamw (0.1), regularizer weight_decay (0.01); keep one",
        ),
        (cell(micro_batches=3), CPU_ONLY, "batch_size 16 is no multiple of 3"),
        (
            cell(cuda_graph="step", optimizer="sgd", **GPU),
            gpu(9, 0),
            "sgd asks the host for its rate; optimizer_step fused does not",
        ),
        (
            cell(cuda_graph="step", optimizer="rmsprop", optimizer_step="loop", **GPU),
            gpu(9, 0),
            "rmsprop's loop asks the host for its rate; optimizer_step foreach does not",
        ),
    ],
)
def test_reasons_say_what_to_do(
    content: dict[str, Any], capabilities: dict[str, Any], text: str
) -> None:
    assert text in " ".join(fired(content, capabilities).values())
