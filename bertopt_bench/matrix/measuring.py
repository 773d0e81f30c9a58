"""What a matrix' table ``[measure]`` asks for besides the timed loop; by default, nothing.

None of it changes a cell: trials with and without it train alike, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.keys import Key

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def read_measure(table: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Read the table, defaults filled in.

    Raises:
        MatrixError: an unknown key, a wrong type, a value outside its limits.
    """
    place.known(table, MEASURE)
    return {
        key: rule.read(table[key], place.at(key)) if key in table else rule.default
        for key, rule in MEASURE.items()
    }
