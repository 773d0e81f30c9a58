"""The page in a real browser: headless Chromium, without any network."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from simulated_results import simulated

from bertopt_bench.report import page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    return page.write([simulated()], path).as_uri()


def rows_shown(view) -> int:
    return view.locator("#rows tr:visible").count()


def draw_all(view) -> None:
    view.evaluate("dispatchEvent(new Event('beforeprint'))")
    view.wait_for_function("document.querySelectorAll('.figure .main-svg').length >= 5")


@pytest.mark.parametrize("width", [390, 1280])
def test_all_figures_are_drawn_and_the_page_never_scrolls_sideways(opened, width) -> None:
    view = opened(width)
    draw_all(view)

    for name in ("by-step", "by-second", "speed", "bytes", "scatter"):
        assert view.locator(f"#{name} .scatterlayer path").count() > 3
    assert view.evaluate("document.documentElement.scrollWidth") == width


def test_filters_narrow_table_and_figures_and_stand_in_the_address(opened) -> None:
    """Oracle: the design; 3 optimizers x 2 x 2 x 2 cells, 8 with lion, 4 of them in bf16."""
    view = opened()
    assert rows_shown(view) == 24

    view.get_by_role("button", name="lion", exact=True).click()
    assert rows_shown(view) == 8
    view.get_by_role("button", name="bf16", exact=True).press("Enter")
    assert rows_shown(view) == 4
    assert "optimizer=lion&precision=bf16" in view.url
    draw_all(view)
    assert view.evaluate("document.getElementById('scatter').data.flatMap(t => t.x).length") == 4

    again = opened(fragment="#" + view.url.split("#")[1])
    assert rows_shown(again) == 4
    again.locator("#clear").click()
    assert rows_shown(again) == 24


def test_sorting_by_keyboard_goes_up_then_down_and_keeps_missing_values_last(opened) -> None:
    view = opened()
    header = view.locator("th[data-key=final_loss]")

    def losses() -> list[float]:
        return view.eval_on_selector_all(
            "#rows tr", "rows => rows.map(r => parseFloat(r.children[5].textContent))"
        )

    header.get_by_role("button").press("Enter")
    up = losses()
    assert header.get_attribute("aria-sort") == "ascending"
    header.get_by_role("button").press("Enter")
    down = losses()

    known = [v for v in up if not math.isnan(v)]
    assert known == sorted(known)
    assert [v for v in down if not math.isnan(v)] == known[::-1]
    assert math.isnan(down[-1])
    assert "sort=-final_loss" in view.url


def test_downloads_are_the_embedded_tables(opened) -> None:
    """Oracle: the csv module reads back as many rows and the reason with its quotes and comma."""
    view = opened()
    with view.expect_download() as download:
        view.locator("#downloads button", has_text="trials.csv").click()

    text = Path(download.value.path()).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 70
    reasons = {row["reason"] for row in rows}
    assert "RuntimeError: <script>alert('corpus')</script> & more" in reasons


def test_without_scripts_the_tables_stand_and_figures_do_not_pretend(opened) -> None:
    view = opened(scripts=False)

    assert rows_shown(view) == 24
    assert view.locator("#effects .strip").count() == 15
    assert not view.locator("#curves").is_visible()
    assert view.get_by_text("need JavaScript").is_visible()


def test_dark_follows_the_system(opened) -> None:
    view = opened()
    light = view.evaluate("getComputedStyle(document.body).backgroundColor")
    view.emulate_media(color_scheme="dark")

    assert view.evaluate("getComputedStyle(document.body).backgroundColor") != light
