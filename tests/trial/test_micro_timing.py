"""Batches under a scripted clock and a scripted GPU: no time passes, and none is measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.axes.devices import cpu
from bertopt_bench.matrix.micro import OPERATIONS, read_options
from bertopt_bench.trial.micro import measuring
from bertopt_bench.trial.micro.cases import open_case
from bertopt_bench.trial.micro.measuring import (
    BatchClock,
    Bench,
    ceiling_of,
    complete,
    facts,
    share_of_ceiling,
)
from bertopt_bench.trial.micro.timing import (
    DEVICE_SECONDS,
    HOST_SECONDS,
    MOST_QUEUED,
    Batch,
    GpuTimer,
    HostTimer,
    calls_a_batch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass
class Clock:
    """A host's clock that moves only when somebody says so."""

    ns: int = 0

    def __call__(self) -> int:
        return self.ns

    def pass_seconds(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


@dataclass
class ScriptedGpu:
    """A GPU with one stream: launches take the host a while, kernels run one after the other."""

    clock: Clock
    launch_seconds: float
    kernel_seconds: float
    capturable: bool = True
    captured_share: float = 1.0
    cycles_a_second: float = 2e9
    busy_until: float = 0.0
    log: list[str] = field(default_factory=list)

    def now(self) -> float:
        return self.clock.ns / 1e9

    def queue(self, seconds: float) -> None:
        self.busy_until = max(self.busy_until, self.now()) + seconds

    def call(self) -> None:
        self.clock.pass_seconds(self.launch_seconds)
        self.queue(self.kernel_seconds)

    def event(self) -> Any:
        gpu = self

        class Event:
            at = 0.0

            def record(self) -> None:
                self.at = max(gpu.busy_until, gpu.now())

            def elapsed_time(self, other: Any) -> float:
                return float(other.at - self.at) * 1e3

        return Event()

    def sleep(self, cycles: int) -> None:
        self.log.append("sleep")
        self.queue(cycles / self.cycles_a_second)

    def synchronize(self) -> None:
        self.clock.ns = max(self.clock.ns, round(self.busy_until * 1e9))

    def capture(self, calls: Sequence[Callable[[], None]]) -> Callable[[], None] | None:
        if not self.capturable:
            return None
        self.log.append(f"capture {len(calls)}")

        def replay() -> None:
            self.clock.pass_seconds(5e-6)
            self.queue(self.kernel_seconds * len(calls) * self.captured_share)

        return replay


def gpu_timer(
    launch: float, kernel: float, *, capturable: bool = True, slots: int = 1, restore: Any = None
) -> tuple[GpuTimer, ScriptedGpu]:
    clock = Clock()
    gpu = ScriptedGpu(clock, launch, kernel, capturable)
    case: Any = SimpleNamespace(calls=[gpu.call] * slots, restore=restore, flush=None)
    return GpuTimer(case, gpu, now=clock), gpu


@pytest.mark.parametrize("capturable", [True, False])
@pytest.mark.parametrize(("launch", "kernel"), [(2e-6, 20e-6), (10e-6, 3e-6)])
def test_device_time_is_the_kernels_alone_even_where_launching_takes_longer(
    launch: float, kernel: float, capturable: bool
) -> None:
    """Oracle: the script: kernels run back to back behind the sleep, whatever a launch takes."""
    timer, _ = gpu_timer(launch, kernel, capturable=capturable)
    batch = timer.batch(64)

    assert batch.seconds / batch.calls == pytest.approx(kernel, rel=1e-3)
    assert timer.host_seconds_a_call() == pytest.approx(launch, rel=1e-3)
    assert timer.way == ("graph" if capturable else "queue")


@pytest.mark.parametrize("slots", [1, 5, 300])
@pytest.mark.parametrize(("share", "way"), [(0.0, "queue"), (0.4, "queue"), (0.8, "graph")])
def test_a_graph_that_lacks_the_work_is_not_taken(share: float, way: str, slots: int) -> None:
    """Oracle: the script: so much of the kernels was captured, the rest ran elsewhere."""
    clock = Clock()
    gpu = ScriptedGpu(clock, 2e-6, 20e-6, captured_share=share)
    case: Any = SimpleNamespace(calls=[gpu.call] * slots, restore=None, flush=None)
    timer = GpuTimer(case, gpu, now=clock)

    assert timer.way == way
    if way == "queue":
        batch = timer.batch(64)
        assert batch.seconds / batch.calls == pytest.approx(20e-6, rel=1e-3)


def test_without_the_sleep_the_same_calls_would_show_the_launches() -> None:
    """Oracle: the script; it is what the sleep is there for."""
    timer, gpu = gpu_timer(10e-6, 3e-6, capturable=False)
    gpu.sleep = lambda _: None  # type: ignore[method-assign]
    batch = timer.batch(64)

    assert batch.seconds / batch.calls == pytest.approx(10e-6, rel=0.05)


def test_a_queue_whose_launches_take_longer_than_its_kernels_is_host_bound() -> None:
    """Oracle: 10 us to launch, 3 us to run; as a graph the same kernels are not."""
    queued, _ = gpu_timer(10e-6, 3e-6, capturable=False)
    graph, _ = gpu_timer(10e-6, 3e-6, capturable=True)
    kernels, _ = gpu_timer(2e-6, 20e-6, capturable=False)

    assert queued.batch(64).host_bound
    assert not graph.batch(64).host_bound
    assert not kernels.batch(64).host_bound


def test_a_batch_on_a_gpu_lasts_a_millisecond_or_more() -> None:
    """Oracle: 20 us a call: 64 calls are the first power of two that lasts so long."""
    timer, _ = gpu_timer(2e-6, 20e-6)
    calls = calls_a_batch(timer)

    assert calls == 64
    assert timer.batch(calls).seconds >= DEVICE_SECONDS > timer.batch(calls // 2).seconds


def test_a_queued_batch_never_fills_the_launch_queue() -> None:
    """Oracle: the limit, for kernels too short to last a millisecond within it."""
    timer, _ = gpu_timer(1e-7, 1e-7, capturable=False)

    assert calls_a_batch(timer) == MOST_QUEUED


def test_a_graph_of_cold_calls_takes_whole_turns_over_the_slots() -> None:
    """Oracle: 5 slots: 8 calls become 10."""
    timer, gpu = gpu_timer(2e-6, 20e-6, slots=5)
    batch = timer.batch(8)

    assert batch.calls == 10
    assert batch.seconds == pytest.approx(10 * 20e-6, rel=1e-3)
    assert "capture 10" in gpu.log


@pytest.mark.parametrize("capturable", [True, False])
def test_state_is_put_back_before_every_batch_outside_of_its_time(capturable: bool) -> None:
    """Oracle: a restore that takes a second, which no batch shows."""
    restored = []
    clock = Clock()
    gpu = ScriptedGpu(clock, 2e-6, 20e-6, capturable)

    def restore() -> None:
        restored.append(clock.ns)
        gpu.queue(1.0)

    case: Any = SimpleNamespace(calls=[gpu.call], restore=restore, flush=None)
    timer = GpuTimer(case, gpu, now=clock)
    before = len(restored)
    batches = [timer.batch(64) for _ in range(3)]

    assert len(restored) - before >= 3
    assert all(batch.seconds == pytest.approx(64 * 20e-6, rel=1e-3) for batch in batches)


def test_where_caches_are_overwritten_each_call_is_timed_alone_on_the_device() -> None:
    """Oracle: the script: overwriting takes a millisecond each time, which no event pair holds."""
    clock = Clock()
    gpu = ScriptedGpu(clock, 2e-6, 20e-6)
    case: Any = SimpleNamespace(calls=[gpu.call], restore=None, flush=lambda: gpu.queue(1e-3))
    timer = GpuTimer(case, gpu, now=clock)
    batch = timer.batch(16)

    assert timer.way == "queue"
    assert batch.seconds == pytest.approx(16 * 20e-6, rel=1e-3)
    assert batch.host_seconds == pytest.approx(16 * 2e-6, rel=1e-3)


# --- the processor ---


def host_timer(seconds: float, **given: Any) -> tuple[HostTimer, Clock, Counter[str]]:
    clock, seen = Clock(), Counter()
    slots = given.pop("slots", 1)

    def call(number: int) -> Callable[[], None]:
        def run() -> None:
            seen[f"call {number}"] += 1
            clock.pass_seconds(seconds)

        return run

    fields = {"restore": None, "flush": None, **given}
    case: Any = SimpleNamespace(calls=[call(n) for n in range(slots)], **fields)
    return HostTimer(case, now=clock), clock, seen


def test_a_batch_on_a_processor_lasts_ten_milliseconds_or_more() -> None:
    """Oracle: 100 us a call: 128 calls; a call of 30 ms is a batch alone."""
    short, _, _ = host_timer(100e-6)
    long, _, _ = host_timer(30e-3)

    assert calls_a_batch(short) == 128
    assert short.batch(128).seconds == pytest.approx(12.8e-3)
    assert calls_a_batch(long) == 1
    assert HOST_SECONDS == 10e-3
    assert short.host_seconds_a_call() is None
    assert not short.batch(1).host_bound


def test_hot_calls_begin_with_an_untimed_one() -> None:
    """Oracle: the script counts one call more than the batch has."""
    timer, _, seen = host_timer(1e-3)
    batch = timer.batch(4)

    assert (batch.calls, batch.seconds) == (4, pytest.approx(4e-3))
    assert seen["call 0"] == 5


def test_cold_calls_go_round_the_slots_across_batches() -> None:
    """Oracle: 3 slots, batches of 4 and 5: each slot thrice, and none of them untimed."""
    timer, _, seen = host_timer(1e-3, slots=3)
    timer.batch(4)
    timer.batch(5)

    assert seen == {"call 0": 3, "call 1": 3, "call 2": 3}


def test_a_flush_is_never_timed() -> None:
    """Oracle: a flush of a second, calls of a millisecond."""
    flushes = []
    timer, clock, _ = host_timer(1e-3, flush=lambda: (flushes.append(1), clock.pass_seconds(1.0)))
    batch = timer.batch(3)

    assert batch.seconds == pytest.approx(3e-3)
    assert len(flushes) == 3


def test_pytest_benchmarks_timer_moves_by_a_calls_seconds() -> None:
    """Oracle: by hand."""
    clock = BatchClock()
    start = clock()
    clock.advance(Batch(4, 0.02, 0.02))

    assert clock() - start == pytest.approx(0.005)


# --- what seconds mean ---


def case_facts(**given: Any) -> dict[str, Any]:
    options = read_options(OPERATIONS["gelu"], {"batch_size": 1, "seq_len": 4, "hidden_size": 8})
    case = open_case("gelu", "default", options, cpu())
    timer = SimpleNamespace(way="graph", host_seconds_a_call=lambda: given.get("host"))
    bench: Any = SimpleNamespace(case=case, timer=timer, calls=10)
    return facts(bench, given["batches"])


def test_rates_are_work_by_the_median_batch() -> None:
    """Oracle: 32 numbers: 2+3 moved times 4 bytes, 16 FLOPs each, in 2 us a call."""
    said = case_facts(batches=[Batch(10, s, 1e-9) for s in (20e-6, 10e-6, 90e-6)])

    assert said["bytes"] == 5 * 32 * 4
    assert said["gb_per_second"] == pytest.approx(640 / 2e-6 / 1e9)
    assert said["tflop_per_second"] == pytest.approx(16 * 32 / 2e-6 / 1e12)
    assert said["host_us"] is None
    assert said["host_bound"] is False
    assert said["error"] == said["reference_error"]
    assert {"bytes_formula", "flops_formula", "inputs_sha256", "cache_bytes"} <= said.keys()


def test_a_row_is_host_bound_where_most_batches_are() -> None:
    """Oracle: two of three."""
    bound, free = Batch(10, 1e-5, 2e-5), Batch(10, 2e-5, 1e-5)

    assert case_facts(batches=[bound, bound, free], host=2e-6)["host_bound"] is True
    assert case_facts(batches=[bound, free, free], host=2e-6)["host_bound"] is False
    assert case_facts(batches=[free], host=2e-6)["host_us"] == pytest.approx(2.0)


CEILINGS = [
    {"matmul_flops_per_second": {"float32": 1e11}, "bandwidth_bytes_per_second": 2e10},
    {"matmul_flops_per_second": {"float32": 2e11, "bfloat16": 8e11},
     "bandwidth_bytes_per_second": 1e10},
]  # fmt: skip


def test_a_ceiling_is_the_best_that_was_measured() -> None:
    """Oracle: by hand over two measurements."""
    best = ceiling_of(CEILINGS)

    assert best["matmul_flops_per_second"] == {"float32": 2e11, "bfloat16": 8e11}
    assert best["bandwidth_bytes_per_second"] == 2e10


def test_the_share_is_of_the_ceiling_that_is_met_first() -> None:
    """Oracle: by hand: 2e6 bytes at 2e10 take 100 us, 4e7 FLOPs at 2e11 take 200 us."""
    best = ceiling_of(CEILINGS)
    info = {"dtype": "float32", "bytes": 2_000_000, "flops": 40_000_000}
    computing = share_of_ceiling(info, 400e-6, best)
    moving = share_of_ceiling({**info, "flops": 10}, 400e-6, best)
    unknown = share_of_ceiling({**info, "dtype": "float16"}, 400e-6, best)

    assert computing == {"ceiling": "float32 matrix products", "share_of_ceiling": 0.5}
    assert moving == {"ceiling": "bandwidth", "share_of_ceiling": 0.25}
    assert unknown == moving


def test_shares_in_the_file_are_of_the_whole_sessions_ceilings() -> None:
    """Oracle: a row in the document as pytest-benchmark makes it; one of others is left alone."""
    row = {"extra_info": {"dtype": "float32", "bytes": 2_000_000, "flops": 10},
           "stats": {"median": 400e-6}}  # fmt: skip
    document: dict[str, Any] = {"benchmarks": [row, {"extra_info": {}, "stats": {"median": 1.0}}]}
    complete(document, CEILINGS)

    assert document["benchmarks"][0]["extra_info"]["share_of_ceiling"] == pytest.approx(0.25)
    assert document["benchmarks"][1]["extra_info"] == {}
    assert len(document["ceilings"]) == 2


def test_a_bench_on_this_processor_times_real_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the batch has the calls that were chosen; seconds and rates are positive."""
    monkeypatch.setattr(measuring, "CEILING_SECONDS", 0.02)
    options = read_options(
        OPERATIONS["optimizer_step"], {"mix": "flat", "hidden_size": 8, "cache": "cold"}
    )
    case = open_case("optimizer_step", "loop", options, cpu(), cache_bytes=2**16)
    bench = Bench(case, cpu())
    batch = bench.batch()

    assert batch.calls == bench.calls
    assert batch.seconds > 0
    assert case.finite()
    assert measuring.session_ceilings(cpu(), ["float32"])["bandwidth_bytes_per_second"] > 0


@pytest.mark.cuda
def test_hot_batches_agree_with_tritons_do_bench() -> None:
    """Oracle: triton.testing.do_bench, within 5 %; 268 MB in and out exceed any cache."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    testing = pytest.importorskip("triton.testing")
    from bertopt_bench.axes.devices import cuda

    device = cuda()
    device.seed(1)
    given = {"batch_size": 1024, "dtype": "bfloat16", "device": "cuda", "direction": "forward"}
    options = read_options(OPERATIONS["gelu"], given)
    case = open_case("gelu", "default", options, device)
    bench = Bench(case, device)
    ours = sorted(b.seconds / b.calls for b in (bench.batch() for _ in range(20)))[10]
    with case.context():
        theirs = testing.do_bench(case.calls[0], return_mode="median") / 1e3

    assert ours == pytest.approx(theirs, rel=0.05)


@pytest.mark.cuda
def test_a_real_gpu_captures_what_can_be_captured_and_queues_the_rest() -> None:
    """Oracle: torch: GELU can be captured, AdamW without capturable cannot."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    from bertopt_bench.axes.devices import cuda

    device = cuda()
    device.seed(1)
    ways = {}
    for operation, name in (("gelu", "default"), ("optimizer_step", "foreach")):
        options = read_options(OPERATIONS[operation], {"device": "cuda"})
        ways[operation] = Bench(open_case(operation, name, options, device), device).timer.way

    assert ways == {"gelu": "graph", "optimizer_step": "queue"}
