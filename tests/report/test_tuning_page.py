"""The page of a tuning."""

from __future__ import annotations

import re
from pathlib import Path

from bertopt_bench.report.tuning import render_tuning
from bertopt_bench.report.tuning_figures import Tried, curve, loss_scale
from bertopt_bench.results.tuning import Ledger, Outcome, Point, TuningResults

INF = float("inf")


def made() -> Ledger:
    rates = {"AdamW": (0.001, 0.0005, 0.002), "SGD <b>": (0.3, 0.6)}
    points = [
        Point(arm=arm, number=n, origin="grid", options={"optimizer.lr": rate}, cell_id=f"{n}" * 12)
        for arm, values in rates.items()
        for n, rate in enumerate(values, start=1)
    ]
    losses = [(4.5, 4.7), (4.9, 5.0), (4.8, 4.9), (5.2, 5.3), (INF, 5.1)]
    outcomes = [
        Outcome(arm=p.arm, number=p.number, cell_id=p.cell_id, loss=sum(pair) / 2,
                losses={"101": pair[0], "102": pair[1]}, statuses={"101": "ok", "102": "ok"},
                trials=2, steps=20, seconds=5.0)
        for p, pair in zip(points, losses, strict=True)
    ]  # fmt: skip
    return Ledger(tuple(points), tuple(outcomes))


def test_every_point_and_seed_is_drawn_and_lost_ones_are_hollow() -> None:
    """Oracle: circles counted in the drawing: two seeds a point, one of ten without a loss."""
    html = render_tuning(TuningResults(Path("t"), (), made(), (), "0" * 64))
    circles = re.findall(r'<circle class="point[^"]*"', html)

    assert len(circles) == 10
    assert sum("hollow" in one for one in circles) == 1
    assert "SGD <b>" not in html
    assert "SGD &lt;b&gt;" in html
    assert "2 of the arms have no choice yet" in html
    assert "lies on an edge" not in html  # nothing is chosen, so nothing is known of edges
    assert "http" not in html.replace("http-equiv", "")


def test_a_curve_over_two_options_has_a_line_for_each_value_of_the_other() -> None:
    """Oracle: two decays, two lines, and a ring around the chosen point."""
    points = [
        Tried({"optimizer.lr": lr, "regularizer.l2": l2}, (5.0 + lr, 5.1), lr == 2.0, False)
        for lr in (1.0, 2.0)
        for l2 in (0.1, 0.2)
    ]
    drawn = curve("optimizer.lr", points, loss_scale(points))

    assert drawn.series == ("l2 0.1", "l2 0.2")
    assert drawn.svg.count("<path") == 2
    assert drawn.svg.count('class="chosen"') == 2
