"""Make ledgers of tunings, without running anything."""

from __future__ import annotations

from bertopt_bench.results.tuning import Choice, Ledger, Outcome, Point


def point(arm: str, number: int, rate: float, origin: str = "grid") -> Point:
    """Give a proposed point with one option."""
    cell = f"{arm[:4]}{number:08d}"
    options = {"optimizer.lr": rate}
    return Point(arm=arm, number=number, origin=origin, options=options, cell_id=cell)


def outcome(one: Point, *losses: float) -> Outcome:
    """Give what came of a point, on seeds counted from 101."""
    seeds = [str(101 + index) for index in range(len(losses))]
    return Outcome(
        arm=one.arm,
        number=one.number,
        cell_id=one.cell_id,
        loss=sum(losses) / len(losses),
        losses=dict(zip(seeds, losses, strict=True)),
        statuses={s: "diverged" if v == float("inf") else "ok"
                  for s, v in zip(seeds, losses, strict=True)},
        trials=len(losses),
        steps=10 * len(losses),
        seconds=2.5 * len(losses),
    )  # fmt: skip


def choice(best: Point, loss: float, points: int, edges: tuple[str, ...] = ()) -> Choice:
    """Give the choice of an arm."""
    return Choice(
        arm=best.arm,
        number=best.number,
        options=best.options,
        cell_id=best.cell_id,
        loss=loss,
        edges=edges,
        points=points,
        extensions=0,
        trials=2 * points,
        steps=20 * points,
        seconds=5.0 * points,
    )


def ledger() -> Ledger:
    """Give a ledger of two arms: one with its best inside, one on an edge with a lost point."""
    adamw = [point("AdamW", n, r) for n, r in enumerate((0.001, 0.0005, 0.002), start=1)]
    sgd = [point("SGD", n, r) for n, r in enumerate((0.3, 0.6), start=1)]
    outcomes = [
        outcome(adamw[0], 4.5, 4.7),
        outcome(adamw[1], 4.9, 5.0),
        outcome(adamw[2], 4.8, 4.9),
        outcome(sgd[0], 5.2, 5.3),
        outcome(sgd[1], float("inf"), 5.1),
    ]
    choices = [
        choice(adamw[0], 4.6, 3),
        choice(sgd[0], 5.25, 2, ("optimizer.lr",)),
    ]
    return Ledger((*adamw, *sgd), tuple(outcomes), tuple(choices))
