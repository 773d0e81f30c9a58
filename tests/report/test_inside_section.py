"""The section that looks inside: heat maps of what was stored, and the sentence about a fall."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd
import pytest
from parsed_pages import parsed
from simulated_results import SimulatedResults, simulated

from bertopt_bench.report import inside, page
from bertopt_bench.stats.facts import gather
from bertopt_bench.stats.growth import find_growth

MODULES = ("embeddings", "layer 0 attention", "layer 0 intermediate", "layer 0 output", "head")
FIGURES = ("gradient_norm", "weight_norm", "update_ratio", "activation_norm")


def looks(steps: tuple[int, ...], trial: int = 0, **grown: float) -> pd.DataFrame:
    """Give a look in which all is 1, but for the output's figures in the last step."""
    rows: list[dict[str, Any]] = [
        {"trial": trial, "step": step, "module": module, "same_losses": True}
        | dict.fromkeys(FIGURES, 1.0)
        for step in steps
        for module in MODULES
    ]
    for row in rows:
        if row["step"] == steps[-1] and row["module"] == "layer 0 output":
            row.update(grown)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def results() -> SimulatedResults:
    """Trial 0 diverged at step 9, and what goes into its layer's output grew fifty-fold."""
    made = simulated()
    made.trials = made.trials.copy()
    made.trials.loc[0, ["status", "diverged_at_step"]] = ["diverged", 9]
    calm = looks((1, 60, 120), trial=1)
    calm["gradient_norm"] = [10.0 ** (i % 5) for i in range(len(calm))]
    made.inside = pd.concat([looks((1, 4, 7, 8, 9), activation_norm=50.0), calm])
    return made


def test_the_fall_names_step_layer_and_what_grew(results: SimulatedResults) -> None:
    """Oracle: the trial made above, written by hand; layers count from 1 for a reader."""
    section = inside.inside_section(gather(results.trials), results.inside)
    assert section is not None
    (told,) = section["falls"]

    assert "diverged at step 9: the activation norm of layer 1 output grew 50" in told
    assert "from 1.00 in step 4 to 50.0 in step 9" in told
    assert section["trials"][0]["status"] == "diverged"


def test_growth_is_measured_from_the_last_calm_look() -> None:
    """Oracle: by hand: 7, 8 and 9 are one run of looks, 4 is the look before it."""
    rows = looks((1, 4, 7, 8, 9), gradient_norm=math.inf).to_dict("records")
    growth = find_growth(rows, 9)
    assert growth is not None

    assert (growth.calm_step, growth.step, growth.figure) == (4, 9, "gradient_norm")
    assert growth.factor == math.inf
    assert find_growth(looks((9,)).to_dict("records"), 9) is None


def test_of_several_that_grew_the_first_step_counts_then_the_largest() -> None:
    """Oracle: by hand: the head grew tenfold in step 2, the output a thousandfold in step 3."""
    frame = looks((1, 2, 3), weight_norm=1000.0)
    frame.loc[(frame["step"] >= 2) & (frame["module"] == "head"), "gradient_norm"] = 10.0
    growth = find_growth(frame.to_dict("records"), 3)
    assert growth is not None

    assert (growth.step, growth.module, growth.figure, growth.last) == (2, "head", *LAST)


LAST = ("gradient_norm", 10.0)


def test_update_ratios_do_not_count_as_growth() -> None:
    """Oracle: a warm-up: the ratio grows a thousandfold, the gradient by a half."""
    frame = looks((1, 2), update_ratio=1000.0, gradient_norm=1.5)
    growth = find_growth(frame.to_dict("records"), 2)
    assert growth is not None

    assert growth.figure == "gradient_norm"


def test_every_figure_of_a_trial_is_in_its_map(results: SimulatedResults) -> None:
    """Oracle: as many boxes as modules by steps; ten classes from the lowest to the highest."""
    section = inside.inside_section(gather(results.trials), results.inside)
    assert section is not None
    svg = str(section["trials"][1]["maps"][0]["svg"])

    assert len(re.findall(r"v14h-", svg)) == 15
    used = re.findall(r'<path fill="(#\w+)"', svg)
    assert used[0] == inside.COLOURS[0]
    assert inside.COLOURS[-1] in used
    assert "0 to 10,000" in svg.replace("1.00 ", "0 ")


def test_what_is_no_number_has_a_colour_of_its_own_and_says_so() -> None:
    """Oracle: NaN and inf have no class; the legend names their colour."""
    scale = inside.Scale.of([1.0, math.inf, math.nan, 100.0])
    assert scale is not None

    assert (scale.low, scale.high) == (1.0, 100.0)
    assert [scale.place(v) for v in (1.0, 10.0, 100.0)] == [0, 5, 9]
    assert scale.place(math.nan) is scale.place(math.inf) is None
    drawn = inside.heat_map("t", ("head",), (1, 2), [[1.0, math.nan]], scale)
    assert "no finite number" in drawn
    assert inside.Scale.of([math.nan]) is None


def test_the_page_shows_it_without_a_script_and_not_at_all_without_a_look(
    results: SimulatedResults,
) -> None:
    """Oracle: the parsed page: the maps are in the HTML itself, and its structure holds."""
    with_look, without = page.render([results]), page.render([simulated()])

    assert with_look.count('<svg class="heat"') == 8
    assert "grew 50" in " ".join(parsed(with_look).text)
    assert 'id="inside"' not in without
