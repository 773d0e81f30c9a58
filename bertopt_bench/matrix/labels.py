"""Name cells for people: only what varies over the set that they stand in."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.identity import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Content = Mapping[str, Any]
    Varying = Mapping[tuple[str, str], frozenset[str]]

SEPARATOR = " · "
KERNEL = "kernel."
MANY = 3  # operations that vary, from which on no level is left without its operation's name
NOTHING_SAID = "usual kernels"
"""The label of a cell all of whose kernels are the usual ones, where nothing else varies."""
UNSAID: dict[str, dict[str, Any]] = {
    "kernel.checkpointing": {"name": "off"},
    "kernel.cuda_graph": {"name": "off"},
    "kernel.gelu": {"name": "default"},
    "kernel.layer_norm": {"name": "default"},
    "kernel.mlm_loss": {"name": "sparse"},
}
"""Axes that came after the first results were published, each with the choice that a cell's content
leaves out, so that the ids of cells from before stay as they were."""
USUAL_KERNELS: dict[str, dict[str, Any]] = {
    **UNSAID,
    "kernel.attention": {"name": "default"},
    "kernel.optimizer_step": {"name": "default"},
    "kernel.compile": {"name": "off"},
}
"""What an operation of a matrix that says nothing of it runs on."""
UNSAID_WORKLOAD: dict[str, Any] = {
    "layout": "padded",
    "mode": "training",
    "held_out_part": "all",
    "next_sentence": False,
    "train_tokens": 0,
}
"""The same of workload keys."""
DRAWN_ALIKE = ("layout", "mode")
"""Workload keys that change nothing in the text, the batches, the weights or the loss."""


def choices(content: Content) -> dict[str, Any]:
    """Give a cell's choice on each axis, unsaid ones too; kernels as ``kernel.<operation>``."""
    plain = {axis: value for axis, value in content.items() if axis not in {"workload", "kernel"}}
    kernels = {f"{KERNEL}{name}": value for name, value in content["kernel"].items()}
    return {**plain, **UNSAID, **kernels}


def workload_choices(workload: Mapping[str, Any]) -> dict[str, Any]:
    """Give a workload's keys, unsaid ones too."""
    return {**workload, **{k: v for k, v in UNSAID_WORKLOAD.items() if k not in workload}}


def drawn_from(workload: Mapping[str, Any]) -> dict[str, Any]:
    """Give what decides a workload's text and batches: trials alike in it saw the same tokens."""
    return {key: value for key, value in workload.items() if key not in DRAWN_ALIKE}


def level_labels(contents: Sequence[Content]) -> list[dict[str, str]]:
    """Give each cell's level on each axis in words: name, and the options that vary for it."""
    varying = _varying_options(contents)
    return [
        {axis: _written(axis, choice, varying) for axis, choice in choices(content).items()}
        for content in contents
    ]


def cell_labels(contents: Sequence[Content]) -> list[str]:
    """Give each cell a label of what varies over the set; a lone cell is named by its optimizer.

    >>> one = {"workload": {"steps": 5}, "optimizer": {"name": "sgd", "lr": 1.0}, "kernel": {}}
    >>> cell_labels([one, {**one, "workload": {"steps": 9}}])
    ['steps=5', 'steps=9']

    Where several operations of the kernel axis vary, their usual levels go unsaid, and a level that
    does not say by itself what it is a level of follows its operation's name.
    """
    rows = [
        {**labels, **{key: workload_label(key, value) for key, value in _workload(content)}}
        for content, labels in zip(contents, level_labels(contents), strict=True)
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    varies = [name for name in names if len({row.get(name) for row in rows}) > 1]
    kernels = [name for name in varies if name.startswith(KERNEL)]
    rows = shorten_kernels(rows, kernels)
    chosen = varies or ["optimizer"]
    labels = (SEPARATOR.join(row[name] for name in chosen if name in row) for row in rows)
    return [label or NOTHING_SAID for label in labels]


def shorten_kernels(
    rows: Sequence[Mapping[str, str]], kernels: Sequence[str]
) -> list[dict[str, str]]:
    """Leave usual levels of kernels out, and name the operation where a level does not tell it.

    Args:
        rows: levels in words, by axis.
        kernels: the axes of the kernel axis' operations that vary; of one alone all is left as is.
    """
    if len(kernels) < 2:
        return [dict(row) for row in rows]
    axes_of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for axis in kernels:
            if axis in row:
                axes_of[row[axis]].add(axis)
    told = {level for level, axes in axes_of.items() if len(axes) == 1 and len(kernels) < MANY}
    shortened = []
    for row in rows:
        written = dict(row)
        for axis in kernels:
            if row.get(axis) == USUAL_KERNELS.get(axis, {}).get("name"):
                written.pop(axis, None)
            elif axis in row and row[axis] not in told:
                written[axis] = f"{axis.removeprefix(KERNEL)}={row[axis]}"
        shortened.append(written)
    return shortened


def workload_label(key: str, value: Any) -> str:
    """Write a workload key: names say enough, numbers and flags need their key."""
    if key == "model" and not isinstance(value, str):
        return model_label(value)
    if isinstance(value, dict):
        return f"{key}=({', '.join(f'{name} {number(part)}' for name, part in value.items())})"
    return str(value) if isinstance(value, str) else f"{key}={number(value)}"


def model_label(model: Mapping[str, Any]) -> str:
    """Write a model's sizes: layers, hidden, heads, intermediate."""
    short = {"layers": "L", "hidden": "H", "heads": "A", "intermediate": "I"}
    return " ".join(f"{letter}{model[key]}" for key, letter in short.items() if key in model)


def number(value: Any) -> str:
    """Write an option's value, numbers as short as they are exact enough to tell apart."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(number, value)) + ")"
    return str(value)


def _workload(content: Content) -> Iterable[tuple[str, Any]]:
    workload = workload_choices(content["workload"])
    return ((key, value) for key, value in workload.items() if key != "name")


def _varying_options(contents: Sequence[Content]) -> Varying:
    """Find, by axis and entry, the options that differ between cells."""
    seen: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for content in contents:
        for axis, choice in choices(content).items():
            for part in choice if isinstance(choice, list) else [choice]:
                for option, value in part.items():
                    seen[axis, part["name"]][option].add(canonical_json(value))
    return {
        key: frozenset(option for option, values in options.items() if len(values) > 1)
        for key, options in seen.items()
    }


def _written(axis: str, choice: Any, varying: Varying) -> str:
    if isinstance(choice, list):
        return " + ".join(_written(axis, part, varying) for part in choice)
    shown = varying[axis, choice["name"]]
    options = [f"{key}={number(value)}" for key, value in choice.items() if key in shown]
    return " ".join([choice["name"], *options])
