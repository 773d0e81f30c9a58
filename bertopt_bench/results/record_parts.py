"""The parts of a record: what was committed, evaluated, remembered, tuned, compiled, looked at."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from bertopt_bench.results.stored import Number, Numbers, Stored, fixed


class Checkout(Stored):
    """A project that an arm ran: ``project`` is its folder below the repository's top.

    ``dirty_hash`` is empty where the commit says it all.
    """

    commit: str
    dirty_hash: str = ""
    project: str = ""


class Code(Stored):
    """Which code of this package ran: ``dirty_hash`` is empty where the commit says it all.

    ``outside`` hashes the source files of the cell's own entries. A revision or a checkout that a
    duel's arm named is in ``checkout``; ``outside`` then hashes the modules that its worker proved
    to have imported, as it does in another interpreter.
    """

    version: str
    commit: str | None = None
    dirty_hash: str | None = None
    outside: dict[str, str] = {}
    checkout: Checkout | None = None


class Evaluation(Stored):
    """One untimed look at held-out text, after so many updates.

    Of a classifier, at the validation part: ``masked_accuracy`` is the share of texts put into
    their class, ``confusion`` counts them, true classes as rows.
    """

    step: int = fixed(...)
    loss: Number = fixed(...)
    perplexity: Number = fixed(...)
    masked_accuracy: Number = fixed(...)
    next_sentence_loss: Number | None = fixed()
    next_sentence_accuracy: Number | None = fixed()
    train_loss: Number | None = fixed()
    train_seconds: Number
    evaluation_seconds: Number
    confusion: tuple[tuple[int, ...], ...] | None = fixed()


class Phases(Stored):
    """Mean seconds of the parts of a step, from a pass of their own."""

    data_seconds: Number
    forward_seconds: Number
    backward_seconds: Number
    optimizer_seconds: Number
    rest_seconds: Number
    step_seconds: Number
    steps: int


class Ragged(Stored):
    """What each step of a layout other than ``padded`` held; ``padded`` steps are all alike.

    ``slot_tokens`` went through the network, ``head_slots`` of them through its head, and attention
    looked at ``attended_pairs``, the sum of squared lengths.
    """

    slot_tokens: tuple[int, ...]
    head_slots: tuple[int, ...]
    attended_pairs: tuple[int, ...]

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if not len(self.slot_tokens) == len(self.head_slots) == len(self.attended_pairs):
            raise ValueError("slot_tokens, head_slots and attended_pairs differ in length")
        return self


class MemoryParts(Stored):
    """Bytes of a step by what they are for; ``other`` is what a GPU's allocator held besides."""

    parameter_bytes: int = 0
    gradient_bytes: int = 0
    optimizer_state_bytes: int = 0
    regularizer_state_bytes: int = 0
    activation_bytes: int = 0
    input_bytes: int = 0
    temporary_bytes: int = 0
    other_bytes: int = 0

    def total(self) -> int:
        """Add the parts up."""
        return sum(getattr(self, name) for name in type(self).model_fields)


class MemoryView(Stored):
    """The parts when the step held the most, in which phase that was, and each part's own most."""

    moment: str
    peak: MemoryParts
    largest: MemoryParts


class Memory(Stored):
    """A step's memory as attributed and by formula, from a pass of its own.

    ``independent_peak_bytes`` is the peak that another pass measured; ``saved_tensor_bytes`` what
    autograd saved in one forward pass, by its hooks; ``slack_bytes`` what a GPU's allocator had
    reserved at the peak and not given out.
    """

    peak_bytes: int
    independent_peak_bytes: int
    measured: MemoryView
    formula: MemoryView
    saved_tensor_bytes: int | None = None
    slack_bytes: int | None = None

    def difference(self) -> float:
        """Give the attributed peak's distance from the independent one, as a share of that."""
        return self.peak_bytes / self.independent_peak_bytes - 1


class Tuned(Stored):
    """Under which budget a cell's options were chosen: ``ledger`` is the sha256 of the ledger.

    ``points`` were tried in all, ``extensions`` of them beyond the edge of the declared space, each
    on so many ``seeds``; ``edge_optimum`` names options whose best value is the outermost tried.
    """

    arm: str
    points: int
    extensions: int
    seeds: int
    edge_optimum: tuple[str, ...] = ()
    ledger: str


class CompileCache(Stored):
    """What the compiler's cache on disk had of the trial's graphs; ``warm``: all of them."""

    state: Literal["cold", "warm"]
    hits: int
    misses: int
    bypassed: int = 0


class OperationKind(Stored):
    """One kind of operation within a traced step.

    ``seconds`` are all its own; ``counted_seconds`` those of the ``calls`` whose FLOPs and bytes
    follow by formula (of the optimizer: the least that its update needs).
    """

    kind: str
    calls: int
    seconds: Number
    counted_seconds: Number
    flops: Number
    bytes: Number


class Operations(Stored):
    """A traced step by kinds of operation; what is left of it is Python and the profiler."""

    step_seconds: Number
    kinds: tuple[OperationKind, ...]


class CalibrationBin(Stored):
    """Texts of the test part whose highest probability lies within a bin of equal width."""

    count: int
    correct: int
    confidence_sum: Number


class Classification(Stored):
    """A classifier on its test part, looked at once, after the last step.

    All measures follow from ``confusion`` (true classes as rows) and ``calibration``;
    ``training_counts`` tell the majority class. ``weights_sha256`` is of the pretrained file.
    """

    classes: tuple[str, ...]
    training_counts: tuple[int, ...]
    test_sha256: str
    weights_sha256: str | None = None
    loss: Number
    accuracy: Number
    confusion: tuple[tuple[int, ...], ...]
    calibration: tuple[CalibrationBin, ...]


class Explained(Stored):
    """What each token of a text did to the prediction of its class, by ``method``.

    Of integrated gradients the scores sum up to ``change``, the class's logit less that of a text
    of padding; ``true`` and ``predicted`` count from 0.
    """

    method: str
    true: int
    predicted: int
    probability: Number
    change: Number
    tokens: tuple[str, ...]
    scores: Numbers


class Inside(Stored):
    """What a second, untimed training saw inside the network: a row a step, a value a module.

    Steps count from 1. ``same_losses`` says whether its losses were those of the timed one, bit for
    bit; ``reason`` why it saw less than was asked for.
    """

    modules: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    gradient_norm: tuple[Numbers, ...] = ()
    weight_norm: tuple[Numbers, ...] = ()
    update_ratio: tuple[Numbers, ...] = ()
    activation_norm: tuple[Numbers, ...] = ()
    same_losses: bool = True
    reason: str = ""

    @model_validator(mode="after")
    def _of_one_shape(self) -> Self:
        for name in INSIDE:
            rows = getattr(self, name)
            if len(rows) != len(self.steps) or any(len(r) != len(self.modules) for r in rows):
                raise ValueError(f"{name} has not a row a step with a value a module")
        return self


INSIDE = ("gradient_norm", "weight_norm", "update_ratio", "activation_norm")
"""The figures of ``Inside``, by module and step."""
