"""Let these tests use other rooms' result sets and traces, and open pages in a real browser."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path += [str(Path(__file__).parents[1] / room) for room in ("results", "measure")]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
INSTALL = "needs `apt-get install chromium` and `pip install playwright`"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason=INSTALL)
    if CHROMIUM is None:
        pytest.skip(INSTALL)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, address) -> Iterator[Any]:
    """Open the page at a width; fail on any script error and on any request but the file's own."""
    contexts, troubles = [], []

    def opening(width=1280, fragment="", *, scripts=True) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, java_script_enabled=scripts
        )
        contexts.append(context)
        view = context.new_page()
        view.on("pageerror", lambda error: troubles.append(str(error)))
        view.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        view.on("request", lambda r: None if r.url.startswith(address) else troubles.append(r.url))
        view.goto(address + fragment)
        if scripts:
            view.wait_for_selector("html[data-ready=yes]", timeout=30_000)
        return view

    yield opening
    for context in contexts:
        context.close()
    assert [t for t in troubles if not t.startswith(("blob:", "data:"))] == []
