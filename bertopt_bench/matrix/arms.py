"""Read the arms of a duel: cells given as overrides on a matrix, the first one the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import MatrixError, UserError, nearest
from bertopt_bench.matrix.cells import expand_one
from bertopt_bench.matrix.choices import axis_names
from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.matrix.keys import WORKLOAD, Place, came
from bertopt_bench.matrix.labels import cell_labels
from bertopt_bench.matrix.modes import is_inference, training_differences
from bertopt_bench.matrix.overrides import split_override, split_words
from bertopt_bench.matrix.quantities import read_share
from bertopt_bench.matrix.spec import load, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.matrix.cells import Cell
    from bertopt_bench.matrix.overrides import Override
    from bertopt_bench.matrix.spec import Matrix

CONTROL = "A/A"
"""The label of the arm that is the baseline once more."""

OWN_KEYS = ("label", "python", "revision", "checkout", "build", "inject")
"""What an arm may say besides its cell."""
TEXTS = ("label", "python", "revision", "checkout")
"""Those that are texts: a revision 1.10 or 12e4567 is no number."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One contender: a cell, where its code comes from, and by how much it is slowed on purpose."""

    label: str
    cell: Cell
    overrides: tuple[str, ...] = ()
    python: str | None = None
    revision: str | None = None
    checkout: Path | None = None
    build: bool = False
    injected_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """An arm as it was written: the name given to it, dotted keys with values, its own keys."""

    name: str
    text: str
    keys: tuple[tuple[str, Any], ...]
    own: Mapping[str, Any]


def read_arms(
    matrix_file: Path | str,
    *,
    base: Sequence[str] = (),
    arms: Sequence[str] = (),
    overrides: Sequence[Override] = (),
    capabilities: Mapping[str, Any] | None = None,
) -> tuple[Matrix, list[Arm]]:
    """Give the baseline's matrix and the arms, the baseline first.

    Args:
        matrix_file: a matrix, which may have a table ``[arms]``; without ``base`` its first arm is
            the baseline.
        base: overrides that narrow the matrix to the baseline, as ``optimizer=adamw``, and its own
            keys, as ``revision=v1.0``.
        arms: one text an arm: overrides on the baseline, and own keys as ``revision=v1.0``.
        overrides: ``--set`` of the matrix.
        capabilities: what this machine can do; without it no skip rule is asked.

    Raises:
        MatrixError: an arm stands for several cells, cannot run here, or repeats a label.
    """
    path = Path(matrix_file)
    others = [*_in_file(path), *(_written(text) for text in arms)]
    if others and not base and others[0] in _in_file(path):
        baseline = others.pop(0)
    else:
        baseline = _asked("", "", read_pairs(base, "--base"), Place("--base"))
    first = [*overrides, *baseline.keys]
    matrix = load(path, first)
    cells = [_one_cell(matrix, "the baseline", capabilities)]
    for one in others:
        who = f"arm '{one.name or one.text}'"
        cells.append(_one_cell(load(path, [*first, *one.keys]), who, capabilities))
    for cell, one in zip(cells[1:], others, strict=True):
        _check_applies(cells[0], cell, one.name or one.text)
    written = [baseline, *others]
    arm_of = zip(arm_labels(cells, written), cells, written, strict=True)
    return matrix, [make_arm(*one) for one in arm_of]


def _check_applies(baseline: Cell, cell: Cell, who: str) -> None:
    """Refuse an arm that differs in what a forward pass does not use: it would be the same arm."""
    if not (is_inference(baseline.content) and is_inference(cell.content)):
        return
    axes = training_differences(baseline.content, cell.content)
    if axes:
        raise UserError(
            f"arm '{who}' differs from the baseline in {' and '.join(axes)}, and inference trains "
            "nothing. Leave that out, or give --set workload.mode=training."
        )


def _in_file(path: Path) -> list[Asked]:
    table = read_document(path).get("arms", {})
    place = Place(path, "arms")
    return [
        _asked(name, name, place.at(name).table(arm), place.at(name))
        for name, arm in place.table(table).items()
    ]


def _written(text: str) -> Asked:
    pairs = read_pairs([text], "--arm")
    if not pairs:
        raise UserError("--arm is empty. Write what differs from the baseline: optimizer=lion.")
    return _asked("", text, pairs, Place("--arm"))


def read_pairs(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Read words as ``KEY=VALUE``; a key that is given twice is a mistake."""
    pairs: dict[str, Any] = {}
    for word in (word for text in texts for word in split_words(text, option)):
        key, value = split_override(word, option)
        if key in pairs:
            raise Place(option, key).error("is given twice; keep one.")
        as_text = key in TEXTS and not isinstance(value, str)
        pairs[key] = word.partition("=")[2].strip() if as_text else value
    return pairs


def _asked(name: str, text: str, table: Mapping[str, Any], place: Place) -> Asked:
    own = {key: value for key, value in table.items() if key in OWN_KEYS}
    keys = tuple(on_axis(key, value, place) for key, value in table.items() if key not in own)
    return Asked(str(own.pop("label", name)), text, keys, own)


def on_axis(
    key: str, value: Any, place: Place, what: str = "an arm", own: Sequence[str] = OWN_KEYS
) -> tuple[str, Any]:
    """Give the dotted key of a matrix for an axis, a kernel's operation or a workload key.

    Raises:
        MatrixError: there is no such key; ``what`` and its ``own`` keys are named.
    """
    axes = axis_names()
    kernels = [axis.partition(".")[2] for axis in axes if axis.startswith("kernel.")]
    plain = [axis for axis in axes if "." not in axis]
    if key in plain or (key.startswith("kernel.") and key in axes):
        return f"axes.{key}", value
    if key in kernels:
        return f"axes.kernel.{key}", value
    if key in WORKLOAD:
        return f"workload.{key}", value
    if key.startswith(("axes.", "workload.")):  # a whole table would take the others' place
        return key, value
    allowed = [*plain, *kernels, *WORKLOAD, *own]
    raise place.at(key).error(
        f"no such key of {what}. Allowed: {', '.join(allowed)}.{nearest(key, allowed)}"
    )


def _one_cell(matrix: Matrix, who: str, capabilities: Mapping[str, Any] | None) -> Cell:
    cell = expand_one(
        matrix, capabilities, f"{who} stands for", "a duel compares single ones", "--base {}=VALUE"
    )
    if cell.skip is not None:
        raise MatrixError(matrix.file, "", f"{who} cannot run here: {cell.skip}")
    return cell


def arm_labels(cells: Sequence[Cell], written: Sequence[Asked]) -> list[str]:
    """Name arms as they ask to be, else by what varies, else by what was written."""
    found = cell_labels([cell.content for cell in cells])
    if len(set(found)) < len(found):  # cells alike: revisions, interpreters, a slowed copy
        found = [one.text or "baseline" for one in written]
    labels = [one.name or label for one, label in zip(written, found, strict=True)]
    repeated = next((label for label in labels if labels.count(label) > 1), None)
    if repeated is not None or CONTROL in labels:
        raise UserError(
            f"two arms are called '{repeated or CONTROL}'. Name one otherwise, with label=NAME."
        )
    return labels


def make_arm(label: str, cell: Cell, asked: Asked) -> Arm:
    """Make an arm of its cell and of what it says besides.

    Raises:
        MatrixError: an own key of the wrong type.
    """
    place = Place("--arm", label)
    own = dict(asked.own)
    for key in TEXTS[1:]:
        value = own.get(key)
        if value is not None and (not isinstance(value, str) or value == ""):
            raise place.at(key).error(f"is {came(value)}; it must be a text.")
    build = own.get("build", False)
    if not isinstance(build, bool):
        raise place.at("build").error(f"is {came(build)}; it must be true or false.")
    checkout = own.get("checkout")
    return Arm(
        label=label,
        cell=cell,
        overrides=tuple(f"{key}={_text(value)}" for key, value in asked.keys),
        python=None if own.get("python") is None else str(own["python"]),
        revision=None if own.get("revision") is None else str(own["revision"]),
        checkout=None if checkout is None else Path(str(checkout)),
        build=build,
        injected_share=read_share(own.get("inject", 0.0), place.at("inject").error),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)
