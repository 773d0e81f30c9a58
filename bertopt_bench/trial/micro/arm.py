"""An arm of a duel of operations: calls in batches, under the commands that any arm obeys.

A step of such an arm is one call. Windows and blocks tell seconds a call, one number a batch;
``wall_seconds`` are those of the timed batches, without what is restored between them.
"""

from __future__ import annotations

from time import monotonic_ns, perf_counter
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError
from bertopt_bench.matrix.micro import cell_case
from bertopt_bench.measure import steadiness
from bertopt_bench.measure.disturbance import Disturbance
from bertopt_bench.measure.imports import prove_imports
from bertopt_bench.measure.torch_build import gpu_state
from bertopt_bench.trial.arm import ARM_PROTOCOL, _delay
from bertopt_bench.trial.assemble import build
from bertopt_bench.trial.micro.cases import open_case
from bertopt_bench.trial.micro.measuring import Bench, facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableSequence

    from bertopt_bench.trial.micro.cases import Case
    from bertopt_bench.trial.micro.timing import Batch

    Send = Callable[[dict[str, Any]], None]
    Receive = Callable[[], dict[str, Any] | None]


def run_micro_arm(
    request: Mapping[str, Any], send: Send, counter: MutableSequence[int], receive: Receive
) -> None:
    """Open the case, check it, and obey until the pipe closes.

    Raises:
        UserError: a wrong result, or a batch that only the host bounds.
    """
    device = build("device", request["cell"]["device"])
    device.seed(request["seed"])
    operation, implementation, options = cell_case(request["cell"])
    case = open_case(operation, implementation, options, device, seed=request["seed"])
    assembled = (monotonic_ns() - request["dispatched_ns"]) / 1e9
    send({"kind": "ready", "protocol": ARM_PROTOCOL, "assemble_seconds": assembled})
    arm = _Arm(case, device, request, counter)
    commands = {"warm": arm.warm, "block": arm.block}
    while (command := receive()) is not None:
        send({"kind": command["do"], **commands[command["do"]](command)})


class _Arm:
    """A case with what lasts over its blocks."""

    def __init__(
        self,
        case: Case,
        device: Any,
        request: Mapping[str, Any],
        counter: MutableSequence[int],
    ) -> None:
        self.case, self.device, self.request, self.counter = case, device, request, counter
        self.injected_share: float = request["injected_share"]
        self.disturbance = Disturbance(gpu=gpu_state(device))

    def warm(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Call once, choose the batch, run windows of batches until two agree."""
        begin = perf_counter()
        with self.case.context():
            self.case.calls[0]()
        self.device.synchronize()
        first = perf_counter() - begin
        self.bench = Bench(self.case, self.device)
        windows, steady, last = self._windows(command["window_seconds"], command["most_seconds"])
        self.case.check_again()
        return {
            "initial_weights_sha256": self.case.inputs_sha256,
            "first_step_seconds": first,
            "windows": windows,
            "steady": steady,
            "operation": facts(self.bench, last),
            "imported": prove_imports(self.request["modules"], self.request["overlay"]),
            "kernels_ran": list(self.bench.ran),
        }

    def _windows(
        self, seconds: float, most_seconds: float
    ) -> tuple[list[list[float]], bool, list[Batch]]:
        """Run windows of batches until two agree; give seconds a call, and the last window."""
        begin = perf_counter()
        count = steadiness.steps_for(
            seconds, self.bench.batch().seconds, steadiness.LEAST_WINDOW_STEPS
        )
        windows: list[list[float]] = []
        while True:
            batches = [self._honest(self.bench.batch()) for _ in range(count)]
            windows.append([batch.seconds / batch.calls for batch in batches])
            steady = len(windows) > 1 and steadiness.windows_agree(windows[-2], windows[-1])
            late = perf_counter() - begin >= most_seconds
            if steady or late or len(windows) == steadiness.MOST_WINDOWS:
                return windows, steady, batches

    def block(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Run discarded calls, then timed ones in batches of nearly equal length."""
        self.bench.batch(command["rewarm"] if self._on_host else None)
        self.disturbance.start()
        began = monotonic_ns()
        batches = [self._honest(self.bench.batch(size)) for size in self._sizes(command["steps"])]
        noted = self.disturbance.stop()
        self.counter[0] += command["steps"]
        share = self.injected_share
        injected = [_delay(share * batch.seconds) if share else 0.0 for batch in batches]
        seconds = [batch.seconds + late for batch, late in zip(batches, injected, strict=True)]
        return {
            "steps": sum(batch.calls for batch in batches),
            "began_ns": began,
            "wall_seconds": sum(seconds),
            "injected_seconds": sum(injected),
            "step_seconds": [
                one / batch.calls for one, batch in zip(seconds, batches, strict=True)
            ],
            "disturbance": noted,
            "finite": self.case.finite(),
        }

    @property
    def _on_host(self) -> bool:
        """Say whether the host is the device, which cannot wait for itself."""
        return bool(self.device.type == "cpu")

    def _sizes(self, calls: int) -> list[int]:
        """Split calls into batches of nearly equal size, each about as long as a batch is.

        On a GPU all are whole batches: of each other size a graph would have to be captured.
        """
        parts = max(1, round(calls / self.bench.calls))
        if not self._on_host:
            return [self.bench.calls] * parts
        whole, more = divmod(calls, parts)
        return [whole + (number < more) for number in range(parts)]

    def _honest(self, batch: Batch) -> Batch:
        """Refuse what says nothing of the kernel: the device had waited for the host."""
        if not self._on_host and batch.host_bound:
            raise UserError(
                f"{self.case.operation} '{self.case.name}' is host-bound: {batch.calls} calls took "
                f"the host {batch.host_seconds * 1e6:.0f} us and the device "
                f"{batch.seconds * 1e6:.0f} us, so a verdict would be of launches and not of "
                "kernels. Take larger shapes."
            )
        return batch
