"""The page of profiles in a real browser: headless Chromium, without any network."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from simulated_profiles import on_a_device, profile, profiles, slower

from bertopt_bench.report.page import write_text
from bertopt_bench.report.profiles import render_profiles

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=["two", "device"])
def address(request, tmp_path_factory) -> str:
    found = (profile(), slower()) if request.param == "two" else (on_a_device(),)
    path = tmp_path_factory.mktemp("page") / "page.html"
    return write_text(render_profiles(profiles(*found)), path).as_uri()


@pytest.mark.parametrize("width", [390, 720, 900, 1100, 1280])
def test_nothing_leaves_the_window_however_much_is_unfolded(opened, width) -> None:
    view = opened(width)
    view.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")

    assert view.evaluate("document.documentElement.scrollWidth") == width
    hidden = "[...document.querySelectorAll('.box')].map(box => box.scrollWidth - box.clientWidth)"
    assert max(view.evaluate(hidden)) <= 0
    outside = view.evaluate(
        """() => [...document.querySelectorAll('.area text')].map((t) => t.getBoundingClientRect())
          .filter((b) => b.left < 0 || b.right > innerWidth).length"""
    )
    assert outside == 0


def test_ticks_and_names_of_a_drawing_do_not_cover_each_other(opened) -> None:
    """Oracle: the boxes of all texts of one drawing."""
    view = opened(390)
    over = view.evaluate(
        """() => [...document.querySelectorAll('.area')].flatMap((drawing) => {
          const boxes = [...drawing.querySelectorAll('text')].map((t) => t.getBoundingClientRect());
          return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) =>
            a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom));
        }).length"""
    )

    assert over == 0


def test_tables_stand_without_scripts_and_downloads_come_with_them(opened) -> None:
    bare = opened(scripts=False)
    assert bare.locator("table.stack").count() >= 5
    assert bare.locator("svg.area").count() >= 3

    view = opened()
    with view.expect_download() as download:
        view.locator("#downloads button", has_text="operators.csv").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text("utf-8").splitlines()))
    assert {"cell", "name", "shapes"} <= set(rows[0])
