"""The section of inference: latency and throughput by batch size, in a table and figures."""

from __future__ import annotations

import itertools
import math
import re

import pandas as pd
import pytest
from parsed_pages import parsed
from simulated_results import SimulatedResults, row, session, simulated

from bertopt_bench.report import inference, markdown, page
from bertopt_bench.report.inference_figures import Curve, Frame, Point, draw
from bertopt_bench.report.rows import DASH
from bertopt_bench.stats.facts import gather


def measured(batches: tuple[int, ...] = (1, 8), passes: int = 200) -> SimulatedResults:
    """Time two precisions by batch size, three trials each, on paper: 2 and 1 ms a sequence."""
    import random

    trials = []
    for precision, batch, replicate in itertools.product(("fp32", "bf16"), batches, range(3)):
        latency = {"fp32": 2e-3, "bf16": 1e-3}[precision] * batch * (1 + replicate / 10)
        names = ("adamw", "linear", "none", precision)
        trial = row(names, 1, random.Random(1))
        trial |= dict.fromkeys(("final_loss", "best_loss", "final_masked_accuracy"), math.nan)
        trial |= {
            "trial": len(trials),
            "cell_id": f"{precision}{batch}",
            "label": f"{precision} · batch_size={batch}",
            "mode": "inference",
            "batch_size": batch,
            "replicate": replicate,
            "step_seconds": latency,
            "latency_seconds": latency,
            "latency_seconds_p99": latency * 1.5 if passes >= 100 else math.nan,
            "latency_samples": passes,
            "sequences_per_second": batch / latency,
            "tokens_per_second": 50 * batch / latency,
        }
        trials.append(trial)
    empty = pd.DataFrame(columns=["trial", "step", "loss"])
    return SimulatedResults([session()], pd.DataFrame(trials), empty, empty)


def test_the_table_gives_median_percentile_and_n_by_batch_size() -> None:
    """Oracle: by hand: three trials of 2, 2.2 and 2.4 ms a sequence; p99 half above."""
    section = inference.inference_section(gather(measured().trials))

    assert section is not None
    assert section["unit"] == "ms"
    assert [group["label"] for group in section["groups"]] == ["bf16", "fp32"]
    first, second = section["groups"][1]["rows"]
    assert (first["batch"], second["batch"]) == (1, 8)
    assert first["numbers"][0] == ("2.20", f"2.00{DASH}2.40 · n 3")
    assert first["numbers"][1] == ("3.30", f"3.00{DASH}3.60 · n 3")
    assert first["numbers"][2] == ("200", "")
    assert first["numbers"][3][0] == "455"
    assert second["numbers"][0][0] == "17.6"


def test_too_few_passes_have_no_percentile() -> None:
    """Oracle: the reason stands where the number would."""
    section = inference.inference_section(gather(measured(passes=40).trials))

    assert section is not None
    assert section["groups"][0]["rows"][0]["numbers"][1] == (DASH, "fewer than 100 passes")


def test_a_page_of_inference_speaks_of_latency_and_not_of_losses() -> None:
    """Oracle: the section, two figures without scripts, no held-out loss anywhere."""
    html = page.render([measured()])
    structure = parsed(html)

    assert structure.open == []
    assert '<section id="inference"' in html
    assert html.count('class="by-batch"') == 2
    assert 'id="curves"' not in html
    assert 'id="trade"' not in html
    lead = html.split('class="lead"')[1].split("</div>")[0]
    assert "Forward only, a batch took between 1.10 ms" in lead
    assert "held-out loss" not in lead.lower()
    assert "trained" not in html.split('id="methods"')[1].split("</section>")[0]
    assert ">untuned</i>" not in html.split('id="rows"')[1].split("</tbody>")[0]


def test_a_page_of_training_has_no_such_section() -> None:
    """Oracle: the page as it was."""
    html = page.render([simulated(points=2)])

    assert 'id="inference"' not in html
    assert 'id="curves"' in html
    assert "Forward only" not in html


def test_one_page_shows_both() -> None:
    """Oracle: both sections and both sentences."""
    html = page.render([simulated(points=2), measured()])

    for text in ('id="inference"', 'id="curves"', "Forward only, a batch took", "Held-out loss"):
        assert text in html


def test_one_batch_size_draws_no_figure() -> None:
    """Oracle: a curve needs two points."""
    section = inference.inference_section(gather(measured((4,)).trials))

    assert section is not None
    assert section["figures"] == []


def test_markdown_has_the_same_table() -> None:
    """Oracle: a line for each of the four cells."""
    text = markdown.summary([measured()]).split("## Inference")[1].split("##")[0]

    assert text.count("\n| ") == 1 + 1 + 4
    assert re.search(r"\| fp32 \| 8 \| 17.6 \(.*n 3\)", text)


def test_both_axes_of_a_figure_are_logarithmic() -> None:
    """Oracle: equal ratios lie equally far apart."""
    frame = Frame(1, 100, 1.0, 100.0)

    assert frame.x(10) - frame.x(1) == pytest.approx(frame.x(100) - frame.x(10), abs=0.2)
    assert frame.y(1) - frame.y(10) == pytest.approx(frame.y(10) - frame.y(100), abs=0.2)


def test_more_curves_than_colours_stand_in_the_table_alone() -> None:
    """Oracle: the palette's seven; a single value still has a place."""
    curves = [Curve(f"c{i}", (Point(8, 1.0, 1.0, 1.0),)) for i in range(9)]
    svg, legend = draw(curves, "told")

    assert legend == [f"c{i}" for i in range(7)]
    assert svg.count('class="curve ') == 7
    assert "nan" not in svg
