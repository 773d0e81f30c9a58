"""Differences of counters between two written states of a machine."""

from __future__ import annotations

import gc
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from written_roots import write

from bertopt_bench.measure import disturbance
from bertopt_bench.measure.disturbance import Disturbance

if TYPE_CHECKING:
    from pathlib import Path


PROC = "cpu0 1 1 1 1 1 1 1 1 1 1\n"
OWN = {"voluntary_switches": 0, "involuntary_switches": 0, "major_faults": 0}


def write_state(
    root: Path, *, stat: str, pressure: int, swapped: int, load: str, throttled: int = 0
) -> None:
    waited = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 total=77\n"
    write(
        root,
        {
            "proc/stat": f"cpu  {stat}\n{PROC}",
            "proc/loadavg": f"{load} 0.2 0.1 4/89 8903\n",
            "proc/vmstat": f"nr_free_pages 5\npswpin {swapped}\npswpout 1\n",
            "proc/pressure/cpu": waited.format(pressure),
            "proc/pressure/memory": waited.format(2 * pressure),
            "proc/pressure/io": waited.format(3 * pressure),
            "proc/self/cgroup": "0::/box\n",
            "sys/fs/cgroup/box/cpu.stat": (
                f"nr_throttled {throttled}\nthrottled_usec {throttled * 1000}\n"
            ),
            **{
                f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq": "2500000\n"
                for core in os.sched_getaffinity(0)
            },
        },
    )


def scripted_own(monkeypatch: pytest.MonkeyPatch, before: float, after: float) -> None:
    """Let this process have used so many seconds of CPU time."""
    own = iter([before, after])
    monkeypatch.setattr(disturbance, "_process_counters", lambda: {**OWN, "own_seconds": next(own)})
    monkeypatch.setattr(os, "sysconf", lambda _name: 100)


def test_shares_are_differences_over_the_time_between(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Oracle: sums by hand.

    10 s of wall time; 2,000 ticks of 1/100 s, 100 of them stolen and 900 busy, of which this
    process used 4 s; 0.5 s of pressure; 3 pages swapped; 7 periods of 1 ms throttled.
    """
    walls = iter([100.0, 110.0])
    monkeypatch.setattr(disturbance.time, "monotonic", lambda: next(walls))
    scripted_own(monkeypatch, 1.0, 5.0)
    write_state(tmp_path, stat="100 0 50 800 50 0 0 10 9 9", pressure=1_000, swapped=2, load="0.3")
    meter = Disturbance(tmp_path)

    meter.start()
    write_state(
        tmp_path,
        stat="900 0 150 1700 150 0 0 110 99 99",
        pressure=501_000,
        swapped=5,
        load="1.5",
        throttled=7,
    )
    seen = meter.stop()

    assert seen["observed_seconds"] == 10.0
    assert (seen["load1"], seen["runnable_threads"]) == (1.5, 4)
    assert seen["steal_share"] == pytest.approx(1.0 / 20.0)
    assert seen["foreign_cpu_share"] == pytest.approx((9.0 - 4.0) / 20.0)
    assert seen["cpu_pressure_share"] == pytest.approx(0.05)
    assert seen["memory_pressure_share"] == pytest.approx(0.10)
    assert seen["io_pressure_share"] == pytest.approx(0.15)
    assert seen["swapped_pages"] == 3
    assert (seen["throttled_periods"], seen["throttled_seconds"]) == (7, pytest.approx(0.007))
    assert seen["cpu_mhz"] == 2500.0
    json.dumps(seen)


@pytest.mark.parametrize(
    ("own_seconds", "foreign"),
    [
        (9.0, 0.0),  # everything that ran was ours: our threads waited for each other
        (8.8, 0.02),  # others ran for 0.2 s of 10: no more of the waiting can be their doing
        (2.0, 0.05),  # others ran long: all of the waiting may be
    ],
)
def test_pressure_counts_as_foreign_only_while_others_ran(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_seconds: float, foreign: float
) -> None:
    """Oracle: by hand, of 0.5 s of pressure and 9 s of busy cores in 10 s."""
    walls = iter([0.0, 10.0])
    monkeypatch.setattr(disturbance.time, "monotonic", lambda: next(walls))
    scripted_own(monkeypatch, 0.0, own_seconds)
    write_state(tmp_path, stat="0 0 0 0 0 0 0 0 0 0", pressure=0, swapped=0, load="0")
    meter = Disturbance(tmp_path)

    meter.start()
    write_state(tmp_path, stat="900 0 0 1100 0 0 0 0 0 0", pressure=500_000, swapped=0, load="0")

    assert meter.stop()["foreign_pressure_share"] == pytest.approx(foreign)


class FakeGpu:
    """A meter that counts how often it was started."""

    def __init__(self) -> None:
        self.started = 0

    def start(self) -> None:
        self.started += 1

    def stop(self) -> dict[str, Any]:
        return {"gpu_sm_clock_mhz": 1500}


def test_a_gpus_meter_adds_its_state(tmp_path: Path) -> None:
    """Without one there is no name that begins with `gpu_`."""
    gpu = FakeGpu()
    meter, plain = Disturbance(tmp_path, gpu), Disturbance(tmp_path)

    for each in (meter, plain):
        each.start()
    seen, without = meter.stop(), plain.stop()

    assert gpu.started == 1
    assert seen["gpu_sm_clock_mhz"] == 1500
    assert not any(key.startswith("gpu_") for key in without)


def test_a_system_without_proc_gives_none_and_the_process_own_counts(tmp_path: Path) -> None:
    meter = Disturbance(tmp_path)

    meter.start()
    gc.collect()
    gc.collect()
    seen = meter.stop()

    for key in ("load1", "steal_share", "foreign_cpu_share", "cpu_pressure_share", "swapped_pages"):
        assert seen[key] is None
    for key in ("foreign_pressure_share", "io_pressure_share", "throttled_periods", "cpu_mhz"):
        assert seen[key] is None
    assert (seen["gc_collections"] or 0) >= 2
    assert seen["involuntary_switches"] is not None
    assert seen["voluntary_switches"] is not None


def test_a_foreign_share_is_never_negative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine counts in ticks, the process finer: 4 s of its own against 0 ticks seen busy."""
    scripted_own(monkeypatch, 0.0, 4.0)
    write_state(tmp_path, stat="1 0 1 100 0 0 0 0 0 0", pressure=0, swapped=0, load="0")
    meter = Disturbance(tmp_path)

    meter.start()
    write_state(tmp_path, stat="1 0 1 900 0 0 0 0 0 0", pressure=0, swapped=0, load="0")

    assert meter.stop()["foreign_cpu_share"] == 0.0


def test_a_stop_needs_a_start() -> None:
    with pytest.raises(RuntimeError, match="start"):
        Disturbance().stop()
