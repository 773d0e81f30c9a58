"""Show what tokens did to a prediction, as coloured text: plain HTML, scores in words as well.

Colours are blue (for) and orange (against) of Okabe and Ito, told apart with any colour vision; the
strength is one of four classes, and an underline goes with those against, for print without colour.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bertopt_bench.report.wording import MINUS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

CLASSES = 4
_PIECE = "##"  # WordPiece's mark of a token that goes on with a word


def coloured(tokens: Sequence[tuple[str, float]], most: float | None = None) -> Markup:
    """Write tokens as text, each coloured by its score.

    Args:
        tokens: token and score, in the order of the text.
        most: the score that gets the strongest colour; the largest of these by default.
    """
    from markupsafe import Markup, escape

    finite = [abs(score) for _, score in tokens if math.isfinite(score)]
    largest = most if most is not None else max(finite, default=0.0)
    parts = []
    for place, (token, score) in enumerate(tokens):
        joins = token.startswith(_PIECE) and place > 0
        text = token.removeprefix(_PIECE) if joins else token
        gap = "" if joins or place == 0 else " "
        told = f"{score:+.3g}".replace("-", MINUS)
        parts.append(
            Markup('{}<span class="tok {}" title="{}">{}</span>').format(
                gap, strength(score, largest), told, escape(text)
            )
        )
    return Markup('<p class="attributed">{}</p>').format(Markup().join(parts))


def strength(score: float, most: float) -> str:
    """Name a score's class: ``for-1`` to ``for-4``, ``against-1`` to ``against-4``, or ``none``.

    >>> strength(-0.5, 1.0)
    'against-2'
    """
    if not math.isfinite(score) or not most:
        return "none"
    at = min(CLASSES, math.ceil(abs(score) / most * CLASSES))
    return f"{'for' if score > 0 else 'against'}-{at}" if at else "none"


def strongest(tokens: Sequence[tuple[str, float]], count: int = 3) -> str:
    """Say in words which tokens were most for and against a prediction.

    >>> strongest([("good", 0.5), ("not", -0.25)])
    'for it: good (+0.5); against it: not (−0.25)'
    """  # noqa: RUF002 - a minus sign, as on the page
    ranked = sorted(tokens, key=lambda pair: -abs(pair[1]))
    sides = (
        ("for it", [pair for pair in ranked if pair[1] > 0]),
        ("against it", [pair for pair in ranked if pair[1] < 0]),
    )
    told = [
        f"{name}: {', '.join(f'{t} ({s:+.3g})'.replace('-', MINUS) for t, s in side[:count])}"
        for name, side in sides
        if side
    ]
    return "; ".join(told)
