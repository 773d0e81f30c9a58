"""The page of duels in a real browser: headless Chromium, without any network."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from simulated_duels import calibrated, duel

from bertopt_bench.report import page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=["one", "many"])
def pages(request, tmp_path_factory) -> str:
    results = duel(inject=0.05) if request.param == "one" else calibrated(3, 2)
    path = tmp_path_factory.mktemp("page") / "page.html"
    return page.write([results], path).as_uri()


@pytest.fixture(scope="module")
def address(pages) -> str:
    return pages


def unfold(view) -> None:
    view.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways_however_much_is_unfolded(opened, width) -> None:
    view = opened(width)
    assert view.evaluate("document.documentElement.scrollWidth") == width

    unfold(view)

    assert view.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 1280])
def test_no_text_of_a_drawing_leaves_the_window_or_covers_another(opened, width) -> None:
    """Boxes of ticks and numbers of one drawing: inside the window, none over another."""
    view = opened(width)
    unfold(view)

    troubles = view.evaluate(
        """() => [...document.querySelectorAll('.area, .ruler-wide')].flatMap((drawing) => {
          const boxes = [...drawing.querySelectorAll('text')].map((t) => t.getBoundingClientRect());
          const out = boxes.filter((b) => b.left < 0 || b.right > innerWidth).map(() => 'outside');
          boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
            const across = a.left < b.right && b.left < a.right;
            if (across && a.top + 2 < b.bottom && b.top + 2 < a.bottom) out.push('over');
          }));
          return out;
        })"""
    )

    assert troubles == []


def test_downloads_are_the_embedded_tables(opened) -> None:
    """Oracle: the csv module reads back as many rows as the button promises."""
    view = opened()
    button = view.locator("#downloads button", has_text="blocks.csv")
    with view.expect_download() as download:
        button.click()

    text = Path(download.value.path()).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert f"({len(rows):,} rows)" in button.text_content()
    assert {row["arm"] for row in rows} >= {"adamw", "A/A"}


def test_without_scripts_tables_and_drawings_stand(opened) -> None:
    view = opened(scripts=False)

    assert view.locator(".lead, .answers").first.is_visible()
    assert view.locator("table").first.is_visible()
    assert view.locator(".forest").first.is_visible()
    assert not view.locator("#downloads").is_visible()


def test_a_link_into_something_folded_unfolds_it(opened, address) -> None:
    view = opened()
    folded = view.evaluate("[...document.querySelectorAll('main details[id]')].map(e => e.id)")
    target = folded[-1]
    view.evaluate("document.querySelectorAll('main details').forEach(e => { e.open = false; })")

    view.evaluate(f"location.hash = {target!r}")
    view.wait_for_function(f"document.getElementById({target!r}).open")

    again = opened(fragment=f"#{target}")
    assert again.evaluate(f"document.getElementById({target!r}).open")


def test_dark_follows_the_system_and_verdicts_stay_readable(opened) -> None:
    """Oracle: WCAG's formula of contrast, at least 4.5 to 1 for every chip's text, both ways."""
    view = opened()
    contrast = """() => {
      const canvas = document.createElement('canvas').getContext('2d');
      const light = (colour) => {
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
          .map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      return Math.min(...[...document.querySelectorAll('.verdict')].map((chip) => {
        const style = getComputedStyle(chip);
        const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
      }));
    }"""
    background = "getComputedStyle(document.body).backgroundColor"
    light = view.evaluate(background)
    assert view.evaluate(contrast) >= 4.5

    view.emulate_media(color_scheme="dark")

    assert view.evaluate(background) != light
    assert view.evaluate(contrast) >= 4.5
