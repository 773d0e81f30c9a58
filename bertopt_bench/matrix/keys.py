"""Plain keys of a matrix file: their kinds, limits and defaults, and the errors they raise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import MatrixError, UserError, nearest
from bertopt_bench.matrix import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "dict": "a table",
    "list": "a list",
}
MOST_CELLS = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which file something stands: it makes the errors about it."""

    file: Path | str
    key: str = ""

    def at(self, name: str) -> Place:
        """Give the place of a key of this table."""
        return Place(self.file, f"{self.key}.{name}" if self.key else name)

    def item(self, index: int) -> Place:
        """Give the place of an element of this list, counted from 0."""
        return Place(self.file, f"{self.key}[{index}]")

    def error(self, text: str) -> MatrixError:
        """Make the error to raise."""
        return MatrixError(self.file, self.key, text)

    def table(self, value: Any) -> dict[str, Any]:
        """Give the value, which must be a table."""
        if not isinstance(value, dict):
            raise self.error(f"is {came(value)}; it must be a table.")
        return value

    def known(self, names: Iterable[str], allowed: Iterable[str], what: str = "key") -> None:
        """Refuse names that are not allowed here."""
        allowed = list(allowed)
        for name in names:
            if name not in allowed:
                raise self.at(name).error(
                    f"no such {what}. Allowed: {', '.join(allowed)}.{nearest(name, allowed)}"
                )


@dataclass(frozen=True, slots=True)
class Key:
    """A key with a plain value: its kind, default, limits (``above`` and ``below`` are outside)."""

    kind: str
    default: Any = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    def read(self, value: Any, place: Place) -> Any:
        """Check one value; whole numbers become floats where a float is meant.

        Raises:
            MatrixError: a wrong type, a value outside the limits, no choice.
        """
        if self.kind == "float" and type(value) is int:
            value = float(value)
        if type(value).__name__ != self.kind or not self._within(value):
            close = nearest(str(value), self.choices)
            raise place.error(f"is {came(value)}; it must be {self.meaning()}.{close}")
        return value

    def meaning(self) -> str:
        """Say in words what the key may be."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = (
            ("of at least", self.least),
            ("above", self.above),
            ("below", self.below),
            ("of at most", self.most),
        )
        limits = [f"{word} {limit:,g}" for word, limit in words if limit is not None]
        return f"{KINDS[self.kind]} {' and '.join(limits)}".rstrip()

    def _within(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def came(value: Any) -> str:
    """Say what came, and of what kind it is."""
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    text = text if len(text) <= 60 else text[:57] + "..."
    kind = {"str": "a text", "dict": "a table"}.get(type(value).__name__)
    return f"{text} ({kind or KINDS.get(type(value).__name__, type(value).__name__)})"


MODEL_DEFAULT = "tiny"
CORPUS_DEFAULT = "python_docs"
CORPUS_PREFIXES = ("path:", "hf:")
READ_DEFAULTS = {
    "model": MODEL_DEFAULT,
    "corpus": CORPUS_DEFAULT,
    "dataset": tasks.DATASET_DEFAULT,
    "weights": tasks.RANDOM,
    "tokenizer": tasks.OWN,
    "class_weights": "none",
}
"""Defaults of the workload keys that have a reader of their own."""

WORKLOAD: Mapping[str, Key | None] = {
    "name": Key("str", "mlm", choices=("mlm",)),
    "mode": Key("str", "training", choices=("training", "inference")),
    "model": None,  # a name or a table: read_model
    "corpus": None,  # an entry, or a prefix: read_corpus
    "vocabulary_size": Key("int", 4096, least=64, most=1_000_000),
    "seq_len": Key("int", 64, least=4, most=65_536),
    "batch_size": Key("int", 16, least=1, most=1_000_000),
    "micro_batches": Key("int", 1, least=1, most=1_000_000),
    "steps": Key("int", 120, least=1, most=100_000_000),
    "position_embedding": Key("str", "learned", choices=("learned", "sinusoidal")),
    "mask_rate": Key("float", 0.15, above=0, below=1),
    "evaluate_every": Key("int", 30, least=1, most=100_000_000),
    "evaluation_batches": Key("int", 8, least=1, most=1_000_000),
    "held_out_fraction": Key("float", 0.1, above=0, below=1),
    "held_out_part": Key("str", "all", choices=("all", "tuning", "report")),
    "lower_case": Key("bool", True),
    "layout": Key("str", "padded", choices=("padded", "unpadded", "packed")),
    "task": Key("str", "mlm", choices=tasks.TASKS),
    "dataset": None,  # an entry, or a prefix: tasks.read_dataset
    "weights": None,  # tasks.read_encoder
    "tokenizer": None,  # tasks.read_encoder
    "pooling": Key("str", "mean", choices=("mean", "cls")),
    "criterion": Key("str", "cross_entropy", choices=("cross_entropy", "negative_log_likelihood")),
    "class_weights": None,  # a word or a table: tasks.read_class_weights
}

TIMING: Mapping[str, Key] = {
    "steps": Key("int", None, least=1),
    "burn_in_steps": Key("int", 3, least=1, most=10_000),
    "timeout_seconds": Key("float", 3600.0, above=0),
    "phase_steps": Key("int", 3, least=1, most=10_000),
}


def read_workload_value(key: str, value: Any, place: Place) -> list[Any]:
    """Give the values that one written value stands for: several only of a model's table."""
    if key == "model":
        return read_model(value, place)
    if key in _READERS:
        return [_READERS[key](value, place)]
    rule = WORKLOAD[key]
    assert rule is not None
    return [rule.read(value, place)]


def read_model(value: Any, place: Place) -> list[Any]:
    """Read a model's name, or its table of sizes, in which lists expand."""
    from dataclasses import asdict

    from bertopt_bench.workload.formulas import model_size

    if not isinstance(value, str | dict):
        raise place.error(f"is {came(value)}; it must be a name or a table of sizes.")
    sizes = [value]
    if isinstance(value, dict):
        lists = {key: part if isinstance(part, list) else [part] for key, part in value.items()}
        for key, part in lists.items():
            if not part:
                raise place.at(key).error("is an empty list; give at least one value.")
        sizes = [dict(zip(value, parts, strict=True)) for parts in products(lists.values(), place)]
    try:
        full = [model_size(size) for size in sizes]
    except UserError as error:
        raise place.error(str(error)) from error
    return [value] if isinstance(value, str) else [asdict(size) for size in full]


def products(lists: Iterable[list[Any]], place: Place) -> Iterable[tuple[Any, ...]]:
    """Give every combination of the lists' values, the last varying fastest.

    Raises:
        MatrixError: there are more than a matrix may have cells; none of them is built.
    """
    from itertools import product

    lists = list(lists)
    refuse_too_many(math.prod(map(len, lists)), place)
    return product(*lists)


def refuse_too_many(count: int, place: Place) -> None:
    """Refuse more levels than a matrix may have cells, before they are built."""
    if count > MOST_CELLS:
        raise place.error(
            f"stands for {count:,} levels; at most {MOST_CELLS:,} cells are allowed. Split it."
        )


def read_corpus(value: Any, place: Place) -> str:
    """Read a corpus: an entry's name, ``path:FILES``, ``hf:NAME@REVISION``."""
    from bertopt_bench import catalogue

    if not isinstance(value, str):
        raise place.error(f"is {came(value)}; it must be a text.")
    for prefix in CORPUS_PREFIXES:
        if value == prefix:
            raise place.error(f"is {value!r}: something must follow the colon.")
        if value.startswith(prefix):
            if prefix == "hf:":
                _require_revision(value, place)
            return value
    try:
        return catalogue.find("corpus", value).name
    except UserError as error:
        raise place.error(f"{error} Text of your own: 'path:FILES', 'hf:NAME@REVISION'.") from error


def _require_revision(value: str, place: Place) -> None:
    """Refuse a name on the hub without a revision: what it stands for may change any day."""
    name, _, revision = value.partition("@")
    if not revision:
        raise place.error(
            f"is {value!r}, which names no revision, so that it may be another text tomorrow. "
            f"Write {name}@REVISION, a commit or a tag of the data set."
        )


_READERS: Mapping[str, Callable[[Any, Place], Any]] = {
    "corpus": read_corpus,
    "dataset": tasks.read_dataset,
    "weights": partial(tasks.read_encoder, "weights"),
    "tokenizer": partial(tasks.read_encoder, "tokenizer"),
    "class_weights": tasks.read_class_weights,
}


def refuse_not_finite(value: Any, place: Place) -> None:
    """Refuse nan and inf wherever they stand: no result could be named by them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise place.error(f"is {value}; it must be a finite number.")
    if isinstance(value, dict):
        for key, part in value.items():
            refuse_not_finite(part, place.at(key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            refuse_not_finite(part, place.item(index))


def refuse_repeats(values: list[Any], places: list[Place]) -> None:
    """Refuse a value that is given twice: its trials would count double."""
    from bertopt_bench.matrix.identity import canonical_json

    seen: dict[str, Place] = {}
    for value, place in zip(values, places, strict=True):
        text = canonical_json(value)
        if text in seen:
            raise place.error(f"repeats {seen[text].key} ({text}); keep one.")
        seen[text] = place
