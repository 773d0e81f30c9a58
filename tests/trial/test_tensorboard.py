"""TensorBoard's torch-tb-profiler reads our traces, and its numbers are ours."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from bertopt_bench.measure.trace_tables import tabulate_trace
from bertopt_bench.measure.traces import mend, parse_trace, read_trace, write_trace
from bertopt_bench.results.profiles import trace_place, worker_name
from bertopt_bench.trial import assemble, profiling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INSTALL = "needs `pip install -c constraints.txt '.[tensorboard]'`"
STEPS, SESSION, WORKER = 3, "2026-11-25T07-00-00Z-0000", worker_name("adamw · fp32", "0123456789")
SECONDS_TO_START = 60.0


@pytest.fixture(scope="module")
def plugin() -> Any:
    pytest.importorskip("tensorboard", reason=INSTALL)
    return pytest.importorskip("torch_tb_profiler.profiler.data", reason=INSTALL)


@pytest.fixture(scope="module")
def trace(
    plugin: Any,
    make_request: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Write a real trace where a profile would."""
    folder = tmp_path_factory.mktemp("results")
    trial = assemble.assemble(make_request())
    profiling.record_trace(trial, 2, STEPS, folder / "raw.json")
    trial.close()
    file = trace_place(folder, SESSION, WORKER, 1_795_000_000_000)
    write_trace(mend(read_trace(folder / "raw.json"), "trace.json"), file)
    return file


@pytest.fixture(scope="module")
def their_data(plugin: Any, trace: Path) -> Any:
    """Give what the plugin makes of the trace, used as a library."""
    from torch_tb_profiler.io import Cache

    data = plugin.RunProfileData.parse(WORKER, "1", str(trace), Cache())
    data.process()
    return data


def test_operators_agree_with_the_plugin(their_data: Any, trace: Path) -> None:
    """Oracle: torch-tb-profiler: calls equal, own and total host time within 1 %, by name."""
    tables = tabulate_trace(parse_trace(read_trace(trace)))
    ours: dict[str, list[float]] = {}
    for row in tables.operators:
        sums = ours.setdefault(row.name, [0, 0.0, 0.0])
        for index, value in enumerate((row.calls, sum(row.self_seconds), sum(row.total_seconds))):
            sums[index] += value
    theirs = {row.name: row for row in their_data.op_list_groupby_name}

    assert ours.keys() == theirs.keys()
    assert len(ours) > 30
    for name, (calls, own, total) in ours.items():
        assert calls == theirs[name].calls
        assert own == pytest.approx(theirs[name].self_host_duration * 1e-6, rel=0.01, abs=2e-7)
        assert total == pytest.approx(theirs[name].host_duration * 1e-6, rel=0.01, abs=2e-7)


def test_operators_by_shape_agree_with_the_plugin(their_data: Any, trace: Path) -> None:
    """Oracle: torch-tb-profiler's groups by name and input shape: as many, the same own time."""
    tables = tabulate_trace(parse_trace(read_trace(trace)))
    ours: dict[tuple[str, str], float] = {}
    for row in tables.operators:
        key = (row.name, row.shapes.replace(",", ", "))
        ours[key] = ours.get(key, 0.0) + sum(row.self_seconds)
    theirs = {
        (row.name, row.input_shape): row.self_host_duration * 1e-6
        for row in their_data.op_list_groupby_name_input
    }

    assert ours.keys() == theirs.keys()
    assert all(own == pytest.approx(theirs[key], rel=0.01, abs=2e-7) for key, own in ours.items())


def test_steps_agree_with_the_plugin(their_data: Any, trace: Path) -> None:
    """Oracle: torch-tb-profiler's step costs: as many steps, each as long within 1 %."""
    tables = tabulate_trace(parse_trace(read_trace(trace)))
    theirs = [sum(cost.costs[:-1]) * 1e-6 for cost in their_data.steps_costs]

    assert list(their_data.steps_names) == [str(number) for number in range(1, STEPS + 1)]
    assert list(tables.step_seconds) == pytest.approx(theirs, rel=0.01)


@pytest.fixture(scope="module")
def server(trace: Path) -> Iterator[str]:
    """Start TensorBoard on a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(trace.parent.parent),
         "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}/data/plugin/pytorch_profiler"
    try:
        await_run(address, process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the plugin has a process of its own
        process.wait()


def await_run(address: str, process: subprocess.Popen[bytes]) -> None:
    """Ask until the run is loaded; each question waits for the server's answer."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            found = asked(f"{address}/runs")
        except urllib.error.URLError:
            process_alive_for(process, 0.2)
            continue
        if found["runs"] and not found["loading"]:
            return
        process_alive_for(process, 0.2)
    pytest.fail("TensorBoard did not load the run")


def process_alive_for(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait a moment, less where the process ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def asked(address: str, **query: str) -> Any:
    whole = f"{address}?{urlencode(query)}" if query else address
    with urllib.request.urlopen(whole) as answer:  # noqa: S310 - our own server's address
        data = answer.read()
        packed = answer.headers.get("Content-Encoding") == "gzip"
    return json.loads(gzip.decompress(data) if packed else data)


@pytest.mark.slow
def test_tensorboards_views_answer_with_our_data(server: str, trace: Path) -> None:
    """Oracle: the server's own answers: our run, our worker, our operators, modules and bytes."""
    runs = asked(f"{server}/runs")["runs"]
    assert runs == [SESSION]
    run = {"run": SESSION}
    views = asked(f"{server}/views", **run)
    assert {"Overview", "Operator", "Trace", "Memory", "Module"} <= set(views)
    assert asked(f"{server}/workers", **run, view="Overview") == [WORKER]
    spans = asked(f"{server}/spans", **run, worker=WORKER)
    one = {**run, "worker": WORKER, "span": spans[0]}

    overview = asked(f"{server}/overview", **one)
    assert len(overview["steps"]["rows"]) == STEPS
    table = asked(f"{server}/operation/table", **one, group_by="Operation")
    names = {row["name"]: row["calls"] for row in table["data"]}
    tables = tabulate_trace(parse_trace(read_trace(trace)))
    products = sum(row.calls for row in tables.operators if row.name == "aten::mm")
    assert names["aten::mm"] == products
    assert asked(f"{server}/trace", **one)["traceEvents"] == read_trace(trace)["traceEvents"]
    assert asked(f"{server}/memory_curve", **one)["rows"]["CPU"]
    modules = json.dumps(asked(f"{server}/module", **one))
    assert "bert.encoder.layer.0.attention.self.query" in modules
