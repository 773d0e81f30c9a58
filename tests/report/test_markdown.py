"""The Markdown summary carries the page's findings and cannot be broken out of."""

from __future__ import annotations

from simulated_results import simulated

from bertopt_bench.report import markdown


def test_every_table_row_has_the_columns_of_its_header() -> None:
    """A reason with a pipe, a newline and HTML must not add columns, rows or markup."""
    results = simulated(points=2)
    results.trials.loc[0, ["status", "reason"]] = ["failed", "a | b\n| c <script>`*_[x]"]

    text = markdown.summary([results])

    blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
    assert len(blocks) == 3
    for block in blocks:
        widths = {line.replace("\\|", "").count("|") for line in block}
        assert len(widths) == 1
    assert "<script>" not in text


def test_it_says_n_and_spread_and_names_what_it_leaves_out() -> None:
    optimizers = tuple(f"o{i}" for i in range(10))

    text = markdown.summary([simulated(optimizers, points=2)])

    assert "50 further cells" in text
    assert "· n 3)" in text
    assert "(n 8)" in text
