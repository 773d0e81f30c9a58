"""Schedules: ``(total_steps, *, ...) -> multiplier(step)``, pure functions of the step.

``step`` counts from 0, the first update; ``total_steps`` is T. A warm-up of w steps multiplies by
``(step + 1) / w``, so that no update is wasted on a rate of 0 and step w - 1 has the full one. The
schedule's own shape begins at step w and falls over the T - w steps that are left; as torch has it,
the value ``end`` is the one after the last update. Past the end a schedule keeps its last value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    Schedule = Callable[[int], float]
    Shape = Callable[[int, int], float]  # steps since the warm-up, steps that there are


def constant(total_steps: int, *, warmup_steps: int = 0, warmup_fraction: float = 0.0) -> Schedule:
    """Keep the learning rate.

    Source: torch.optim.lr_scheduler.ConstantLR with factor 1.
    """
    return _schedule(total_steps, warmup_steps, warmup_fraction, lambda _step, _steps: 1.0)


def exponential(
    total_steps: int,
    *,
    rate: float = 0.995,
    warmup_steps: int = 0,
    warmup_fraction: float = 0.0,
) -> Schedule:
    """Multiply by the same rate at each step: rate ** step, counted from the end of warm-up.

    Source: torch.optim.lr_scheduler.ExponentialLR, in closed form.
    Default: rate 0.995: 0.55 after 120 steps, 0.0067 after 1000.
    Search: rate linear 0.98..0.9999.
    """
    _require("rate", rate, above=0.0, most=1.0)
    return _schedule(total_steps, warmup_steps, warmup_fraction, lambda step, _: rate**step)


def step(
    total_steps: int,
    *,
    rate: float = 0.1,
    step_size: int = 0,
    warmup_steps: int = 0,
    warmup_fraction: float = 0.0,
) -> Schedule:
    """Multiply by the rate every step_size steps; 0 makes three equal stairs.

    Source: torch.optim.lr_scheduler.StepLR; the stairs of He et al., arXiv 1512.03385.
    Search: rate log 0.05..0.5.
    """
    _require("rate", rate, above=0.0, most=1.0)
    _require("step_size", step_size, least=0)

    def stairs(at: int, steps: int) -> float:
        return float(rate ** (at // (step_size or math.ceil(steps / 3))))

    return _schedule(total_steps, warmup_steps, warmup_fraction, stairs)


def linear(
    total_steps: int,
    *,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_fraction: float = 0.0,
) -> Schedule:
    """Fall in a straight line to the end share of the learning rate.

    Source: Devlin et al., arXiv 1810.04805; torch.optim.lr_scheduler.LinearLR.
    """
    _require("end", end, least=0.0)
    return _schedule(
        total_steps,
        warmup_steps,
        warmup_fraction,
        lambda at, steps: end + (1 - end) * (1 - at / steps),
    )


def cosine(
    total_steps: int,
    *,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_fraction: float = 0.0,
) -> Schedule:
    """Fall along half a cosine to the end share of the learning rate.

    Source: Loshchilov and Hutter, arXiv 1608.03983; torch.optim.lr_scheduler.CosineAnnealingLR.
    """
    _require("end", end, least=0.0)
    return _schedule(
        total_steps,
        warmup_steps,
        warmup_fraction,
        lambda at, steps: _half_cosine(1.0, end, at / steps),
    )


def polynomial(
    total_steps: int,
    *,
    power: float = 2.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_fraction: float = 0.0,
) -> Schedule:
    """Fall as a power of the share that is left; power 1 is linear.

    Source: torch.optim.lr_scheduler.PolynomialLR.
    Search: power linear 0.5..4.
    """
    _require("power", power, above=0.0)
    _require("end", end, least=0.0)
    return _schedule(
        total_steps,
        warmup_steps,
        warmup_fraction,
        lambda at, steps: end + (1 - end) * (1 - at / steps) ** power,
    )


def inverse_sqrt(
    total_steps: int,
    *,
    timescale: int = 0,
    warmup_steps: int = 0,
    warmup_fraction: float = 0.0,
) -> Schedule:
    """Fall as the root of timescale / (timescale + step), counted from the end of warm-up.

    A timescale of 0 is the warm-up's length, which is the source's formula, or without warm-up a
    tenth of all steps.

    Source: Vaswani et al., arXiv 1706.03762, equation 3, scaled to peak at 1.
    """
    _require("timescale", timescale, least=0)
    warmup = _warmup(total_steps, warmup_steps, warmup_fraction)
    scale = timescale or warmup or math.ceil(total_steps / 10)
    return _schedule(
        total_steps,
        warmup_steps,
        warmup_fraction,
        lambda at, _steps: math.sqrt(scale / (scale + at)),
    )


def one_cycle(
    total_steps: int,
    *,
    start: float = 0.04,
    end: float = 4e-6,
    anneal: Literal["cosine", "linear"] = "cosine",
    warmup_steps: int = 0,
    warmup_fraction: float = 0.0,
) -> Schedule:
    """Rise from the start share to the full rate, then fall to the end share at the last update.

    The rise is this schedule's warm-up; where no length is given it takes 30 % of the steps.
    Momentum is not cycled.

    Source: Smith and Topin, arXiv 1708.07120; torch.optim.lr_scheduler.OneCycleLR, whose
        div_factor is 1 / start and final_div_factor start / end.
    """
    _require("start", start, above=0.0, most=1.0)
    _require("end", end, least=0.0, most=1.0)
    rise = _warmup(total_steps, warmup_steps, warmup_fraction) or round(0.3 * total_steps)
    peak = max(rise - 1, 0)  # the update with the full rate

    def between(first: float, last: float, share: float) -> float:
        if anneal == "linear":
            return first + (last - first) * share
        return _half_cosine(first, last, share)

    def multiplier(at: int) -> float:
        if at <= peak:
            return between(start, 1.0, at / peak) if peak else 1.0
        return between(1.0, end, min((at - peak) / (total_steps - 1 - peak), 1.0))

    return multiplier


def wsd(
    total_steps: int,
    *,
    decay_fraction: float = 0.2,
    shape: Literal["linear", "sqrt", "cosine"] = "linear",
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_fraction: float = 0.0,
) -> Schedule:
    """Warm up, stay, and decay over the last decay_fraction of all steps.

    Source: Hu et al., arXiv 2404.06395; shapes of Hägele et al., arXiv 2405.18392 (sqrt is their
        1 - sqrt).
    Search: decay_fraction linear 0.1..0.5.
    """
    _require("decay_fraction", decay_fraction, least=0.0, most=1.0)
    _require("end", end, least=0.0)
    decay = round(decay_fraction * total_steps)
    warmup = _warmup(total_steps, warmup_steps, warmup_fraction)
    if warmup + decay > total_steps:
        raise UserError(
            f"schedule 'wsd': {warmup} steps of warm-up and {decay} of decay do not fit into "
            f"{total_steps}. Shorten one of them."
        )

    def trapezoid(at: int, steps: int) -> float:
        share = max(at - (steps - decay), 0) / decay if decay else 0.0
        fallen = {"linear": share, "sqrt": math.sqrt(share), "cosine": _half_cosine(0, 1, share)}
        return 1 - (1 - end) * fallen[shape]

    return _schedule(total_steps, warmup_steps, warmup_fraction, trapezoid)


def _schedule(total_steps: int, steps: int, fraction: float, shape: Shape) -> Schedule:
    """Put a linear warm-up before a shape."""
    warmup = _warmup(total_steps, steps, fraction)
    left = max(total_steps - warmup, 1)

    def multiplier(at: int) -> float:
        if at < warmup:
            return (at + 1) / warmup
        return shape(min(at - warmup, left), left)

    return multiplier


def _warmup(total_steps: int, steps: int, fraction: float) -> int:
    """Give the number of warm-up steps.

    Raises:
        UserError: both ways of giving it are used, or it is longer than the run.
    """
    _require("warmup_steps", steps, least=0)
    _require("warmup_fraction", fraction, least=0.0, most=1.0)
    if steps and fraction:
        raise UserError(
            f"warmup_steps is {steps} and warmup_fraction is {fraction}. Give one of them."
        )
    if steps > total_steps:
        raise UserError(f"warmup_steps is {steps}, but there are only {total_steps} steps.")
    return steps or round(fraction * total_steps)


def _half_cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def _require(
    name: str,
    value: float,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Refuse an option's value outside its range (``above`` is exclusive)."""
    if least <= value <= most and value > above:
        return
    bounds = [f"above {above:g}"] if above > -math.inf else []
    bounds += [f"at least {least:g}"] if least > -math.inf else []
    bounds += [f"at most {most:g}"] if most < math.inf else []
    raise UserError(f"schedule option '{name}' is {value:g}; it must be {' and '.join(bounds)}.")
