"""Forecast the peak of allocated bytes in a forward pass alone, by formula and without torch.

The weights lie there always, and the mask that keeps packed sequences in a row apart. On top comes
the largest of a few moments, each of which holds what it reads and writes and nothing for a
backward pass. Under autocast products are of 16 bits, of weights that are cast and repacked for
each; hidden states are of 32 bits, as norms leave them. A compiled pass reuses what is no longer
read: its moments are those of the code that torch 2.13's Inductor writes for a CPU.

Letters as in ``workload.formulas``; N slots and M masked slots in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.content import HALF, is_compiled
from bertopt_bench.workload import formulas
from bertopt_bench.workload.filling import WHOLE, Filled, computed, gathers, masks_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertopt_bench.workload.formulas import ModelSize


@dataclass(frozen=True, slots=True)
class Pass:
    """What the formulas read of a cell.

    ``weight`` and ``product`` are bytes a number: of weights, and of matrix products' results.
    ``attended`` are the slots of queries, keys and values, ``pairs`` those of them whose scores one
    call of attention writes, and ``called`` the slots that it gets. ``blocks`` are the numbers of
    the mask between packed sequences, if there is one; ``gathered`` says that attention makes
    padded rows of `unpadded`. ``written`` says that the matrix of scores is, in ``width`` bytes.
    """

    size: ModelSize
    vocabulary: int
    slots: int
    masked: int
    weight: int
    product: int
    attended: int
    called: int
    pairs: int
    blocks: int
    gathered: bool
    written: bool
    width: int

    @classmethod
    def of(cls, cell: Mapping[str, Any], filled: Filled = WHOLE) -> Pass:
        """Read a canonical cell; ``filled`` is what its layout computes of a batch."""
        workload, precision = cell["workload"], cell["precision"]["name"]
        kernel = cell["kernel"]["attention"]
        batch, seq_len = workload["batch_size"], workload["seq_len"]
        weight = 8 if precision == "fp64" else 4
        product = 2 if precision in HALF else weight
        filled = computed(cell, filled)
        slots = round(filled.slots * batch * seq_len)
        masked = batch * formulas.masked_slots(seq_len, workload["mask_rate"])
        return cls(
            size=formulas.model_size(workload["model"]),
            vocabulary=workload["vocabulary_size"],
            slots=slots,
            masked=round(filled.real * masked),
            weight=weight,
            product=product,
            attended=batch * seq_len if gathers(cell) else slots,
            called=round(filled.run * batch * seq_len),
            pairs=round(filled.at_once * batch * seq_len**2),
            blocks=round(filled.pairs * batch * seq_len**2) if masks_blocks(cell) else 0,
            gathered=gathers(cell),
            written=kernel["name"] == "math",
            width=product if kernel.get("reduced", False) else weight,
        )

    @property
    def autocast(self) -> bool:
        return self.product != self.weight

    @property
    def states(self) -> int:
        """Give the bytes of hidden states."""
        return self.weight * self.slots * self.size.hidden


def memory_forecast_bytes(cell: Mapping[str, Any], filled: Filled = WHOLE) -> int:
    """Forecast the peak of allocated bytes in a forward pass of a canonical inference cell.

    ``filled`` is what `unpadded` and `packed` compute of a batch; all of it where that is not
    known.
    """
    one = Pass.of(cell, filled)
    parameters = formulas.parameter_count(
        one.size,
        vocabulary=one.vocabulary,
        position_embedding=cell["workload"]["position_embedding"],
    )
    moments = _compiled_moments(one) if is_compiled(cell) else _moments(one)
    return one.weight * parameters + one.blocks + max(moments)


def _moments(one: Pass) -> tuple[int, ...]:
    """Give attention, between the feed-forward products, one of these, the head: run eagerly."""
    h, f, n, m = one.size.hidden, one.size.intermediate, one.slots, one.masked
    copied = one.product if one.autocast else 0
    attention = one.states + (_written_attention(one) if one.written else _fused_attention(one))
    between = 2 * one.states + one.product * 2 * n * f + copied * n * h
    product_itself = 2 * one.states + one.product * n * (f + h) + 2 * copied * h * f
    head = one.states + one.weight * 2 * m * h
    head += one.product * m * one.vocabulary + copied * h * one.vocabulary
    return attention, between, product_itself, head


def _fused_attention(one: Pass) -> int:
    """Count queries, keys, values and their mixture, each in both forms, and a mask of numbers."""
    h, product = one.size.hidden, one.product
    flat = 4 * one.slots * h if one.gathered else 0
    return product * (flat + 4 * one.attended * h + one.blocks)


def _written_attention(one: Pass) -> int:
    """Count what math attention writes: scores, their softmax and a byte for each.

    Queries, keys and values lie there, of those it is called with a scaled copy; in 16 bits, unless
    it is ``reduced``, it computes on 32-bit copies.
    """
    h = one.size.hidden
    flat = 3 * one.slots * h if one.gathered else 0
    copies = (1 if one.width == one.product else 4) * one.width * one.called * h
    matrix = one.size.heads * one.pairs
    lying = one.product * (flat + 3 * one.attended * h + one.blocks)
    return lying + copies + (2 * one.width + 1) * matrix


_MASKS_MADE_AT_ONCE = {False: 4, True: 2}
"""Layers whose mask of numbers one compiled kernel makes, without and with autocast: Inductor joins
what lies within 64 operations."""


def _compiled_moments(one: Pass) -> tuple[int, ...]:
    """Give the same moments of compiled code, in which GELU and norms overwrite what they read.

    Values are made after the softmax, which is of 32 bits beside narrower scores; these take no
    mask of numbers. A kernel that is called needs its inputs as they are: where they are gathered,
    both forms of them.
    """
    h, f, n = one.size.hidden, one.size.intermediate, one.slots
    copied = one.product if one.autocast else 0
    if one.written:
        values = one.width * one.attended if one.gathered else copied * n
        numbers = 2 * one.width + (one.weight if one.width < one.weight else 0)
        attention = values * h + numbers * one.size.heads * one.pairs
    else:
        attention = _compiled_call(one)
    feed_forward = one.product * n * (f + h) + 2 * copied * h * f
    head = one.product * one.masked * (one.vocabulary + h) + copied * h * one.vocabulary
    return one.states + attention, one.states + feed_forward, head


def _compiled_call(one: Pass) -> int:
    """Count a kernel's inputs and output, and masks; from the third layer on, what is kept for use.

    Inductor keeps a feed-forward product for the next layer's where its estimate, which counts
    GELU's result beside its input, is not exceeded.
    """
    masks = min(one.size.layers, _MASKS_MADE_AT_ONCE[one.autocast]) * one.blocks
    flat = 3 * one.slots if one.gathered else 0
    numbers = max(flat + 3 * one.attended, 4 * one.attended) * one.size.hidden
    call = one.product * (numbers + masks)
    product = one.product * one.slots * one.size.intermediate
    waits = one.size.layers > 2 and not one.autocast and call <= product
    return call + (product if waits else 0)
