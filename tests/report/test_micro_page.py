"""The page of pytest-benchmark's files: exploratory, hot and cold apart, no verdict anywhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from made_micro import row, written
from parsed_pages import parsed, payload

from bertopt_bench.pipeline import write_report
from bertopt_bench.report.micro import context, figures, render_micro
from bertopt_bench.report.micro_figures import crossings
from bertopt_bench.report.step_figures import rate
from bertopt_bench.results.micro import read_micro

if TYPE_CHECKING:
    from pathlib import Path

# math is quicker up to 128 slots, flash beyond: lines cross between 128 and 256
TIMES = {"math": {64: 1e-3, 128: 2e-3, 256: 8e-3}, "flash": {64: 2e-3, 128: 2.5e-3, 256: 4e-3}}


@pytest.fixture
def file(tmp_path: Path) -> Any:
    rows = [
        row(name, seconds * factor, seq_len=length, cache=cache)
        for cache, factor in (("hot", 1), ("cold", 2))
        for name, line in TIMES.items()
        for length, seconds in line.items()
    ]
    return read_micro(written(tmp_path / "micro.json", *rows))


def test_the_page_stands_alone_and_says_that_it_is_exploratory(file: Any) -> None:
    """Oracle: the parser: closed tags, no outside address; the words themselves."""
    html = render_micro([file])
    page = parsed(html)
    text = " ".join(page.text)

    assert page.open == []
    assert not [v for _, name, v in page.attributes if name in {"src", "href"} and "//" in v]
    assert "gives no verdict and cannot gate" in text
    assert "duel --micro" in text
    for word in ("faster", "slower", "equivalent", "p-value"):
        assert word not in text.lower()
    assert "a-machines-name" not in html


def test_every_case_has_its_numbers_and_hot_is_not_in_colds_table(file: Any) -> None:
    """Oracle: the rows that were written, by section."""
    html = render_micro([file])
    sections = dict(
        re.findall(r'<section id="(g0-attention-\w+)".*?>(.*?)</section>', html, re.DOTALL)
    )

    assert sections.keys() == {"g0-attention-hot", "g0-attention-cold"}
    assert sections["g0-attention-hot"].count('<tr><th scope="row"') == 6
    assert "8.00 ms" in sections["g0-attention-hot"]
    assert "16.0 ms" not in sections["g0-attention-hot"]
    assert "16.0 ms" in sections["g0-attention-cold"]
    for told in ("25.0", "3.0e−07", "2.0e−07", "bandwidth"):  # noqa: RUF001 - a minus sign
        assert told in sections["g0-attention-hot"]


def heads(html: str) -> list[str]:
    """Give the heads of the first table, without their small lines."""
    row = html.partition("</thead>")[0]
    return re.findall(r'<th scope="col"[^>]*>(.*?)(?: <small>|</th>)', row)


def test_a_column_that_says_nothing_of_any_row_is_left_out(tmp_path: Path) -> None:
    """Oracle: host_us is null on a CPU; one row that has it brings the column back."""
    rows = [row(name, 1e-3, seq_len=64) for name in ("math", "flash")]
    on_cpu = render_micro([read_micro(written(tmp_path / "cpu.json", *rows))])
    rows[1]["extra_info"]["host_us"] = 5.0
    some = render_micro([read_micro(written(tmp_path / "some.json", *rows))])
    usual = ["implementation", "n", "median", "rate", "share", "error"]

    assert heads(on_cpu) == usual
    assert heads(some) == [*usual, "host"]
    assert 'data-label="host">–<' in some  # noqa: RUF001 - a dash
    assert 'data-label="host">5.00 µs<' in some


def test_rates_are_written_with_the_prefix_that_reads_best(tmp_path: Path) -> None:
    """Oracle: by hand: 0.000327 TFLOP/s are 327 MFLOP/s, 9.77 GB/s stay; ceilings of 1e11, 2e10."""
    slow = row("math", 1e-3, seq_len=64, tflop_per_second=3.27e-4, gb_per_second=9.77)
    html = render_micro([read_micro(written(tmp_path / "a.json", slow))])

    assert '<td class="number" data-label="rate">9.77 GB/s<small>327 MFLOP/s</small></td>' in html
    assert "float32 100 GFLOP/s" in html
    assert "20 GB/s (as AdamW)" in html


@pytest.mark.parametrize(
    ("value", "told"),
    [(999.9e9, "1 TB/s"), (999.4e9, "999 GB/s"), (999.0, "999 B/s"), (0.0, "0 B/s")],
)
def test_a_rate_has_no_exponent_and_its_unit_stands_apart(value: float, told: str) -> None:
    """Oracle: by hand, to three digits; a thousand of a prefix is one of the next."""
    assert rate(value, "B/s") == told


def test_the_title_says_what_the_page_is_and_exploratory_is_said_once(tmp_path: Path) -> None:
    """Oracle: the words; the notice's head says exploratory, its text does not begin with it."""
    other = row("default", 1e-3, operation="gelu", seq_len=64)
    file = read_micro(written(tmp_path / "a.json", row("math", 1e-3, seq_len=64), other))
    html = render_micro([file])

    assert "<title>Operations alone: attention and gelu · bertopt-bench</title>" in html
    assert len(re.findall("exploratory", " ".join(parsed(html).text), re.IGNORECASE)) == 1


def test_many_options_share_a_column(tmp_path: Path) -> None:
    """Oracle: by hand: five options vary, more than columns fit; each stands in its row."""
    one = row("math", 1e-3, seq_len=64)
    other = row("math", 1e-3, seq_len=128, batch_size=2, heads=8, padding=0.5, dtype="bfloat16")
    html = render_micro([read_micro(written(tmp_path / "a.json", one, other))])

    assert heads(html)[:3] == ["implementation", "options", "n"]
    told = "batch_size 2, heads 8, seq_len 128, padding 0.5, dtype bfloat16"
    assert told in html.replace("\N{NO-BREAK SPACE}", " ")


def test_lines_cross_where_the_medians_change_their_order(file: Any) -> None:
    """Oracle: by hand, from the times above."""
    hot = [one for one in file.rows if one.options["cache"] == "hot"]
    drawn = figures(hot)

    assert [figure.title for figure in drawn] == ["Seconds a call over seq_len"]
    assert drawn[0].series == ("math", "flash")
    assert drawn[0].notes == ("the medians of math and flash cross between seq_len 128 and 256",)
    assert drawn[0].svg.count("<circle") == 6


def test_host_bound_cases_are_marked_hollow_and_cross_nothing(tmp_path: Path) -> None:
    """Oracle: the same times, one line host-bound throughout."""
    rows = [
        row(name, seconds, seq_len=length, host_bound=name == "flash", host_us=1.0)
        for name, line in TIMES.items()
        for length, seconds in line.items()
    ]
    file = read_micro(written(tmp_path / "a.json", *rows))
    html = render_micro([file])

    assert figures(file.rows)[0].notes == ()
    assert html.count("hollow") >= 3
    assert html.count("host-bound: no kernel verdict") == 3
    assert "3 cases host-bound" in html
    lines = {"a": file.rows[:3], "b": file.rows[3:]}
    assert crossings("seq_len", lines) == []


def test_lines_that_meet_within_their_spread_cross_nowhere(tmp_path: Path) -> None:
    """Oracle: quartiles from 0.95 to 1.1 of the median: 2 % apart they overlap."""
    rows = [row("math", 1e-3, seq_len=64), row("math", 2e-3, seq_len=128)]
    rows += [row("flash", 1.02e-3, seq_len=64), row("flash", 1.5e-3, seq_len=128)]

    assert figures(read_micro(written(tmp_path / "a.json", *rows)).rows)[0].notes == ()


def test_an_undecided_length_between_two_decided_ones_hides_no_crossing(tmp_path: Path) -> None:
    """Oracle: by hand: math below at 32, overlapping at 64 and 96, above at 128."""
    times = {"math": (1e-3, 2e-3, 3e-3, 8e-3), "flash": (2e-3, 2.02e-3, 3.03e-3, 4e-3)}
    rows = [
        row(name, seconds, seq_len=length)
        for name, line in times.items()
        for length, seconds in zip((32, 64, 96, 128), line, strict=True)
    ]

    assert figures(read_micro(written(tmp_path / "a.json", *rows)).rows)[0].notes == (
        "the medians of math and flash cross between seq_len 32 and 128",
    )


def test_a_caption_says_which_axes_are_logarithmic(tmp_path: Path) -> None:
    """Oracle: the ticks: 0, 0.25 and 0.5 stand as far apart, 64, 128 and 256 too."""
    rows = [row("math", 1e-3, seq_len=64, padding=share) for share in (0.0, 0.25, 0.5)]
    rows += [row("math", 2e-3, seq_len=length) for length in (128, 256)]
    html = render_micro([read_micro(written(tmp_path / "a.json", *rows))])
    captions = dict(
        re.findall(r"<b>Seconds a call over (\w+)[^<]*</b>.*?batches; ([^<]+)</small>", html)
    )
    ticks = re.findall(r'<line class="tick" x1="([\d.]+)%"', html)

    assert captions == {
        "seq_len": "both axes logarithmic",
        "padding": "seconds logarithmic, padding linear",
    }
    for places in (ticks[:3], ticks[3:]):
        left, middle, right = map(float, places)
        assert middle - left == pytest.approx(right - middle, abs=0.02)


def test_other_options_part_the_figures(tmp_path: Path) -> None:
    """Oracle: two dtypes make two figures, each named by its dtype."""
    rows = [
        row("math", 1e-3 * length, seq_len=length, dtype=dtype)
        for dtype in ("float32", "bfloat16")
        for length in (64, 128)
    ]
    drawn = figures(read_micro(written(tmp_path / "a.json", *rows)).rows)

    assert [figure.title for figure in drawn] == [
        "Seconds a call over seq_len (dtype float32)",
        "Seconds a call over seq_len (dtype bfloat16)",
    ]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    """Oracle: by hand."""
    files = []
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        files.append(read_micro(written(tmp_path / folder / "micro.json", row("flash", 1.0))))
    files.append(read_micro(written(tmp_path / "third.json", row("flash", 1.0))))
    found = context(files)

    names = ["one/micro.json", "other/micro.json", "third.json"]
    assert [group["title"].partition(" · ")[2] for group in found["groups"]] == names
    assert [one["name"] for one in found["environment"]] == names
    assert [text.partition(" is a session")[0] for text in found["warnings"]] == names


def test_the_numbers_are_in_the_page(file: Any) -> None:
    """Oracle: the packed table, row by row."""
    table = payload(render_micro([file]))["tables"]["calls"]
    columns = dict(zip(table["columns"], table["data"], strict=True))

    assert columns["median_seconds"] == pytest.approx([one.median for one in file.rows])
    assert set(columns["cache"]) == {"hot", "cold"}


def test_report_writes_the_page_of_files_told_by_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: two files of two sessions on one page, no time compared over them."""
    first = written(tmp_path / "one.json", row("math", 1e-3, seq_len=64))
    second = written(tmp_path / "two.json", row("math", 2e-3, seq_len=64))
    page = write_report([first, second], tmp_path / "page.html")
    html = page.read_text()

    assert f"page: {page}" in capsys.readouterr().out
    assert "one.json" in html
    assert "no time is compared over files" in html


def test_a_file_of_another_project_makes_a_page_too(tmp_path: Path) -> None:
    """Oracle: no operation, no extra_info; the name and the seconds stand."""
    plain = {**row("x", 1.5, seq_len=64), "extra_info": {}, "group": "theirs", "params": None}
    html = render_micro([read_micro(written(tmp_path / "a.json", plain))])

    assert "theirs" in html
    assert "1.50 s" in html


def widest(path: Path, varying: int) -> Any:
    """Write rows as wide as they come: so many options vary, launches are timed, one is bound."""
    vary = {"padding": 0.25, "dtype": "bfloat16", "direction": "backward", "batch_size": 32,
            "heads": 16, "head_size": 128}  # fmt: skip
    changed = dict(list(vary.items())[: varying - 1])
    usual = {"host_us": 517.3, "host_bound": True, "ceiling": "bfloat16 matrix products"}
    names = ("flash", "my_kernels.attention:flash_attention")
    rows = [row(name, 1.234e-3, seq_len=512, **usual) for name in names]
    rows += [row(name, 123.4e-6, seq_len=4096, **usual, **changed) for name in names]
    return read_micro(written(path, *rows))


@pytest.mark.browser
@pytest.mark.parametrize("varying", [1, 4, 7])
@pytest.mark.parametrize("width", [400, 720, 1280])
def test_the_page_fits_and_makes_no_error(
    tmp_path: Path, chromium: Any, width: int, varying: int
) -> None:
    """Oracle: Chromium: no script error, nothing wider than its box, a button for the table."""
    page = tmp_path / "page.html"
    page.write_text(render_micro([widest(tmp_path / "a.json", varying)]))
    context = chromium.new_context(viewport={"width": width, "height": 900})
    view, troubles = context.new_page(), []
    view.on("pageerror", lambda error: troubles.append(str(error)))
    view.goto(page.as_uri())
    view.wait_for_selector("html[data-ready=yes]", timeout=30_000)
    hidden = "[...document.querySelectorAll('.box')].map(box => box.scrollWidth - box.clientWidth)"

    assert troubles == []
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert max(view.evaluate(hidden)) <= 0
    assert view.locator("#downloads button").count() == 1
    context.close()
