"""Optimizers: ``(groups, *, lr, ...) -> torch.optim.Optimizer``, a function each in ``PARTS``.

``groups`` are torch's parameter groups with a ``role`` each: matrix (encoder weights), embedding,
head or vector (norms and biases). Decay is the regularizer axis', so every entry's own is 0;
``weight_decay`` is decoupled, ``l2`` is coupled (added to the gradient), and an entry has those
that its class does itself. Vectors are never decayed. ``foreach`` and ``fused`` belong to the
``kernel.optimizer_step`` axis; None leaves the choice to torch. ``Initial:`` gives the values that
a weight's state begins with, to which a compiled or captured step is put back in place.

Default rates start from the source that is named. *Tried* are those of a coarse look, no tuning:
held-out loss of ``tiny`` on python_docs, batch 16, 150 to 200 steps, linear decay, one seed, where
a loss of 5.3 means that only the words' frequencies were learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    Groups = Sequence[dict[str, Any]]

PARTS = ("descent", "adaptive", "packaged", "matrices")
"""The modules whose public functions are the entries, in the order of lists."""

PACKAGES = dict.fromkeys(("lion", "lamb", "ademamix"), "pytorch_optimizer")
"""Entries that need a package beyond torch; it comes with the extra ``optimizers``."""

LOOP_ONLY = frozenset({"muon"})
"""Entries that take ``foreach`` only to be told False: a part of their step can be but a loop."""
