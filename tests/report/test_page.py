"""The page holds every cell, asks nothing of a network, escapes all, and stays small."""

from __future__ import annotations

import base64
import gzip
import itertools
import math
import re

import pandas as pd
import pytest
from parsed_pages import parsed, payload
from simulated_results import SimulatedResults, session, simulated

from bertopt_bench.errors import UserError
from bertopt_bench.report import figures, page, rows, sentences
from bertopt_bench.stats.facts import gather


@pytest.fixture(scope="module")
def results() -> SimulatedResults:
    return simulated()


@pytest.fixture(scope="module")
def html(results) -> str:
    return page.render([results])


def test_the_page_is_well_formed_and_has_a_row_for_every_cell(html, results) -> None:
    structure = parsed(html)

    assert structure.open == []
    assert structure.rows == results.trials["cell_id"].nunique() == 24


def test_nothing_outside_is_asked_for(html) -> None:
    """Every address in an attribute is a fragment or data, and the policy forbids the rest."""
    structure = parsed(html)

    links = {v for _, name, v in structure.attributes if name in {"href", "src", "action", "data"}}
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    policy = [v for _, name, v in structure.attributes if name == "content" and "default-src" in v]
    assert "default-src 'none'" in policy[0]
    assert "http" not in policy[0]
    assert not re.search(r"url\(|@import", html.split('id="data-packed"')[0])


def test_text_from_results_never_becomes_markup() -> None:
    """Reasons, labels, levels, session fields and warnings carry HTML; all of it stays text."""
    attack = '</script><img src=x onerror=alert(1)><b a="'
    hostile = simulated(("adamw", attack), points=2)
    hostile.trials.loc[0, ["status", "reason"]] = ["failed", attack]
    hostile.sessions[0]["machine"]["cpu"] = attack
    hostile.sessions[0]["matrix"] = {"name": attack, "source": f"# {attack}"}
    hostile.warnings.append(attack)

    structure = parsed(page.render([hostile]))

    assert not any(tag == "img" or name == "onerror" for tag, name, _ in structure.attributes)
    assert structure.open == []
    assert "".join(structure.text).count(attack) > 8


def test_the_embedded_data_are_the_frames(html, results) -> None:
    """Oracle: the frames themselves, to six significant digits."""
    tables = payload(html)["tables"]

    for name in ("trials", "steps", "evaluations"):
        table, frame = tables[name], getattr(results, name)
        for column, values in zip(table["columns"], table["data"], strict=True):
            for got, expected in zip(values, frame[column], strict=True):
                if isinstance(expected, (int, float)) and not pd.isna(expected):
                    assert got == pytest.approx(expected, rel=1e-5)
                else:
                    assert got == (None if pd.isna(expected) else expected)
    assert set(results.trials.columns) - set(tables["trials"]["columns"]) == set()


def test_one_run_is_marked_and_not_ranked(html) -> None:
    rows = html.split('id="rows"')[1].split("</tbody>")[0].split("<tr ")[1:]
    (single,) = [row for row in rows if "one-run" in row]

    assert "class=one" in single
    assert single.split("<td>")[1] == "–"  # noqa: RUF001 - the page's dash
    assert "<small>" not in single
    assert sum("untuned" in row for row in rows) == 22


def test_a_recorded_ledger_takes_the_mark_away() -> None:
    tuned = simulated(("adamw",), points=2)
    tuned.trials["tuning_ledger"] = "ledger-7"

    assert 'class="untuned"' not in page.render([tuned])


def test_skipped_failed_and_diverged_cells_stand_with_their_reasons(html) -> None:
    text = " ".join(parsed(html).text)

    for reason in ("excluded: sgd with bf16", "training loss is NaN at step 61", "RuntimeError"):
        assert reason in text


@pytest.mark.slow
def test_a_thousand_trials_stay_below_two_and_a_half_megabytes() -> None:
    optimizers = tuple(f"optimizer_{i}" for i in range(13))
    large = simulated(
        optimizers, ("linear", "cosine", "wsd", "step"), ("none", "l1", "l2", "ema", "clip"),
        (1, 2), 40,
    )  # fmt: skip

    html = page.render([large])

    assert len(large.trials) > 1000
    assert len(html.encode()) < 2_500_000
    assert "leaves out the" in html
    assert "evaluations (a trial keeps" in html


def test_thinning_keeps_first_and_last_and_at_most_what_is_asked() -> None:
    frame = pd.DataFrame(
        {"trial": [0] * 101 + [1] * 3, "step": [*range(101), 0, 5, 9], "loss": 1.0}
    )

    kept = figures.thin(frame, 10)

    long, short = (kept[kept["trial"] == code]["step"].tolist() for code in (0, 1))
    assert len(long) == 10
    assert (long[0], long[-1]) == (0, 100)
    assert short == [0, 5, 9]
    gaps = [b - a for a, b in itertools.pairwise(long)]
    assert max(gaps) - min(gaps) <= 1


def test_the_library_is_the_installed_plotlys_own() -> None:
    """Oracle: the file in the plotly package, licence header included."""
    from plotly.offline import get_plotlyjs

    packed = figures.plotting_library()

    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert len(packed) < 2_000_000


def empty() -> SimulatedResults:
    return SimulatedResults([], pd.DataFrame(), pd.DataFrame(), pd.DataFrame())


def skipped_only() -> SimulatedResults:
    results = simulated(("adamw",), points=2)
    results.trials["status"], results.trials["reason"] = "skipped", "no such device"
    measured = ["final_loss", "tokens_per_second", "peak_memory_bytes", "step_seconds"]
    results.trials[measured] = math.nan
    return SimulatedResults([session()], results.trials, pd.DataFrame(), pd.DataFrame())


def one_trial() -> SimulatedResults:
    results = simulated(("adamw",), ("linear",), ("none",), (1,), 2)
    return SimulatedResults([], results.trials[:1], results.steps, results.evaluations)


@pytest.mark.parametrize("make", [empty, skipped_only, one_trial])
def test_poor_result_sets_still_make_a_page(make) -> None:
    structure = parsed(page.render([make()], title="Poor"))

    assert structure.open == []
    assert "Poor" in "".join(structure.text)


def test_sets_are_joined_without_mixing_their_trials() -> None:
    """Trial codes restart in each set: curves must follow their own trial."""
    first, second = simulated(("adamw",), points=2), simulated(("lion",), points=2)

    frames = page.joined([first, second])

    assert frames["trials"]["trial"].is_unique
    late = frames["evaluations"].merge(frames["trials"][["trial", "optimizer"]], on="trial")
    assert len(late) == len(first.evaluations) + len(second.evaluations)
    assert (late["optimizer"] == "lion").sum() == len(second.evaluations)


def test_writing_replaces_whole_files_only(tmp_path, results, monkeypatch) -> None:
    target = tmp_path / "new" / "page.html"
    assert page.write([results], target) == target
    before = target.read_text(encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page.Path, "replace", full)
    with pytest.raises(UserError, match="No space left on device") as caught:
        page.write([results], target)

    assert str(target) in str(caught.value)
    assert "bertopt-bench report RESULTS --output FILE" in str(caught.value)
    assert target.read_text(encoding="utf-8") == before
    assert [p.name for p in target.parent.iterdir()] == ["page.html"]


def test_a_file_in_the_place_of_a_folder_is_the_users_to_mend(tmp_path) -> None:
    """Oracle: the house rule on errors; root may write anywhere, so no permission is taken away."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()

    for target in (tmp_path / "file" / "page.html", tmp_path / "folder"):
        with pytest.raises(UserError, match="report RESULTS --output FILE") as caught:
            page.write([empty()], target)
        assert str(target) in str(caught.value)
    assert list((tmp_path / "folder").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_the_sentences_state_what_the_frames_hold(results) -> None:
    """Oracle: counts and extremes computed here from the frame."""
    facts = gather(results.trials)
    ran, trained, cost = sentences.summary(facts)

    assert "24 cells (3 optimizers" in ran
    assert "70 trials over 3 seeds: 62 ran to the end, 6 skipped, 1 failed and 1 diverged" in ran
    finished = results.trials[results.trials["status"] == "ok"]
    lowest = finished.groupby("cell_id")["final_loss"].median().min()
    assert f"between {lowest:.3f} nats" in trained
    assert "n = 3 seeds" in trained
    assert "sgd against adamw by +1." in trained
    assert "tokens/s" in cost
    assert "MiB" in cost


def test_methods_come_from_the_plan(results) -> None:
    text = " ".join(sentences.methods(gather(results.trials), results.sessions))

    for stated in ("order seed 20261124", "600 s", "3 untimed burn-in steps", "3 seeds (1, 2, 3)",
                   "sgd with bf16 is asked elsewhere"):  # fmt: skip
        assert stated in text


def test_methods_state_what_was_declared_not_what_the_file_said(results) -> None:
    """Oracle: by hand: `--set` changed every value that the file in the session has."""
    declared = {
        "timing": {"steps": None, "burn_in_steps": 7, "timeout_seconds": 42.0, "phase_steps": 3},
        "allow": ["fp16_on_cpu"],
        "exclusions": ["too slow here"],
    }
    told = " ".join(
        sentences.methods(gather(results.trials), [{**session(), "declared": declared}])
    )

    for stated in (
        "7 untimed burn-in steps",
        "42 s",
        "rule: fp16_on_cpu.",
        "matrix: too slow here.",
    ):
        assert stated in told
    for unsaid in ("600 s", "3 untimed", "sgd with bf16 is asked elsewhere", "session 2026"):
        assert unsaid not in told


def test_methods_cover_every_session(results) -> None:
    """Oracle: by hand: of three sessions the second had another limit and allowed a rule."""
    other = {"timing": {"burn_in_steps": 3, "timeout_seconds": 42.0}, "allow": ["fp16_on_cpu"]}
    made = [session("a"), {**session("b"), "declared": other}, session("c")]
    told = " ".join(sentences.methods(gather(results.trials), made))

    assert "In sessions a and c a trial ran 3 untimed burn-in steps and was stopped" in told
    assert "after 600 s. In session b a trial" in told
    assert "skip rule (session b): fp16_on_cpu." in told
    assert told.count("sgd with bf16 is asked elsewhere") == 1


def test_the_share_of_the_limit_is_a_column_with_n_spread_and_dashes(results) -> None:
    """Oracle: the frame's own shares in per cent; of 24 cells 2 are skipped and 1 has no limit."""
    made = simulated(points=2)
    silent = made.trials["label"] == "lion · linear · none · fp32"
    made.trials.loc[silent, "ceiling_share"] = math.nan
    made.sessions[0]["ceilings"] = [{"values": {"matmul_size": 2048}}]
    facts = gather(made.trials)
    columns = rows.number_columns(facts)
    at = [column.title for column in columns].index("share of limit")
    found = {row["label"]: row["numbers"][at] for row in rows.table_rows(facts, columns)}
    kept = (
        made.trials[made.trials["label"] == "adamw · linear · none · fp32"]["ceiling_share"] * 100
    )

    assert (columns[at].unit, columns[at].key) == ("%", "ceiling_share")
    assert found["adamw · linear · none · fp32"] == (
        f"{kept.median():.1f}",
        f"{kept.min():.1f}–{kept.max():.1f} · n 3",  # noqa: RUF001 - the page's dash
    )
    assert found["lion · linear · none · fp32"] is None
    html = page.render([made])
    assert "fastest square matrix product (edge 2,048)" in html
    assert sum("ceiling_share" in cell["values"] for cell in payload(html)["cells"]) == 21
    (row,) = [r for r in html.split("<tr ") if "lion<td>linear<td>none<td>fp32" in r]
    assert "<td class=n>–" in row  # noqa: RUF001 - the page's dash
    made.trials["ceiling_share"] = math.nan
    assert "hare of limit" not in page.render([made])


def test_many_axes_share_one_column_of_labels() -> None:
    """Oracle: by hand: five axes vary; the head and each row name the cell, by its label."""
    made = simulated(("adamw", "lion"), ("linear",), ("none",), points=2)
    for number in range(4):
        made.trials[f"kernel.of_{number}"] = ["a" if one == "adamw" else "b" for one in
                                              made.trials["optimizer"]]  # fmt: skip
    few = gather(made.trials)
    made.trials["kernel.of_4"] = made.trials["kernel.of_3"]
    facts = gather(made.trials)
    html = page.render([made])

    assert (len(facts.axes), rows.table_axes(facts)) == (len(few.axes) + 1, ())
    assert len(facts.axes) > rows.MOST_AXIS_COLUMNS
    assert '<th scope="col" data-key="label">cell' in html
    assert 'data-key="axis:' not in html
    assert "<td>adamw · linear · none · fp32" in html


def test_epochs_seen_are_a_column_and_flagged_above_one() -> None:
    """Oracle: the frame's own value; without any there is no column."""
    made = simulated(("adamw", "lion"), ("linear",), ("none",), points=2)
    made.trials["epochs_seen"] = 0.5
    made.trials.loc[made.trials["optimizer"] == "lion", "epochs_seen"] = 2.25
    facts = gather(made.trials)
    columns = rows.number_columns(facts)

    assert (columns[-1].title, columns[-1].unit) == ("text seen", "times")
    found = {row["label"]: row for row in rows.table_rows(facts, columns)}
    assert found["adamw · linear · none · fp32"]["numbers"][-1] == ("0.500", "0.500 · n 3")
    flags = {label: [text for _, text in row["marks"]] for label, row in found.items()}
    assert "text seen 2.2 times" in flags["lion · linear · none · fp32"]
    assert not any("text seen" in text for text in flags["adamw · linear · none · fp32"])
    made.trials["epochs_seen"] = math.nan
    assert "text seen" not in [c.title for c in rows.number_columns(gather(made.trials))]


def test_unlike_texts_are_never_compared_in_the_sentences() -> None:
    results = simulated(("adamw",), points=2)
    results.trials.loc[results.trials["schedule"] == "cosine", "evaluation_sha256"] = "other"

    trained = sentences.how_it_trained(gather(results.trials))

    assert "2 different held-out texts" in trained
