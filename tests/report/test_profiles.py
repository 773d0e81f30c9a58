"""The page of profiles: whole, small, offline; its numbers are the trace's, and no verdict."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from parsed_pages import parsed, payload
from simulated_duels import cell
from simulated_profiles import SESSION, failed, on_a_device, profile, profiles, slower

from bertopt_bench.measure.operator_costs import Point
from bertopt_bench.report import profile_rows, step_figures, wording
from bertopt_bench.report.profiles import render_profiles

SETS = {
    "one": lambda: profiles(profile()),
    "two": lambda: profiles(profile(), slower()),
    "device": lambda: profiles(on_a_device()),
    "half": lambda: profiles(profile(), failed()),
    "none": lambda: profiles(failed()),
}


def text_of(html: str) -> str:
    return " ".join(" ".join(parsed(html).text).split())


@pytest.mark.parametrize("name", SETS)
def test_pages_are_whole_and_ask_nothing_of_a_network(name) -> None:
    """Oracle: the parser of the standard library; no address but those told to a person."""
    html = render_profiles(SETS[name]())
    structure = parsed(html)

    assert structure.open == []
    assert len(html) < 400_000
    loaded = [v for _, key, v in structure.attributes if key in {"src", "href"}]
    assert all(value.startswith(("#", "data:")) for value in loaded)
    assert "http:" not in html.replace("http://www.w3.org", "")
    identities = [value for _, key, value in structure.attributes if key == "id"]
    assert len(identities) == len(set(identities))


def test_the_parts_of_a_step_are_the_traces() -> None:
    """Oracle: the made steps of 100 and 200 us: means 150, of it 45 forward and 60 backward."""
    text = text_of(render_profiles(SETS["one"]()))

    assert "a profiled step took 150 µs" in text
    assert "of it 40.0 % backward and 30.0 % forward" in text
    assert "45.0 µs" in text
    assert "n = 2 steps" in text
    assert "No verdict is drawn" in text
    assert "mean, quartiles over 2 steps" in text


def test_shares_of_phases_add_up_to_the_step_whatever_one_step_did() -> None:
    """Oracle: sums: the parts of all steps are their time; each share is of the mean beside it."""
    one = profile()
    tables = one.tables
    assert tables is not None
    uneven = [replace(row, seconds=(row.seconds[0], 9 * row.seconds[1])) for row in tables.phases]
    sums = [sum(row.seconds) for row in uneven]
    steps = tuple(sum(row.seconds[i] for row in uneven) for i in range(2))
    tables = replace(tables, phases=tuple(uneven), step_seconds=steps)
    rows = profile_rows.phase_rows(tables)

    shares = [float(row["share"].split()[0]) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert shares == [pytest.approx(100 * one / sum(sums), abs=0.06) for one in sums]
    assert rows[0]["host"]["value"] == wording.duration(sums[0] / 2)


def test_counted_kernels_without_flops_have_a_row_and_no_dot() -> None:
    """Oracle: by hand: a copy that moved 9 MB in 900 us and computed nothing."""
    copied = Point("copy_kernel", "counted", "kernel", 1, 0.0, 9e6, 900e-6)
    made = on_a_device()
    html = render_profiles(profiles(made.model_copy(update={"counted": (*made.counted, copied)})))

    assert html.count('class="counted"') == 1
    assert "copy_kernel" in text_of(html)
    assert "1 without any FLOP have a row and no dot" in text_of(html)
    assert "They were counted on a GPU, and this cell ran on the CPU" in text_of(html)


def test_differences_are_aligned_by_operator_and_module_without_a_verdict() -> None:
    """Oracle: by hand: GELU of 4.5 us is missing in b, tanh in a; the loss took half as long."""
    a, b = profile().tables, slower().tables
    rows = profile_rows.difference_rows(a, b, by="both")
    found = {(row["module"], row["operator"]): row for row in rows}
    layer = "encoder.layer.*"

    assert found[layer, "aten::gelu"]["b"] is None
    assert found[layer, "aten::gelu"]["difference"] == "−4.50 µs"  # noqa: RUF001
    assert found[layer, "aten::tanh"]["a"] is None
    assert found[layer, "aten::tanh"]["difference"] == "+4.50 µs"
    assert found["(loss)", "aten::nll"]["difference"].startswith("−1.12")  # noqa: RUF001
    assert (layer, "aten::mm") not in found, "what does not differ is left out"
    text = text_of(render_profiles(SETS["two"]()))
    assert "which is no test" in text
    assert not re.search(r"\b(slower|faster|equivalent|inconclusive)\b", text)


def test_a_failed_cell_says_its_status_and_reason_escaped() -> None:
    """Oracle: the record's words; markup in a reason is text."""
    html = render_profiles(SETS["half"]())

    assert "lamb: failed." in text_of(html)
    assert "&lt;b&gt;no&lt;/b&gt; such kernel" in html


def test_a_captured_step_is_shown_in_its_parts_and_the_page_says_so() -> None:
    """Oracle: the cell's graph; a cell that captures nothing says nothing of it."""
    captured = cell("adamw")
    captured["kernel"] = {**captured["kernel"], "cuda_graph": {"name": "step"}}
    said = "This cell replays its step as one CUDA graph"

    assert said in text_of(render_profiles(profiles(profile(cell=captured))))
    assert said not in text_of(render_profiles(profiles(profile())))


def test_counted_points_stand_beside_the_formulas_each_labelled() -> None:
    """Oracle: the CSV's point: 3 GFLOP in 40 us are 75 TFLOP/s, 2 MB are 50 GB/s."""
    html = render_profiles(SETS["device"]())
    text = text_of(html)

    assert "void gemm<128>(float const*) counted" in text
    assert "75 TFLOP/s 50 GB/s 1,500" in text
    assert html.count('class="counted"') == 1
    assert "The device did nothing for 45.0 µs" in text


def test_every_number_is_in_the_page_for_download() -> None:
    """Oracle: the tables: a row an operator of each cell, a column a step."""
    tables = payload(render_profiles(SETS["two"]()))["tables"]
    operators = tables["operators"]
    rows = sum(len(one.tables.operators) for one in (profile(), slower()))

    assert len(operators["data"][0]) == rows
    assert {"cell", "name", "self_step_1_seconds", "total_step_2_seconds"} <= set(
        operators["columns"]
    )
    assert set(tables) == {"phases", "operators", "modules", "gaps"}


def test_the_last_session_is_shown_and_earlier_ones_are_named() -> None:
    """Oracle: the folder's order."""
    older = profile("old", session="2026-11-24T07-00-00Z-aaaa")
    html = render_profiles(profiles(older, profile("new")))

    assert "Profile of new" in text_of(html)
    assert "2026-11-24T07-00-00Z-aaaa: old" in text_of(html)
    assert SESSION in html


def test_quartiles_are_those_of_the_steps_and_one_step_has_none() -> None:
    """Oracle: by hand: of 1, 2, 3, 4, 5 they are 2 and 4; of two steps the ends are shown."""
    spread = profile_rows.Spread.of((5.0, 1.0, 3.0, 2.0, 4.0))

    assert (spread.mean, spread.low, spread.high, spread.n) == (3.0, 2.0, 4.0, 5)
    assert profile_rows.Spread.of((1.0, 2.0)).low == 1.0
    assert profile_rows.Spread.of((1.0,)).shown() == {"value": "1.00 s", "spread": ""}


def test_points_stand_where_their_numbers_say() -> None:
    """Oracle: by hand: on powers of ten from 0.1 to 10 a value of 1 is in the middle."""
    scale = step_figures.LogScale([0.1, 10.0], 100)

    assert (scale.at(0.1), scale.at(1.0), scale.at(10.0)) == (0, 50, 100)
    point = Point("aten::mm", "formula", "product", 1, 1e6, 1e6, 1e-3)
    svg = step_figures.roofline([point], {}, None, "one")
    assert 'cx="0.0%"' in svg, "one FLOP a byte is the left end of 1 to 10"
    assert step_figures.roofline([], {}, None, "none") == ""
