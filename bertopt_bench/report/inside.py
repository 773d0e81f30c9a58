"""Show what was seen inside networks: heat maps of module by step, and what grew before a fall.

Plain SVG: nothing of it needs a script. The colours are those of cividis, which Nunez et al. (PLoS
ONE 13(7), 2018) made to look alike with and without colour-vision deficiency; from dark to light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from bertopt_bench.report import wording
from bertopt_bench.report.rows import safe
from bertopt_bench.stats.estimates import number, words
from bertopt_bench.stats.growth import find_growth

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from bertopt_bench.stats.facts import Facts
    from bertopt_bench.stats.growth import Growth

MOST_TRIALS = 24
COLOURS = (
    "#00224e", "#123570", "#3b496c", "#575d6d", "#707173",
    "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838",
)  # fmt: skip
FIGURES = {
    "gradient_norm": ("gradient norm", "of loss and penalties, before any clipping"),
    "weight_norm": ("weight norm", "before the update of the step"),
    "update_ratio": ("update-to-weight ratio", "norm of the update by that of the weights"),
    "activation_norm": ("activation norm", "root mean square over tokens"),
}
WIDTH, NAMES, ROW, HEAD = 360, 118, 14, 6
_NO_NUMBER = "#d55e00"


@dataclass(frozen=True)
class Scale:
    """Ten classes of equal width in the logarithm, from the lowest to the highest value."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Scale | None:
        """Span the values that are finite and above 0."""
        kept = [v for v in values if math.isfinite(v) and v > 0]
        return cls(min(kept), max(kept)) if kept else None

    def place(self, value: float) -> int | None:
        """Give a value's class; None for what is no finite number."""
        if not math.isfinite(value):
            return None
        if value <= self.low or self.high == self.low:
            return 0
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return min(len(COLOURS) - 1, int(share * len(COLOURS)))

    def border(self, at: int) -> float:
        """Give the lower end of a class; that of one beyond the last is the highest value."""
        return float(self.low * (self.high / self.low) ** (at / len(COLOURS)))


def inside_section(facts: Facts, seen: DataFrame) -> dict[str, Any] | None:
    """Give all that the section shows; None where nobody looked inside."""
    if not len(seen):
        return None
    rows = {int(row["trial"]): row for row in facts.rows}
    groups = {int(str(code)): part for code, part in seen.groupby("trial")}
    order = sorted(groups, key=lambda c: words(rows[c]["status"]) != "diverged")
    return {
        "trials": [_trial(rows[code], groups[code]) for code in order[:MOST_TRIALS]],
        "left_out": max(0, len(groups) - MOST_TRIALS),
        "n": len(groups),
        "falls": [told for code in order if (told := fall(rows[code], groups[code]))],
        "unlike": sum(not part["same_losses"].all() for part in groups.values()),
        "figures": FIGURES,
    }


def fall(row: Mapping[str, Any], seen: DataFrame) -> str:
    """Say of a diverged trial at which step, in which module, what grew; empty where it did not."""
    diverged = number(row.get("diverged_at_step"))
    if words(row["status"]) != "diverged" or diverged is None:
        return ""
    growth = find_growth(cast("list[dict[str, Any]]", seen.to_dict("records")), int(diverged))
    name = f"{words(row.get('label')) or row['cell_id']}, seed {words(row.get('seed'))},"
    if words(row.get("model")):
        name = f"BERT {words(row.get('model'))}, {name}"
    if growth is None:
        return f"{name} diverged at step {int(diverged):,}, before two steps were looked at."
    return f"{name} diverged at step {int(diverged):,}: {grew(growth)}"


def grew(growth: Growth) -> str:
    """Write what grew, where, by which step, and how far."""
    what = f"the {FIGURES[growth.figure][0]} of {place_of(growth.module)}"
    start = f"from {_size(growth.calm)} in step {growth.calm_step:,}"
    if not math.isfinite(growth.value):
        return f"{what} went {start} to no finite number in step {growth.step:,}."
    text = (
        f"{what} grew {wording.significant(growth.factor)}-fold, {start} to "
        f"{_size(growth.value)} in step {growth.step:,}"
    )
    if growth.last_step == growth.step:
        return f"{text}."
    end = _size(growth.last) if math.isfinite(growth.last) else "no finite number"
    return f"{text}, and was {end} in step {growth.last_step:,}."


def place_of(module: str) -> str:
    """Say where a module is: the network counts its layers from 0, readers from 1.

    >>> place_of("layer 0 attention")
    'layer 1 attention'
    """
    words_ = module.split(" ")
    if words_[0] != "layer":
        return f"the {module}"
    return f"layer {int(words_[1]) + 1} {words_[2]}"


def _trial(row: Mapping[str, Any], seen: DataFrame) -> dict[str, Any]:
    steps = sorted(seen["step"].unique())
    modules = list(dict.fromkeys(seen["module"]))
    maps = []
    for key, (title, what) in FIGURES.items():
        table = seen.pivot_table(index="module", columns="step", values=key, dropna=False)
        values = [[float(table.loc[m, s]) for s in steps] for m in modules]
        scale = Scale.of([v for line in values for v in line])
        if scale is not None:
            drawn = heat_map(title, modules, [int(s) for s in steps], values, scale)
            maps.append({"title": title, "what": what, "svg": safe(drawn)})
    return {
        "label": words(row.get("label")) or words(row["cell_id"]),
        "seed": words(row.get("seed")),
        "status": words(row["status"]),
        "maps": maps,
    }


def heat_map(
    title: str,
    modules: Sequence[str],
    steps: Sequence[int],
    values: Sequence[Sequence[float]],
    scale: Scale,
) -> str:
    """Draw a row a module and a column a looked-at step, with the legend below."""
    width = (WIDTH - NAMES) / len(steps)
    classes: dict[str, list[str]] = {}
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            at = scale.place(value)
            colour = _NO_NUMBER if at is None else COLOURS[at]
            box = f"M{NAMES + x * width:.1f} {HEAD + y * ROW}h{width:.1f}v{ROW}h-{width:.1f}z"
            classes.setdefault(colour, []).append(box)
    boxes = "".join(f'<path fill="{c}" d="{"".join(d)}"/>' for c, d in classes.items())
    names = "".join(
        f'<text x="{NAMES - 5}" y="{HEAD + y * ROW + 11}" text-anchor="end">{_short(name)}</text>'
        for y, name in enumerate(modules)
    )
    bottom = HEAD + len(modules) * ROW
    told = f"{title}, {len(modules)} modules by {len(steps)} steps, {_size(scale.low)} to "
    return (
        f'<svg class="heat" viewBox="0 0 {WIDTH} {bottom + 62}" role="img" '
        f'aria-label="{told}{_size(scale.high)}">{boxes}{names}'
        f"{_ticks(steps, width, bottom)}{_legend(scale, bottom + 32, _NO_NUMBER in classes)}</svg>"
    )


def _ticks(steps: Sequence[int], width: float, bottom: int) -> str:
    """Write the numbers of steps below their columns, as many as have room."""
    every = max(1, math.ceil(34 / width))
    shown = [x for x in range(len(steps)) if x % every == 0 and len(steps) - 1 - x >= every]
    return f'<text x="{NAMES - 5}" y="{bottom + 13}" text-anchor="end">step</text>' + "".join(
        f'<text x="{NAMES + (x + 0.5) * width:.1f}" y="{bottom + 13}" text-anchor="middle">'
        f"{steps[x]}</text>"
        for x in [*shown, len(steps) - 1]
    )


def _legend(scale: Scale, top: int, lost: bool) -> str:  # noqa: FBT001 - drawn or not
    """Draw the classes with their ends and middle; and the colour of what is no number."""
    bar = 190
    one = bar / len(COLOURS)
    parts = [
        f'<rect x="{NAMES + i * one:.1f}" y="{top}" width="{one + 0.2:.1f}" height="9" fill="{c}"/>'
        for i, c in enumerate(COLOURS)
    ]
    for at, anchor in ((0, "start"), (len(COLOURS) // 2, "middle"), (len(COLOURS), "end")):
        text = _size(scale.border(at))
        x = f"{NAMES + at * one:.1f}"
        parts.append(f'<text x="{x}" y="{top + 21}" text-anchor="{anchor}">{text}</text>')
    if lost:
        parts.append(f'<rect x="4" y="{top}" width="9" height="9" fill="{_NO_NUMBER}"/>')
        parts.append(f'<text x="17" y="{top + 8}">no finite number</text>')
    return "".join(parts)


def _short(module: str) -> str:
    return place_of(module).removeprefix("the ")


def _size(value: float) -> str:
    """Write a norm with three digits, by a power of ten where it is far from 1."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return wording.significant(value)
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", wording.MINUS)
