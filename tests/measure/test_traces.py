"""Traces are read, nested, mended and summed up."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest
from made_traces import annotation, span, two_steps, with_a_device

from bertopt_bench.errors import UserError
from bertopt_bench.measure.trace_tables import TraceTables, layers_together, tabulate_trace
from bertopt_bench.measure.traces import mend, parse_trace, read_trace, write_trace

if TYPE_CHECKING:
    from pathlib import Path

MICROSECOND = 1e-6


@pytest.fixture(scope="module")
def tables() -> TraceTables:
    return tabulate_trace(parse_trace(mend(two_steps(), "made")), resident_bytes=5000)


def us(*values: float) -> object:
    return pytest.approx([value * MICROSECOND for value in values])


def test_phases_are_the_ranges_and_rest_is_what_none_covers(tables: TraceTables) -> None:
    """Oracle: the made steps: 10, 30, 40 and 15 of 100 us, and twice as much in the second."""
    assert tables.step_seconds == us(100, 200)
    assert {row.phase: row.seconds for row in tables.phases} == {
        "data": us(10, 20),
        "forward": us(30, 60),
        "backward": us(40, 80),
        "optimizer": us(15, 30),
        "rest": us(5, 10),
    }


def test_own_time_is_total_time_without_what_was_called(tables: TraceTables) -> None:
    """Oracle: by hand: linear 14 calls mm 6; the inner of two add_ is part of the outer one."""
    rows = {row.name: row for row in tables.operators}

    assert rows["aten::linear"].total_seconds == us(14, 28)
    assert rows["aten::linear"].self_seconds == us(8, 16)
    assert rows["aten::mm"].self_seconds == us(6, 12)
    assert rows["aten::add_"].calls == 2
    assert rows["aten::add_"].self_seconds == us(10, 20)
    node = rows["autograd::engine::evaluate_function: GeluBackward0"]
    assert node.self_seconds == us(2, 4)


def test_operators_count_for_the_module_they_stand_in_and_backward_for_their_forward(
    tables: TraceTables,
) -> None:
    """Oracle: by hand: GELU's node and what it calls go to its layer; the loss' to none."""
    found = {(row.module, row.phase, row.operator): row.self_seconds for row in tables.modules}
    layer = "encoder.layer.*"

    assert found[layer, "forward", "aten::mm"] == us(6, 12)
    assert found[layer, "forward", "aten::gelu"] == us(3, 6)
    assert found[layer, "backward", "aten::gelu_backward"] == us(8, 16)
    nll = "autograd::engine::evaluate_function: NllBackward0"
    assert found["(loss)", "backward", nll] == us(4, 8)
    assert found["(loss)", "forward", "aten::nll"] == us(1.5, 3)
    assert found["(optimizer)", "optimizer", "aten::add_"] == us(10, 20)
    gradients = [key for key in found if key[0] == "(gradients)"]
    assert [key[1] for key in gradients] == ["backward"]
    everything = [sum(row.self_seconds) for row in tables.modules]
    assert sum(everything) == pytest.approx(sum(sum(r.self_seconds) for r in tables.operators))


def test_idle_time_of_the_host_is_what_no_outermost_operator_covers(tables: TraceTables) -> None:
    """Oracle: by hand: 3 + 14 + 3 + 1.5 + 4 + 10 + 2 + 10 of 100 us are covered."""
    assert tables.idle.of == "host"
    assert tables.idle.seconds == us(52.5, 105)
    longest = tables.idle.gaps[0]
    assert (longest.phase, longest.before, longest.count) == ("backward", "aten::add_", 2)
    assert longest.seconds == us(20, 40)


def test_memory_starts_at_what_lies_resident_and_follows_every_change(tables: TraceTables) -> None:
    """Oracle: by hand: 5000, +100, +1000, -600, -500 back to 5000; the peak is 6100."""
    assert tables.peak_bytes == (6100, 6100)
    line = tables.timeline
    assert line is not None
    assert max(line.high_bytes) == 6100
    assert (line.low_bytes[0], line.high_bytes[-1]) == (5000, 5000)
    assert line.step_seconds == pytest.approx(200 * MICROSECOND)
    assert [phase for phase, _ in line.ends] == ["data", "forward", "backward", "optimizer"]
    inside = [h for at, h in zip(line.seconds, line.high_bytes, strict=True) if 45e-6 < at < 95e-6]
    assert set(inside) == {6100}


def test_device_time_goes_to_launcher_phase_and_kernel_and_idle_is_the_devices() -> None:
    """Oracle: by hand: kernels 20, 30 and a copy of 5 in 100 us leave 45 idle."""
    tables = tabulate_trace(parse_trace(mend(with_a_device(), "made")))

    assert tables.idle.of == "device"
    assert tables.idle.seconds == us(45)
    assert {g.after: g.seconds for g in tables.idle.gaps}["the step's begin"] == us(20)
    assert {(k.name, k.operator): k.seconds for k in tables.kernels} == {
        ("batched", "aten::bmm"): us(30),
        ("gemm", "aten::mm"): us(20),
        ("Memcpy DtoD", "aten::copy_"): us(5),
    }
    rows = {row.name: row for row in tables.operators}
    assert rows["aten::mm"].device_seconds == us(20)
    assert rows["aten::mm"].self_seconds == us(4), "the launch is not the operator's own"
    phases = {row.phase: (row.seconds, row.device_seconds) for row in tables.phases}
    assert phases["backward"] == (us(40), us(30))
    assert phases["forward"] == (us(30), us(20)), "the GPU's copy of a range counts for nothing"
    assert tables.operators[0].name == "aten::bmm", "ordered by the device's seconds"
    assert tables.peak_bytes == (10_096,), "the device's allocator, not the host's"


def test_mending_keeps_numbers_and_drops_names_of_the_machine() -> None:
    """Oracle: the document itself, event by event; two readings give the same tables."""
    document = two_steps()
    mended = mend(document, "made.json")

    assert [(e.get("ts"), e.get("dur")) for e in mended["traceEvents"]] == [
        (e.get("ts"), e.get("dur")) for e in document["traceEvents"]
    ]
    assert mended["traceName"] == "made.json"
    assert "a-secret-machine" not in json.dumps(mended)
    assert "/home/someone" not in json.dumps(mended)
    modules = [e for e in mended["traceEvents"] if e.get("cat") == "python_function"]
    assert [e["name"] for e in modules] == [
        "nn.Module: (model)",
        "nn.Module: encoder.layer.1",
    ] * 2
    by_id = {e["args"]["Python id"]: e for e in modules}
    parents = [by_id.get(e["args"]["Python parent id"]) for e in modules]
    assert [p and p["name"] for p in parents] == [None, "nn.Module: (model)"] * 2
    assert len({e["args"]["Python module id"] for e in modules}) == 2
    assert not any(e.get("cat") == "fwdbwd" for e in mended["traceEvents"])


def test_a_written_trace_is_read_back_and_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Oracle: json and gzip of the standard library."""
    document = mend(two_steps(), "made")
    file = tmp_path / "a.pt.trace.json.gz"

    size = write_trace(document, file)

    assert size == file.stat().st_size
    assert read_trace(file) == json.loads(json.dumps(document))
    assert json.loads(gzip.decompress(file.read_bytes())) == read_trace(file)
    assert file.read_bytes()[4:8] == bytes(4), "no time of writing"
    again = tmp_path / "b.json.gz"
    write_trace(document, again)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("torn.json.gz", b"\x1f\x8b\x08"),
        ("text.json", b"no JSON"),
        ("list.json", b"[1]"),
        ("other.json", b'{"a": 1}'),
    ],
)
def test_what_is_no_trace_is_told_with_its_name(tmp_path: Path, name: str, data: bytes) -> None:
    """Oracle: the house rule on errors."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=name):
        read_trace(tmp_path / name)


def test_a_trace_without_steps_is_told() -> None:
    """Oracle: the house rule on errors."""
    with pytest.raises(UserError, match="no step"):
        parse_trace({"traceEvents": [span("aten::mm", 0, 1)]})


def test_work_on_another_thread_counts_by_the_time_it_began() -> None:
    """As the backward pass of CUDA runs. Oracle: by hand."""
    events = [
        annotation("ProfilerStep#1", 0, 100),
        annotation("phase: backward", 40, 40),
        span("aten::mm", 50, 10, tid=8),
        span("aten::mm", 150, 10, tid=8),
    ]
    tables = tabulate_trace(parse_trace(mend({"traceEvents": events}, "made")))

    assert [row.calls for row in tables.operators] == [1]
    assert tables.modules[0].phase == "backward"
    assert tables.timeline is None


def test_only_numbers_between_dots_are_layers() -> None:
    """Oracle: by hand."""
    assert layers_together("bert.encoder.layer.11.output") == "bert.encoder.layer.*.output"
    assert layers_together("encoder.layer.0") == "encoder.layer.*"
    assert layers_together("conv2.block2d") == "conv2.block2d"
