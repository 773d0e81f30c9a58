"""What a workload trains: masked-language modelling, or a classifier on labelled text.

``task`` is written in a matrix; a cell carries it as its workload's name, with the keys of its own
task only, so that no cell is told apart by what it does not use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError
from bertopt_bench.workload.classifier_formulas import CLASSIFICATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertopt_bench.matrix.keys import Place

TASKS = ("mlm", CLASSIFICATION)
MLM_KEYS = ("corpus", "mask_rate", "evaluation_batches", "next_sentence", "train_tokens")
LABELLED_KEYS = ("dataset", "weights", "tokenizer", "pooling", "criterion", "class_weights")
TOKENIZER_KEYS = ("vocabulary_size", "lower_case")
"""Of a tokenizer that is trained on the text; one that comes with weights has its own."""

DATASET_DEFAULT, RANDOM, OWN, TRAINED = "reuters_r8", "random", "own", "trained"
PRETRAINED, CHECKPOINT = "minilm", "checkpoint:"
DATASET_PREFIXES = ("path:", "hf:")
CLASS_WEIGHTS = ("none", "balanced")


def shape_workload(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the keys of the workload's own task; name what its tokenizer is."""
    workload = {key: value for key, value in choice.items() if key != "task"}
    if choice["task"] != CLASSIFICATION:
        return {key: value for key, value in workload.items() if key not in LABELLED_KEYS}
    if choice["tokenizer"] == OWN:
        workload["tokenizer"] = TRAINED if choice["weights"] == RANDOM else choice["weights"]
    left_out = {*MLM_KEYS, *(TOKENIZER_KEYS if workload["tokenizer"] != TRAINED else ())}
    kept = {key: value for key, value in workload.items() if key not in left_out}
    return {**kept, "name": CLASSIFICATION}


def read_dataset(value: Any, place: Place) -> str:
    """Read a data set: an entry's name, ``path:FILE.csv``, ``hf:NAME@REVISION``."""
    from bertopt_bench import catalogue
    from bertopt_bench.matrix.keys import came

    if not isinstance(value, str):
        raise place.error(f"is {came(value)}; it must be a text.")
    for prefix in DATASET_PREFIXES:
        if value == prefix:
            raise place.error(f"is {value!r}: something must follow the colon.")
        if value.startswith(prefix):
            if prefix == "hf:" and not value.partition("@")[2]:
                raise place.error(f"is {value!r}: a revision must follow, as in {value}@REVISION.")
            return value
    try:
        return catalogue.find("dataset", value).name
    except UserError as error:
        own = "Text of your own: 'path:FILE.csv', 'hf:NAME@REVISION'."
        raise place.error(f"{error} {own}") from error


def read_encoder(key: str, value: Any, place: Place) -> str:
    """Read where weights or a tokenizer come from: nothing, ``minilm``, ``checkpoint:FOLDER``."""
    from bertopt_bench.errors import nearest
    from bertopt_bench.matrix.keys import came

    allowed = (RANDOM if key == "weights" else OWN, PRETRAINED)
    if isinstance(value, str) and (value in allowed or value.startswith(CHECKPOINT)):
        if value != CHECKPOINT:
            return value
        raise place.error(f"is {value!r}: the folder must follow the colon.")
    raise place.error(
        f"is {came(value)}; it must be one of {', '.join(allowed)} or checkpoint:FOLDER."
        f"{nearest(str(value), [*allowed, CHECKPOINT])}"
    )


def read_class_weights(value: Any, place: Place) -> Any:
    """Read class weights: ``none``, ``balanced``, or a table of positive numbers by class."""
    from bertopt_bench.errors import nearest
    from bertopt_bench.matrix.keys import came

    if isinstance(value, str) and value in CLASS_WEIGHTS:
        return value
    if not isinstance(value, dict) or not value:
        raise place.error(
            f"is {came(value)}; it must be one of {', '.join(CLASS_WEIGHTS)}, or a table of "
            f"weights by class.{nearest(str(value), CLASS_WEIGHTS)}"
        )
    for name, weight in value.items():
        if type(weight) not in {int, float} or weight <= 0:
            raise place.at(name).error(f"is {came(weight)}; it must be a number above 0.")
    return {name: float(weight) for name, weight in sorted(value.items())}
