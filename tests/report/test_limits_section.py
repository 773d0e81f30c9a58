"""The sections on phases, limits and rooflines: numbers by hand, reasons in words, no script."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from parsed_pages import parsed
from simulated_results import SimulatedResults, session, simulated

from bertopt_bench.report import limits, page
from bertopt_bench.stats.facts import gather

SECONDS = {"data": 0.001, "forward": 0.03, "backward": 0.06, "optimizer": 0.008, "rest": 0.001}
CPU_WHY = "no maker of CPUs states it"
LENT = "sgd has 2 reads, 1 write, not measured"


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Give every trial phases of 0.1 s, half its measured peak, and a traced step; sgd no count."""
    ok = frame["status"] == "ok"
    columns: dict[str, Any] = {f"{phase}_seconds": value for phase, value in SECONDS.items()}
    columns |= {"phase_step_seconds": 0.1, "phase_steps": 3, "flops_per_step": 5e9}
    columns |= {"model_flops_per_second": 5e10, "ceiling_share": 0.5, "datasheet_share": math.nan}
    columns |= {"ceiling_flops_per_second": 1e11, "bandwidth_ceiling_bytes_per_second": 1e10}
    columns |= {"optimizer_bytes_per_second": 4e9, "optimizer_bandwidth_share": 0.4}
    columns |= {"traced_step_seconds": 0.1, "operation_other_seconds": 0.02}
    columns |= {"operation_linear_flops": 4e9, "operation_linear_bytes": 4e8}
    columns |= {"operation_linear_seconds": 0.1, "operation_gelu_seconds": 0.01}
    columns |= {"operation_linear_counted_seconds": 0.08, "operation_linear_calls": 20}
    frame = frame.assign(**{name: pd.Series(value, frame.index) for name, value in columns.items()})
    frame.loc[~ok, list(columns)] = math.nan
    frame["ceiling_dtype"] = frame["precision"].map({"fp32": "float32", "bf16": "bfloat16"})
    frame["datasheet_missing"] = CPU_WHY
    sgd = frame["optimizer"] == "sgd"
    frame["optimizer_bytes_missing"] = sgd.map({True: "sgd: not counted", False: ""})
    frame.loc[sgd, "optimizer_bytes_per_second"] = math.nan
    frame["update_mix"] = "4 reads, 3 writes"
    frame["update_mix_missing"] = sgd.map({True: LENT, False: ""})
    frame["compile_seconds"] = [12.0 if seed == 1 else 2.0 for seed in frame["seed"]]
    frame["compile_cache"] = ["cold" if seed == 1 else "warm" for seed in frame["seed"]]
    return frame


def noisy_session() -> dict[str, Any]:
    rates = [{"matmul_flops_per_second": {"float32": rate}} for rate in (1e11, 0.5e11)]
    skipped = {"bfloat16": "one product would take 9 s here"}
    events = [{"device": {"name": "cpu"}, "values": {**r, "skipped": skipped}} for r in rates]
    return {**session(), "ceilings": events}


@pytest.fixture(scope="module")
def results() -> SimulatedResults:
    made = simulated()
    return SimulatedResults([noisy_session()], measured(made.trials), made.steps, made.evaluations)


@pytest.fixture(scope="module")
def section(results: SimulatedResults) -> dict[str, Any]:
    found = limits.limit_section(gather(results.trials), results.sessions)
    assert found is not None
    return found


def test_the_reference_cell_comes_first_and_stands_open(section: dict[str, Any]) -> None:
    """Oracle: the usual levels: AdamW, linear, no regularizer, fp32."""
    label = "adamw · linear · none · fp32"

    assert section["phases"][0]["label"] == label
    assert section["rooflines"]["plots"][0]["label"] == label


def test_shares_of_a_step_are_its_phases_by_their_sum(section: dict[str, Any]) -> None:
    """Oracle: by hand: 30 of 100 ms are 30 %; three seeds, three steps each."""
    row = section["phases"][0]

    assert dict(zip(section["names"], (part[0][:-2] for part in row["parts"]), strict=True)) == {
        "data": "1.0", "forward": "30.0", "backward": "60.0", "optimizer": "8.0", "rest": "1.0",
    }  # fmt: skip
    assert (row["n"], section["steps"]) == (3, "3")


def test_work_is_written_with_units_and_n(section: dict[str, Any]) -> None:
    """Oracle: the columns by hand; what is missing is None, and says why below."""
    adamw = section["rows"][0]["numbers"]
    sgd = next(row for row in section["rows"] if row["label"].startswith("sgd"))

    assert [number and number[0].replace("\u00a0", " ") for number in adamw[:6]] == [
        "5 GFLOP", "50 GFLOP/s", "50.0 %", None, "4 GB/s", "40.0 %",
    ]  # fmt: skip
    assert adamw[0][1].endswith("n 3")
    assert sgd["numbers"][4] is None
    assert f"No datasheet share: {CPU_WHY}." in section["reasons"]
    assert "No optimizer bandwidth: sgd: not counted." in section["reasons"]


def test_a_share_says_of_which_mix_it_is_and_where_that_is_anothers(
    section: dict[str, Any],
) -> None:
    """Oracle: the columns by hand: the mix stands under the share, the reason below the table."""
    assert section["rows"][0]["numbers"][5][1].startswith("of 4 reads, 3 writes · ")
    assert section["reasons"].count(f"Another mix's bandwidth: {LENT}.") == 1


def test_the_mixes_that_a_session_measured_stand_by_name() -> None:
    """Oracle: two measures by hand; AdamW's is not told twice."""
    values = [
        {"bandwidth_bytes_per_second": r, "update_bytes_per_second": {"2 reads, 1 write": r}}
        for r in (1e10, 2e10)
    ]
    seen = [{"device": {"name": "cpu"}, "values": one} for one in values]
    (told,) = limits._ceilings({"ceilings": seen})

    assert told.startswith("cpu in-place update of 2 reads, 1 write: 20 GB/s at most (least 10 ")


def test_cold_and_warm_compile_times_are_never_mixed(section: dict[str, Any]) -> None:
    """Oracle: 12 s of the first seed, cold; 2 s of the two others, from a warm cache."""
    assert section["rows"][0]["compiled"] == [
        ("cold", ("12.0 s", "one run")),
        ("warm", ("2.00 s", "2.00 · n 2")),
    ]


def test_a_noisy_limit_says_so_and_one_not_measured_why(section: dict[str, Any]) -> None:
    """Oracle: two measures, one twice the other; the reason of the session's own record."""
    (line,) = section["measured"]

    assert line.startswith("cpu float32: 100 GFLOP/s at most (least 50 GFLOP/s, n 2, noisy")
    assert section["reasons"][0] == (
        "No measured peak of bfloat16: one product would take 9 s here."
    )


def test_a_roofline_places_what_has_a_formula_and_lists_the_rest(section: dict[str, Any]) -> None:
    """Oracle: by hand: 4 GFLOP in 80 ms are 50 GFLOP/s, 10 FLOPs a byte, half of the roof."""
    rows = section["rooflines"]["plots"][0]["rows"]
    linear, other = rows[0], rows[-1]
    assert linear["partly"].startswith("of 80.0")  # 80 of 100 ms have a formula

    assert (linear["flops"], linear["intensity"], linear["source"]) == (
        "50 GFLOP/s", "10.0", "formula",
    )  # fmt: skip
    assert linear["roof"].startswith("50.0")
    assert (other["name"], other["source"], other["flops"]) == ("other", "no formula", "–")  # noqa: RUF001 - the dash of an empty cell
    assert other["share"].startswith("20.0")


def test_the_page_shows_it_without_a_script(results: SimulatedResults) -> None:
    """Oracle: the standard library's parser; plots are details, one of them open."""
    html = page.render([results])
    structure = parsed(html)
    anchors = {value for _, name, value in structure.attributes if name == "id"}

    assert structure.open == []
    assert {"phases", "limits", "rooflines"} <= anchors
    part = html[html.index('<section id="rooflines"') :]
    part = part[: part.index("</section>")]
    assert part.count("<details") == limits.MOST_PLOTS
    assert part.count(" open>") == 1
    assert 'class="scripted"' not in part


def test_a_page_without_times_has_none_of_it() -> None:
    """Oracle: older results: no phase, no rate; the page renders as before."""
    made = simulated()

    assert limits.limit_section(gather(made.trials), made.sessions) is None
    assert 'id="phases"' not in page.render([made])
