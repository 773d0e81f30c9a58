"""Make a cell's optimizer and let it step the way the kernel axis says."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bertopt_bench import catalogue
from bertopt_bench.axes.kernels._steps import Captured, beside, capture, rates_to_tensors
from bertopt_bench.trial.graphing import WholeStep
from bertopt_bench.trial.optimizing import DECAYS, InPlaceReset, build_optimizer, initial_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from bertopt_bench.axes.kernels import Kernel
    from bertopt_bench.trial.live import Trial
    from bertopt_bench.trial.regularizing import Regularizers

STEPPING = ("optimizer_step", "cuda_graph")  # operations that say how an optimizer steps


def make_optimizer(
    cell: Mapping[str, Any],
    groups: list[dict[str, Any]],
    kernels: Mapping[str, Kernel],
    regularizers: Regularizers,
) -> tuple[torch.optim.Optimizer, Callable[[], None] | None]:
    """Make the optimizer, and what puts it back in place where its step is compiled or captured.

    Raises:
        UserError: decay is asked for in two places, or the initial state is not well declared.
    """
    choice = cell["optimizer"]
    entry = catalogue.describe("optimizer", choice["name"])
    outside = ":" in choice["name"]  # what its decay argument means is not known here
    stepping = [kernels[name] for name in STEPPING if name in kernels]
    optimizer = build_optimizer(
        catalogue.resolve("optimizer", choice["name"]),
        entry.accepts - set(DECAYS) if outside else entry.accepts,
        groups,
        {**_options(choice), **_step_options(stepping, entry.accepts)},
        regularizers.optimizer_options(),
    )
    if not any(kernel.in_place for kernel in stepping):
        return optimizer, None
    for kernel in stepping:
        if kernel.in_place:
            (kernel.call or rates_to_tensors)(optimizer)
    initial = initial_values(entry.notes.get("Initial", ""), choice)
    return optimizer, InPlaceReset(optimizer, initial)


def capture_whole_step(trial: Trial) -> None:
    """Let the trial capture its whole step as a CUDA graph and replay that."""
    trial.whole_step = WholeStep(trial, partial(Captured, capture=capture, warm=beside))


def _options(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choice.items() if key != "name"}


def _step_options(stepping: list[Kernel], accepts: frozenset[str]) -> dict[str, Any]:
    """Give the keywords of a step; what an optimizer has not and is not forced to, it is not told.

    One without foreach or fused has the loop only, one without capturable may be captured anyway.
    """
    given = {key: value for kernel in stepping for key, value in kernel.options.items()}
    return {
        key: value
        for key, value in given.items()
        if key in accepts or (value and key != "capturable")
    }
