"""The page of duels: the answer first, every number with its n and spread, nothing left out."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import math
import re
import statistics
from typing import Any

import pytest
import simulated_results
from parsed_pages import parsed, payload
from simulated_duels import calibrated, duel, only, plain, rich

from bertopt_bench.report import duel_data, duel_forests, duel_wording, page
from bertopt_bench.report.duel_facts import gather
from bertopt_bench.results.duels import Block, Verdicts
from bertopt_bench.results.store import ResultsFolder
from bertopt_bench.results.tables import Results, load_results


@functools.cache
def rendered(name: str) -> str:
    return page.render([{"plain": plain, "rich": rich, "calibrated": calibrated}[name]()])


def text_of(html: str) -> str:
    return " ".join(" ".join(parsed(html).text).split())


@pytest.mark.parametrize("name", ["plain", "rich", "calibrated"])
def test_pages_are_whole_small_and_ask_nothing_of_a_network(name) -> None:
    html = rendered(name)
    structure = parsed(html)

    assert structure.open == []
    links = {v for _, key, v in structure.attributes if key in {"href", "src", "action", "data"}}
    assert all(link.startswith(("#", "data:")) for link in links)
    (policy,) = [v for _, key, v in structure.attributes if key == "content" and "default-src" in v]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert not re.search(r"url\(|@import", html.split('id="data-packed"')[0])
    assert len(html.encode()) < 2_500_000
    ids = [value for _, key, value in structure.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_every_verdict_has_its_row_with_all_that_stands_behind_it() -> None:
    """Oracle: the stored findings; ratios are the exponents of their estimates."""
    html = rendered("rich")
    table = html.split('id="verdicts"')[1].split("</section>")[0]
    lines = [re.sub("<[^>]*>", " ", line) for line in table.split("<tr>")[2:]]

    findings = only(rich()).findings
    assert len(lines) == len(findings) == 12
    for line, one in zip(lines, findings, strict=True):
        words = " ".join(line.split())
        assert words.startswith(f"{one.arm} against adamw")
        assert one.verdict in words
        value = math.exp(one.estimate) if one.metric != "loss" else abs(one.estimate)
        assert (f"{value:.4f}" if value < 0.1 else f"{value:.3f}") in words
        assert f" {one.n} " in words
        if one.metric == "step_time":
            assert f"{math.exp(one.low):.3f} to {math.exp(one.high):.3f}" in words
            assert f"{math.expm1(one.noise_floor):.1%}".replace("%", "\N{NO-BREAK SPACE}%") in line
        if one.needed_replicates:
            assert f"needs n = {one.needed_replicates}" in words


def test_verdicts_are_told_by_word_mark_and_colour() -> None:
    """Colour alone would leave out whoever cannot see it: each kind has a shape of its own."""
    assert len(set(duel_forests.SHAPES.values())) == len(duel_forests.SHAPES)
    assert len(set(duel_wording.ICONS.values())) == len(duel_wording.ICONS)
    assert set(duel_wording.ICONS) == set(duel_forests.SHAPES)
    html = rendered("plain")
    for kind, word in (("worse", "slower"), ("better", "faster"), ("same", "equivalent")):
        icon = duel_wording.ICONS[kind]
        assert f'<span class="verdict {kind}"><span aria-hidden="true">{icon}</span> {word}' in html


def test_absolute_times_are_medians_of_replicate_medians_of_this_session_only() -> None:
    """Oracle: `statistics.median` of the blocks, replicate by replicate."""
    medians = [
        statistics.median(b.wall_seconds / b.steps for b in r.blocks if b.arm == "lion")
        for r in plain().replicates
    ]
    found = only(plain()).step_seconds("lion")

    assert (found.n, found.low, found.high) == (12, min(medians), max(medians))
    assert found.median == pytest.approx(statistics.median(medians))
    html = rendered("plain")
    assert "<b>this session only</b>" in html
    assert f"{min(medians) * 1e3:.1f} to {max(medians) * 1e3:.1f} ms, n 12" in html


def test_controls_show_the_noise_floor_and_the_delay_that_was_really_put_in() -> None:
    """Oracle: half of the stored interval's width, and the blocks' injected seconds."""
    one = only(rich())
    control = one.control("step_time")
    section = rendered("rich").split('id="controls-shown"')[1].split("</section>")[0]
    text = re.sub("<[^>]*>", " ", section)

    half = (control.gate_high - control.gate_low) / 2
    assert f"{math.expm1(half):.1%}".replace("%", "\N{NO-BREAK SPACE}%") in text
    assert control.noise_floor == pytest.approx(half)
    assert one.realised("slowed by 5 %") == pytest.approx(0.05)
    assert "asked for 5\N{NO-BREAK SPACE}% of each measured step" in text
    assert "realised 5.0\N{NO-BREAK SPACE}%" in text
    assert "at most 11.2\N{NO-BREAK SPACE}%" in text


def test_the_embedded_data_are_the_replicates_blocks_and_steps() -> None:
    """Oracle: the replicates themselves, to six significant digits."""
    tables = payload(rendered("plain"))["tables"]

    def column(table, name) -> list[Any]:
        return tables[table]["data"][tables[table]["columns"].index(name)]

    blocks = [block for replicate in plain().replicates for block in replicate.blocks]
    assert column("blocks", "wall_seconds") == pytest.approx(
        [block.wall_seconds for block in blocks], rel=1e-5
    )
    assert column("blocks", "arm") == [block.arm for block in blocks]
    steps = [seconds for block in blocks for seconds in block.step_seconds]
    assert column("steps", "step_seconds") == pytest.approx(steps, rel=1e-5)
    one = only(plain())
    expected = [d for f in (*one.findings, *one.controls) for d in f.differences]
    assert column("differences", "difference") == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert column("findings", "verdict")[:3] == [f.verdict for f in one.findings[:3]]
    assert len(column("replicates", "hash_seed")) == 12 * 5


def test_a_page_of_twelve_arms_and_thirty_replicates_stays_small() -> None:
    arms = {f"arm{number}": 0.001 * number for number in range(12)}
    large = duel(arms, replicates=30, metrics=("step_time",), looks=(30,), rounds=8)

    html = page.render([large])

    assert len(html.encode()) < 2_500_000
    assert "12 comparisons: " in html


def test_single_steps_are_left_out_first_and_that_is_told() -> None:
    """Oracle: by count: every block has 12 steps, every comparison 12 replicates."""
    duels = gather([calibrated()])

    packed = duel_data.pack(duels, 0)

    tables = json.loads(gzip.decompress(base64.b64decode(packed.text)))["tables"]
    steps = 12 * sum(len(one.blocks) for one in duels)
    assert packed.left_out[0] == f"the {steps:,} rows of single steps"
    assert "steps" not in tables
    assert len(tables["differences"]["data"][0]) == (18 + 6) * 12


def test_many_sessions_begin_with_counts_and_a_row_each() -> None:
    """Oracle: 12 A/A sessions and 6 with a slowed arm, counted from the simulation's verdicts."""
    results = calibrated()
    html, text = rendered("calibrated"), text_of(rendered("calibrated"))
    found = [Verdicts.model_validate(s.verdicts[-1]) for s in results.sessions]

    assert html.count('<details class="session"') == 18
    assert html.count('<details class="session" id="session-1" open>') == 0
    alarms = sum(v.controls[0].p_any <= 0.01 for v in found)
    slower = sum(f.verdict == "slower" for v in found for f in v.findings)
    assert f"{alarms} of 18 A/A duels gave a false alarm at alpha 1 %" in text
    assert f"An injected 5 % was found in {slower} of 6 duels" in text
    overview = html.split('id="sessions"')[1].split("</section>")[0]
    assert overview.count("<tr>") == 19
    across = html.split('id="across"')[1].split("</section>")[0]
    assert across.count('class="forest"') == 18 + 6
    assert across.count('class="target"') == 6


def test_sessions_are_never_pooled_and_unlike_cells_never_merged() -> None:
    """Two sessions of one cell agree in a line; the same labels over another cell get their own."""
    first, second = (
        duel(
            {"lion": 0.08},
            name=f"2026-11-24T0{seed}-10-00Z-7f3a",
            seed=seed,
            metrics=("step_time",),
        )
        for seed in (1, 2)
    )
    declared = dict(second.sessions[0].declared["duel"])
    other = [dict(arm) for arm in declared["arms"]]
    for arm in other:
        arm["cell_id"] += "-large"
        arm["cell"] = {**arm["cell"], "workload": {**arm["cell"]["workload"], "model": "mini"}}
    moved = second.sessions[0].model_copy(
        update={"declared": {"duel": {**declared, "arms": other}}}
    )
    unlike = Results(second.path, (moved,), (), (), second.replicates)

    alike, apart = (text_of(page.render([first, r])) for r in (second, unlike))

    assert "2 sessions were run; times are never pooled over them." in alike
    assert "lion against adamw, step time : 2 of 2 slower" in alike
    assert "2 of 2" not in apart
    assert "lion against adamw (tiny), step time : 1 of 1 slower" in apart
    assert "lion against adamw (mini), step time : 1 of 1 slower" in apart


def test_text_from_results_never_becomes_markup() -> None:
    """Labels, reasons, machine, versions and warnings carry HTML; all of it stays text."""
    attack = '</script><img src=x onerror=alert(1)><b a="'
    hostile = duel(
        {attack: 0.05},
        verdict_fields={"state": "too_noisy", "reasons": (attack,), "calibration": {}},
        losses={},
        metrics=("step_time", "loss"),
    )
    session = hostile.sessions[0].model_copy(
        update={"machine": {"cpu_model": attack}, "matrix": {"name": attack, "source": attack}}
    )
    results = Results(hostile.path, (session,), hostile.records, (attack,), hostile.replicates)

    structure = parsed(page.render([results]))

    assert not any(tag == "img" or name == "onerror" for tag, name, _ in structure.attributes)
    assert structure.open == []
    assert "".join(structure.text).count(attack) > 12


def refused() -> Results:
    results = duel({"lion": 0.05})
    broken = results.replicates[3].model_copy(
        update={"status": "out_of_memory", "reason": "'lion' died"}
    )
    replicates = (*results.replicates[:3], broken)
    verdicts = Verdicts.model_validate(results.sessions[0].verdicts[-1])
    found = [
        f.model_copy(update={"verdict": "refused", "reason": "replicate 3: 'lion' died", "n": 3,
                             **dict.fromkeys(("estimate", "low", "high", "p_more", "p_less"))})
        for f in verdicts.findings
    ]  # fmt: skip
    said = verdicts.model_copy(
        update={
            "state": "invalid",
            "reasons": ("replicate 3: 'lion' died",),
            "findings": tuple(found),
        }
    )
    session = results.sessions[0].model_copy(update={"verdicts": (said.model_dump(mode="json"),)})
    return Results(results.path, (session,), (), (), replicates)


def without_replicates() -> Results:
    """Losses alone: nothing was timed, so there is no replicate."""
    full = duel(
        {"lion": 0.0},
        losses={"lion": -0.05},
        metrics=("loss",),
        seeds=tuple(range(8)),
        replicates=0,
    )
    assert full.replicates == ()
    return full


POOR = {
    "interrupted": (lambda: duel(judged=False), "ended before its first look"),
    "nothing": (lambda: duel(judged=False, replicates=0), "ended before its first look"),
    "refused": (refused, "refused, because replicate 3: 'lion' died"),
    "losses alone": (without_replicates, "lion ends at a lower loss than adamw"),
    "four replicates": (lambda: duel(replicates=4, looks=(4,)), "4 of at least 6 replicates"),
    "A/A alone": (lambda: duel({}), "No comparison was declared"),
}


@pytest.mark.parametrize("name", POOR)
def test_poor_sessions_still_make_a_page_that_says_why(name) -> None:
    make, expected = POOR[name]
    html = page.render([make()])

    assert parsed(html).open == []
    assert expected in text_of(html).replace(" : ", ": ")


def test_noise_and_refusal_stand_before_the_answer() -> None:
    reason = "the hypervisor gave 3.1% of the CPU time to other machines (at most 2%)"
    html = page.render([duel(verdict_fields={"state": "too_noisy", "reasons": (reason,)})])

    assert html.index("Too noisy for a direction.") < html.index('class="answers"')
    assert reason in html


def test_a_folder_of_both_shows_the_duel_and_the_trials() -> None:
    both = page.render([simulated_results.simulated(points=2), plain()])

    text = text_of(both)
    assert "lion is slower than adamw" in text
    assert "trials of run besides the duels" in text
    assert "70 trials over 3 seeds" in text
    assert 'class="answers"' not in page.render([simulated_results.simulated(points=2)])


def test_the_page_of_what_lies_on_disk_is_the_page_of_what_was_measured(tmp_path) -> None:
    """Oracle: the same page from memory."""
    made = rich()
    with ResultsFolder.open(tmp_path / "duel", "9b1c77aa02") as store:
        session = made.sessions[0]
        fields = session.model_dump(exclude={"ceilings", "verdicts", "end", "schema_version"})
        store.start_session(fields)
        for one in made.replicates:
            store.append_replicate(one)
        for record in made.records:
            store.append(record.model_dump())
        store.append_session_event({"kind": "verdicts", **session.verdicts[-1]})

    loaded = load_results(tmp_path / "duel")

    assert page.render([loaded]) == page.render([made])


def test_arms_are_told_apart_by_what_they_imported_and_addresses_are_no_difference() -> None:
    """Oracle: by hand: one arm imported another torch and ran another revision."""
    results = duel({"lion": 0.05})
    replicates = []
    for one in results.replicates:
        arms = []
        for run in one.arms:
            modules = {**run.imported["modules"]}
            if run.arm == "lion":
                modules["torch"] = {**modules["torch"], "version": "2.14.0+cpu"}
            arms.append(run.model_copy(update={"imported": {**run.imported, "modules": modules}}))
        replicates.append(one.model_copy(update={"arms": tuple(arms)}))
    html = page.render([Results(results.path, results.sessions, (), (), tuple(replicates))])

    differing = html.split("What differs between the arms, ")[1].split("</details>")[0]
    assert "torch.version</th><td>2.13.0+cpu</td><td>2.14.0+cpu</td>" in differing
    assert "7f00" not in html
    assert "optimizer.lr" in differing
    assert "schedule.name" not in differing


def test_blocks_without_disturbance_or_steps_are_no_reason_to_fail() -> None:
    """A system that tells nothing of itself still gets its page."""
    results = duel({"lion": 0.05})
    bare = [
        one.model_copy(
            update={
                "blocks": tuple(
                    Block(**{**b.model_dump(), "disturbance": {}, "step_seconds": ()})
                    for b in one.blocks
                )
            }
        )
        for one in results.replicates
    ]
    html = page.render([Results(results.path, results.sessions, (), (), tuple(bare))])

    assert "What else the machine did" not in html
    assert "steps" not in payload(html)["tables"]
