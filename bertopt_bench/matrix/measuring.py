"""What a matrix' table ``[measure]`` asks for besides the timed loop; by default, nothing.

None of it changes a cell: trials with and without it train alike, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.keys import Key
from bertopt_bench.matrix.modes import INFERENCE
from bertopt_bench.workload.classifier_formulas import CLASSIFICATION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.matrix.keys import Place

MEASURE: Mapping[str, Key] = {
    "inside_steps": Key("int", 0, least=0, most=1_000),
    "checkpoints": Key("bool", False),
    "train_batches": Key("int", 0, least=0, most=1_000_000),
    "explained_texts": Key("int", 0, least=0, most=100),
}
"""``inside_steps``: at how many steps, spread over training, a second, untimed training looks into
the network. ``checkpoints``: a trial is kept at its evaluations, and goes on if it was killed.
``train_batches``: so many batches of train text, masked anew and the same for every seed, are
evaluated where held-out text is. ``explained_texts``: of so many texts of a classifier's test part
the record keeps tokens, and what each did to the prediction."""


def trains(parts: Sequence[Mapping[str, Sequence[Any]]]) -> bool:
    """Say whether a cell of the matrix or of what it includes trains; ``parts`` as below."""
    return any(set(part.get("workload.mode", ())) != {INFERENCE} for part in parts)


def read_measure(
    table: Mapping[str, Any], parts: Sequence[Mapping[str, Sequence[Any]]], place: Place
) -> dict[str, Any]:
    """Read the table, defaults filled in.

    Args:
        table: as it stands in the matrix.
        parts: the levels of the matrix and those of what it includes, by ``workload.<key>``.
        place: where it stands.

    Raises:
        MatrixError: an unknown key, a wrong type, a value outside its limits, or something to be
            measured that no cell of the matrix has.
    """
    place.known(table, MEASURE)
    measure = {
        key: rule.read(table[key], place.at(key)) if key in table else rule.default
        for key, rule in MEASURE.items()
    }
    if measure["train_batches"] and any(
        CLASSIFICATION in p.get("workload.task", ()) for p in parts
    ):
        raise place.at("train_batches").error(
            f"samples the text of task mlm; {CLASSIFICATION} has no such sample. Leave it out."
        )
    if not trains(parts):
        for key in (key for key, value in measure.items() if value):
            raise place.at(key).error("looks at training; inference trains nothing. Leave it out.")
    return measure
