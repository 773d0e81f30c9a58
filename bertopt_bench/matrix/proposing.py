"""Propose the points of an arm's budget: the documented default, then a grid or a sampler's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.spaces import default_point, draw, grid, tidy
from bertopt_bench.matrix.tuning import DRAWN, OPTUNA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.matrix.spaces import Dimension, Options
    from bertopt_bench.matrix.tuning import Tuning

    Told = Sequence[tuple[Options, float]]


def propose(dimensions: Sequence[Dimension], tuning: Tuning, tried: Told) -> list[tuple[str, Any]]:
    """Give the next points with where they come from; all at once where none waits for another.

    ``tried`` are the arm's points so far with their losses; what was planned before stays.
    """
    default = default_point(dimensions)
    if tuning.sampler == "grid":
        points = grid(dimensions)
        origins = ["default" if one == default else "grid" for one in points]
        return list(zip(origins, points, strict=True))[len(tried) :]
    head = [] if default is None else [("default", default)]
    if tuning.sampler in DRAWN:
        count = tuning.points - len(head)
        drawn = draw(dimensions, count, tuning.sampler, tuning.draw_seed)
        return [*head, *((tuning.sampler, one) for one in drawn)][len(tried) :]
    if len(tried) < len(head):
        return head
    asked = ask_optuna(dimensions, tuning.sampler, tuning.draw_seed, tried)
    if any(asked == options for options, _ in tried):
        raise UserError(
            f"tuning.sampler '{tuning.sampler}' proposed {asked} again: it does not go on from "
            "what it is told. Take sobol or halton instead, or another of Optuna's."
        )
    return [(tuning.sampler, asked)]


def ask_optuna(
    dimensions: Sequence[Dimension], sampler: str, seed: int, tried: Told
) -> dict[str, float]:
    """Ask one of Optuna's samplers for a point, having told it all that was tried.

    Raises:
        UserError: Optuna is missing, or has no such sampler.
    """
    try:
        import optuna
    except ImportError as missing:
        raise UserError(
            f"tuning.sampler '{sampler}' needs the package optuna: "
            "pip install 'bertopt-bench[optuna]'"
        ) from missing
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=_sampler(optuna, sampler, seed + len(tried)))
    space = {
        one.key: optuna.distributions.FloatDistribution(one.low, one.high, log=one.is_log)
        for one in dimensions
    }
    for options, loss in tried:
        inside = all(one.low <= options[one.key] <= one.high for one in dimensions)
        if inside:
            lost = loss == float("inf")
            state = optuna.trial.TrialState.FAIL if lost else optuna.trial.TrialState.COMPLETE
            study.add_trial(
                optuna.trial.create_trial(
                    params=options,
                    distributions=space,
                    value=None if lost else loss,
                    state=state,
                )
            )
    asked = study.ask(space).params
    return {key: tidy(value) for key, value in asked.items()}


def _sampler(optuna: Any, name: str, seed: int) -> Any:
    known = [one for one in dir(optuna.samplers) if one.endswith("Sampler")]
    wanted = name[len(OPTUNA) :]
    if wanted not in known:
        raise UserError(
            f"tuning.sampler '{name}': optuna has no {wanted}. It has: {', '.join(known)}."
            f"{nearest(wanted, known)}"
        )
    try:
        return getattr(optuna.samplers, wanted)(seed=seed)
    except (TypeError, ImportError) as error:
        raise UserError(f"tuning.sampler '{name}' cannot be made: {error}.") from error
