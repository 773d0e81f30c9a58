"""Change how an optimizer steps. Imports torch: only an entry that is being called imports this.

Hooks (decay, an fp16 scaler's) run around the new step, eagerly, as they did around the old one.
"""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.axes.kernels._graphs import MendStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EAGER_STEPS = 2  # before a capture: they make the state, and the workspaces of libraries
COMPILE: dict[str, Any] = {
    "dynamic": False,
    "fullgraph": True,
    "options": {"post_grad_custom_post_pass": MendStep()},
}
"""A step that cannot be one graph raises, so that none runs eagerly unseen."""


def compile_step(optimizer: torch.optim.Optimizer) -> None:
    """Let torch.compile make the update of each part of an optimizer.

    pytorch-optimizer hands numbers that change over as tensors itself; torch's classes take a rate
    that is a tensor, and keep their counts of steps as such.
    """
    for part in _parts(optimizer):
        own = getattr(part, "_compile_foreach", None)
        if own is not None:
            own(dict(COMPILE))
            continue
        rates_to_tensors(part)
        _count_on_the_device(part)
        # below torch's wrappers, which break the graph around the body
        body = torch.compile(inspect.unwrap(type(part).step), **COMPILE)
        _step_by(part, partial(_without_gradients, body, part))


def capture_step(optimizer: torch.optim.Optimizer) -> None:
    """Let each part of an optimizer capture its step as a CUDA graph, and replay that."""
    for part in _parts(optimizer):
        rates_to_tensors(part)
        body = inspect.unwrap(type(part).step)
        _step_by(part, Captured(partial(_without_gradients, body, part), capture, beside))


def rates_to_tensors(optimizer: torch.optim.Optimizer) -> None:
    """Turn learning rates into tensors: a graph that is made once reads a new rate each step."""
    for group in optimizer.param_groups:
        like = group["params"][0]
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        group["lr"] = torch.tensor(float(group["lr"]), dtype=dtype, device=like.device)


def _count_on_the_device(optimizer: torch.optim.Optimizer) -> None:
    """Say now what Dynamo would write into groups on a GPU when it first traces the step.

    Written later, a reset to the groups as they were would undo it, and every graph be made anew.

    Source: torch._dynamo.variables.optimizer, ``_set_capturable``.
    """
    for group in optimizer.param_groups:
        if "capturable" in group and all(weight.is_cuda for weight in group["params"]):
            group["capturable"] = True


class Captured:
    """A call that runs eagerly at first, is captured, and from then on replayed."""

    def __init__(
        self,
        call: Callable[[], Any],
        capture: Callable[[Callable[[], Any]], Callable[[], Any]],
        warm: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self.call, self.capture, self.warm, self.calls = call, capture, warm, 0
        self.replay: Callable[[], Any] | None = None

    def __call__(self) -> None:
        """Run it, whichever way."""
        if self.replay is None and self.calls >= EAGER_STEPS:
            self.replay = self.capture(self.call)
        if self.replay is None:
            self.calls += 1
            self.warm(self.call)
        else:
            self.replay()


def beside(call: Callable[[], Any]) -> Any:
    """Run a call in the stream that will capture it, as it must have run there before.

    A backward pass runs in the stream of its forward pass: to be captured, that must be here too.
    """
    stream, current = _side(torch.cuda.current_device()), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        made = call()
    current.wait_stream(stream)
    return made


def capture(call: Callable[[], Any]) -> Callable[[], Any]:
    """Capture a call as a CUDA graph and give what replays it; capturing runs nothing."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=_side(torch.cuda.current_device())):
        call()
    replay: Callable[[], Any] = graph.replay
    return replay


@cache
def _side(_device: int) -> Any:
    """Give the one stream beside a device's own: autograd and libraries keep things by stream.

    Source: torch.cuda.graphs; the notes on CUDA graphs of torch's documentation.
    """
    make: Any = torch.cuda.Stream  # torch leaves it untyped
    return make()


def _parts(optimizer: torch.optim.Optimizer) -> Iterator[torch.optim.Optimizer]:
    """Give the optimizers that really step: those of a joined one."""
    yield from getattr(optimizer, "parts", (optimizer,))


def _without_gradients(body: Callable[..., Any], part: torch.optim.Optimizer) -> Any:
    with torch.no_grad():
        return body(part)


def _step_by(part: torch.optim.Optimizer, step: Callable[[], Any]) -> None:
    """Put a step in place of the optimizer's, its hooks around it."""

    def stepped(_optimizer: torch.optim.Optimizer) -> Any:
        return step()

    hooked: Callable[..., Any] = torch.optim.Optimizer.profile_hook_step(stepped)
    part.step = partial(hooked, part)  # type: ignore[method-assign]
