"""The section on what memory is for: one row a distinct composition, figures with their formula."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from parsed_pages import parsed
from simulated_results import SimulatedResults, simulated

from bertopt_bench.report import memory, page
from bertopt_bench.stats.facts import gather

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
PARTS = {
    "parameter": 5, "gradient": 5, "optimizer_state": 10, "regularizer_state": 0,
    "activation": 30, "input": 0, "temporary": 10, "other": 0,
}  # fmt: skip


def with_memory(frame: pd.DataFrame) -> pd.DataFrame:
    """Give every trial parts: 60 MiB, of sgd without state 50."""
    frame = frame.copy()
    for part, size in PARTS.items():
        frame[f"memory_{part}_bytes"] = frame[f"memory_formula_{part}_bytes"] = size * MIB
    frame.loc[frame["optimizer"] == "sgd", "memory_optimizer_state_bytes"] = 0
    frame["memory_formula_activation_bytes"] = 33 * MIB
    sgd = frame["optimizer"] == "sgd"
    frame["memory_attributed_bytes"] = sgd.map({True: 50 * MIB, False: 60 * MIB})
    frame["memory_most_activation_bytes"] = 32 * MIB
    frame["memory_independent_bytes"] = frame["memory_attributed_bytes"] + MIB / 4
    frame["memory_difference"] = -0.004
    frame["memory_moment"] = "backward"
    frame["memory_unexplained_bytes"] = [20 * MIB + i for i in range(len(frame))]
    return frame


@pytest.fixture(scope="module")
def results() -> SimulatedResults:
    made = simulated()
    made.trials = with_memory(made.trials)
    return made


def test_trials_of_equal_parts_share_a_row(results: SimulatedResults) -> None:
    """Oracle: two compositions by construction, the larger one first; every trial is counted."""
    section = memory.memory_section(gather(results.trials))
    assert section is not None
    first, second = section["rows"]

    assert (first["peak"], second["peak"]) == ("60.0 MiB", "50.0 MiB")
    assert first["n"] + second["n"] == section["trials"] == len(results.trials)
    assert first["formula"] == "63.0 MiB"
    assert first["error"].startswith("+5.0")
    assert section["agreement"].startswith("0.40")
    assert [part["key"] for part in section["parts"]] == [k for k, size in PARTS.items() if size]
    assert not section["slack"]


def test_bars_are_as_long_as_their_parts(results: SimulatedResults) -> None:
    """Oracle: 300 pixels are 63 MiB, the largest bar."""
    section = memory.memory_section(gather(results.trials))
    assert section is not None
    drawn = section["rows"][0]["bars"]

    assert f'class="part-activation" x="{20 / 63 * 300:.1f}" y="0"' in drawn
    assert f'width="{30 / 63 * 300:.1f}"' in drawn


def test_the_page_shows_the_section_with_n_and_without_scripts(results: SimulatedResults) -> None:
    """Oracle: the page's own markup: well formed, the table complete, both passes named."""
    html = page.render([results])

    assert parsed(html).open == []
    section = html.split('id="memory-parts"')[1].split("</section>")[0]
    assert f"n {len(results.trials)} trials" in section
    assert "most 32.0 MiB" in section
    assert "20.0 MiB" in section
    assert section.count("<svg") >= 2


def test_every_figure_names_its_column_where_the_header_is_gone(
    results: SimulatedResults,
) -> None:
    """Oracle: the header; a part that is nothing in every row has no column."""
    html = page.render([results])
    section = html.split('id="memory-parts"')[1].split("</section>")[0]
    named = re.findall(r'data-label="([^"]+)"', section.split("</tr>")[1])

    parts = ["weights", "gradients", "optimizer state", "activations", "temporary"]
    assert named == ["peak", *parts, "unexplained"]
    assert "regularizer state" not in section


def test_a_range_says_its_unit_once() -> None:
    """Oracle: by hand."""
    rows = [{"bytes": 20 * MIB}, {"bytes": 30 * MIB}]

    assert memory._spread(memory._Group(rows), "bytes") == f"20.0 {memory.DASH} 30.0 MiB"
    assert memory._spread(memory._Group(rows[:1]), "bytes") == "20.0 MiB"
    rows.append({"bytes": 2048 * MIB})
    assert memory._spread(memory._Group(rows), "bytes") == f"20.0 MiB {memory.DASH} 2.00 GiB"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a page whose trials have every part that a CPU's have."""
    made = simulated()
    made.trials = with_memory(made.trials)
    made.trials["memory_regularizer_state_bytes"] = 2.84 * MIB
    for column in ("memory_gradient_bytes", "memory_most_gradient_bytes"):
        made.trials[column] = made.trials[f"{column[:6]}_formula{column[6:]}"] = 4.46 * MIB
    for column in ("memory_most_temporary_bytes", "memory_formula_most_temporary_bytes"):
        made.trials[column] = 11.6 * MIB
    return page.write([made], tmp_path_factory.mktemp("page") / "page.html").as_uri()


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 720, 900, 1100, 1280])
def test_no_column_hides_behind_a_scroll(opened: Callable[..., Any], width: int) -> None:
    """Oracle: the browser's own measure of the box and of what it holds."""
    box = opened(width).locator("#memory-parts .box")

    assert box.evaluate("box => box.scrollWidth - box.clientWidth") == 0


def test_a_page_of_old_records_has_no_such_section() -> None:
    """Oracle: no trial with parts, no section."""
    assert memory.memory_section(gather(simulated().trials)) is None
    assert "memory-parts" not in page.render([simulated()])


def test_only_so_many_rows_are_shown(results: SimulatedResults) -> None:
    """Oracle: a hundred compositions: 40 shown, 60 counted."""
    rows: list[dict[str, Any]] = []
    for number in range(100):
        row = results.trials.iloc[0].to_dict()
        rows.append({**row, "memory_parameter_bytes": float(number), "cell_id": f"c{number}"})
    section = memory.memory_section(gather(pd.DataFrame(rows)))
    assert section is not None

    assert (len(section["rows"]), section["left_out"]) == (memory.MOST_ROWS, 60)
    assert not math.isnan(section["trials"])
