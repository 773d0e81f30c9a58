"""A gate run from policy to exit code, its duels scripted."""

from __future__ import annotations

import json
from datetime import date
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from scripted_duels import CELLS, POLICY, ScriptedDuels, checkout, git

from bertopt_bench.errors import OutOfBudget, UserError
from bertopt_bench.gate.running import Means, Request, run_gate

if TYPE_CHECKING:
    from pathlib import Path

TODAY = date(2026, 11, 25)
BOTH = POLICY.replace(f'["{CELLS[0]}"]', f'["{CELLS[0]}", "{CELLS[1]}"]')


class Gate(SimpleNamespace):
    """A gate over a scripted checkout: what it exits with, asks and writes."""

    duels: ScriptedDuels
    code: int
    result: dict[str, Any]

    def outcomes(self) -> dict[str, str]:
        return {f"{row['cell']} {row['metric']}": row["outcome"] for row in self.result["rows"]}


def gate(
    folder: Path,
    script: dict[str, list[Any]],
    policy: str = POLICY,
    *,
    duels: dict[str, Any] | None = None,
    means: dict[str, Any] | None = None,
    **request: Any,
) -> Gate:
    """Run a gate in a new checkout."""
    file = checkout(folder / "project", policy)
    scripted = ScriptedDuels({cell: list(words) for cell, words in script.items()}, **(duels or {}))
    asked = Request(
        **{
            "policy": file,
            "checkout": folder / "project",
            "json": folder / "gate.json",
            "results": folder / "results",
            "page": folder / "page.html",
            **request,
        }
    )
    given: dict[str, Any] = {
        "run_duel": scripted,
        "compare": None,
        "write_page": lambda folders, page: page.write_text(str(len(folders))),
        "today": lambda: TODAY,
        "environ": {},
        **(means or {}),
    }
    code = run_gate(asked, Means(**given))
    written = folder / "gate.json"
    result = json.loads(written.read_text()) if written.exists() else {}
    return Gate(duels=scripted, code=code, result=result)


@pytest.mark.parametrize(
    ("words", "sessions", "code", "strict", "outcome"),
    [
        (["equivalent"], 1, 0, 0, "passed"),
        (["faster"], 1, 0, 0, "passed"),
        (["inconclusive"], 1, 0, 4, "inconclusive"),
        (["slower", "slower"], 2, 1, 1, "regression"),
        (["slower", "equivalent"], 2, 0, 0, "not_confirmed"),
        (["slower", "inconclusive"], 2, 0, 4, "not_confirmed"),
        (["too_noisy", "equivalent"], 2, 0, 0, "passed"),
        (["too_noisy", "too_noisy"], 2, 0, 4, "too_noisy"),
        (["too_noisy", "slower", "slower"], 3, 1, 1, "regression"),
        (["slower", "too_noisy", "slower"], 3, 1, 1, "regression"),
        (["slower", "too_noisy", "too_noisy"], 3, 0, 4, "unconfirmed"),
        (["refused"], 1, 3, 3, "refused"),
        (["invalid"], 1, 3, 3, "refused"),
        (["slower", "invalid"], 2, 3, 3, "refused"),
        ([ZeroDivisionError("in the statistics")], 1, 3, 3, "refused"),
        (["slower", RuntimeError("worker gone")], 2, 3, 3, "refused"),
        (["slower", UserError("cannot be asked")], 2, 3, 3, "refused"),
        ([OutOfBudget("a replicate takes 90 s")], 0, 0, 4, "inconclusive"),
        (["slower", OutOfBudget("a replicate takes 90 s")], 1, 0, 4, "unconfirmed"),
    ],
)
def test_every_course_of_one_cell(
    tmp_path: Path, words: list[Any], sessions: int, code: int, strict: int, outcome: str
) -> None:
    """Oracle: the design's exit codes, by hand; every session is in the result."""
    plain, asking = tmp_path / "plain", tmp_path / "strict"
    plain.mkdir()
    asking.mkdir()
    run = gate(plain, {CELLS[0]: words})
    strictly = gate(asking, {CELLS[0]: words}, strict=True)

    assert (run.code, strictly.code) == (code, strict)
    assert run.result["exit_code"] == code
    assert run.outcomes() == {f"{CELLS[0]} step_time": outcome}
    assert len(run.result["sessions"]) == len(run.result["rows"][0]["sessions"]) == sessions
    assert run.duels.script[CELLS[0]] == []  # nothing was run that was not needed


def test_each_session_is_a_new_one_for_what_was_rejected_only(tmp_path: Path) -> None:
    """Oracle: the specs, by hand: of four rows the second session asks one."""
    slower = ("step_time", "anchor", "head")
    policy = POLICY + 'metric = ["step_time", "peak_memory"]\n'
    run = gate(tmp_path, {CELLS[0]: [{slower: "slower"}, "slower"]}, policy, anchor="v1.0")
    first, second = run.duels.asked

    assert run.code == 1
    assert [arm.label for arm in first.arms] == ["base", "anchor", "head"]
    assert [arm.label for arm in second.arms] == ["anchor", "head"]
    assert first.comparisons == (("base", "head"), ("anchor", "head"))
    assert second.comparisons == (("anchor", "head"),)
    assert (first.metrics, second.metrics) == (("step_time", "peak_memory"), ("step_time",))
    assert first.results != second.results
    assert first.arms[2].revision is None
    assert first.arms[1].revision == git(tmp_path / "project", "rev-parse", "v1.0")
    assert first.arms[0].revision == git(tmp_path / "project", "rev-parse", "HEAD")
    assert (first.sides, first.looks, first.purpose) == (1, (12,), "gate")
    assert first.family_error == pytest.approx(0.0372678 / 2)  # two metrics of one cell
    outcomes = [(row["metric"], row["baseline"], row["outcome"]) for row in run.result["rows"]]
    assert outcomes == [
        ("step_time", "base", "passed"),
        ("step_time", "anchor", "regression"),
        ("peak_memory", "base", "passed"),
        ("peak_memory", "anchor", "passed"),
    ]


def test_second_sessions_come_after_all_first_ones(tmp_path: Path) -> None:
    """Oracle: the order of the scripted cells; the gravest row gives the exit code."""
    run = gate(tmp_path, {CELLS[0]: ["slower", "slower"], CELLS[1]: ["invalid"]}, BOTH)

    assert [spec.base[0] for spec in run.duels.asked] == [CELLS[0], CELLS[1], CELLS[0]]
    assert run.code == 1
    assert list(run.outcomes().values()) == ["regression", "refused"]


def test_one_session_handed_in_twice_confirms_nothing(tmp_path: Path) -> None:
    """Oracle: two independent sessions are needed, by name at least."""

    class Same(ScriptedDuels):
        def __call__(self, spec: Any) -> Any:
            return SimpleNamespace(**{**vars_of(super().__call__(spec)), "session": "same"})

    def vars_of(outcome: Any) -> dict[str, Any]:
        return {"verdicts": outcome.verdicts, "elapsed_seconds": outcome.elapsed_seconds}

    script = {CELLS[0]: ["slower", "slower"]}
    run = gate(tmp_path, script, means={"run_duel": Same({CELLS[0]: ["slower", "slower"]})})

    assert run.code == 3
    assert "not a new one" in run.result["rows"][0]["reason"]


def test_a_session_that_leaves_a_row_out_is_refused(tmp_path: Path) -> None:
    """Oracle: what was declared must be answered."""

    class Silent(ScriptedDuels):
        def __call__(self, spec: Any) -> Any:
            outcome = super().__call__(spec)
            verdicts = outcome.verdicts.model_copy(update={"findings": ()})
            return SimpleNamespace(session="s", verdicts=verdicts, elapsed_seconds=1.0)

    run = gate(tmp_path, {}, means={"run_duel": Silent({CELLS[0]: ["equivalent"]})})

    assert run.code == 3
    assert run.result["rows"][0]["reason"] == "the session does not judge it"


@pytest.mark.parametrize(
    ("budget", "seconds", "sessions", "code", "words"),
    [
        ("250s", 100.0, 2, 1, ""),
        ("150s", 100.0, 1, 0, "the budget of 150 s has 50 s left"),
        ("90s", 100.0, 1, 0, "has 0 s left"),
    ],
)
def test_a_budget_that_is_spent_leaves_the_question_open(
    tmp_path: Path, budget: str, seconds: float, sessions: int, code: int, words: str
) -> None:
    """Oracle: by hand: a second session starts only where what the first took is left."""
    run = gate(
        tmp_path, {CELLS[0]: ["slower", "slower"]}, duels={"seconds": seconds}, budget=budget
    )

    assert (len(run.duels.asked), run.code) == (sessions, code)
    assert run.duels.asked[0].budget_seconds == float(budget[:-1]) / 2
    assert any(words in warning for warning in run.result["warnings"]) or not words
    if code == 0:
        assert run.outcomes() == {f"{CELLS[0]} step_time": "unconfirmed"}


def test_the_budget_is_shared_by_the_cells(tmp_path: Path) -> None:
    """Oracle: by hand: half of 400 s for two first sessions, the rest for the one that confirms."""
    script = {CELLS[0]: ["equivalent"], CELLS[1]: ["slower", "slower"]}
    run = gate(tmp_path, script, BOTH + 'budget = "400s"\n', duels={"seconds": 90.0})

    assert [spec.budget_seconds for spec in run.duels.asked] == [100, 100, 220]
    assert run.code == 1


def test_replicates_that_a_budget_cut_are_said(tmp_path: Path) -> None:
    """Oracle: 8 of the 12 that the policy asks for by default."""
    (tmp_path / "free").mkdir()
    run = gate(tmp_path, {CELLS[0]: ["equivalent"]}, duels={"replicates": 8}, budget="20m")
    free = gate(tmp_path / "free", {CELLS[0]: ["equivalent"]}, duels={"replicates": 8})

    assert "paid for 8 of 12 replicates in session session-1" in str(run.result["warnings"])
    assert "replicates" not in str(free.result["warnings"])


ACCEPTED = f"""
[[accepted]]
cell = "{CELLS[0]}"
metric = "step_time"
bound = "8%"
reason = "exact softmax"
expiry = 2026-11-25
"""


def test_an_accepted_slow_down_raises_the_margin_and_is_listed(tmp_path: Path) -> None:
    """Oracle: the last day counts; 3 % is beyond the margin of 2 % and within 8 %."""
    duels = {"fields": {"gate_low": 0.03}}
    run = gate(tmp_path, {CELLS[0]: ["equivalent"]}, POLICY + ACCEPTED, duels=duels)

    assert run.code == 0
    assert run.duels.asked[0].margins == {"step_time": 0.08}
    assert run.outcomes() == {f"{CELLS[0]} step_time": "accepted"}
    row = run.result["rows"][0]
    assert row["reason"] == "exact softmax"
    assert row["accepted"] == {"bound": 0.08, "reason": "exact softmax", "expiry": "2026-11-25"}


def test_an_expired_acceptance_counts_no_more_and_says_so(tmp_path: Path) -> None:
    """Oracle: the day after."""
    means = {"today": lambda: date(2026, 11, 26)}
    run = gate(tmp_path, {CELLS[0]: ["slower", "slower"]}, POLICY + ACCEPTED, means=means)

    assert run.code == 1
    assert run.duels.asked[0].margins == {"step_time": 0.02}
    assert "expired on 2026-11-25" in run.result["warnings"][-1]


@pytest.mark.parametrize(
    ("policy", "request_", "words"),
    [
        (POLICY, {"base": "v1.00"}, "Did you mean 'v1.0'"),
        (POLICY, {"anchor": "--help"}, "no revision of this checkout"),
        (POLICY, {"base": "origin/main"}, "fetch-depth: 0"),
        (POLICY.replace('base = "HEAD"', ""), {}, "Give --base REV"),
        (POLICY, {"budget": "soon"}, "--budget"),
        (POLICY.replace("60", "1_000_000"), {}, "At least 12 replicates"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(
    tmp_path: Path, policy: str, request_: dict[str, Any], words: str
) -> None:
    """Oracle: the sentence, by hand; no duel is asked for."""
    scripted = ScriptedDuels({})
    policy = policy + "replicates = 10\n" if "1_000_000" in policy else policy

    with pytest.raises(UserError, match="(?s)" + words):
        gate(tmp_path, {}, policy, means={"run_duel": scripted}, **request_)
    assert scripted.asked == []


def test_a_mistake_of_the_user_in_the_first_duel_is_a_mistake(tmp_path: Path) -> None:
    """Exit 2, since nothing ran that could be lost. Oracle: the design's exit codes."""
    with pytest.raises(UserError, match="cannot run here"):
        gate(tmp_path, {CELLS[0]: [UserError("cannot run here")]})


def test_no_checkout_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a folder without git."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match="--checkout PATH"):
        gate(tmp_path, {}, checkout=None)


def test_one_set_alone_is_a_mistake(tmp_path: Path) -> None:
    """Oracle: two are compared, or none."""
    with pytest.raises(UserError, match="name two recorded sets"):
        gate(tmp_path, {}, sets=(tmp_path,))


def test_the_same_commit_on_both_sides_is_a_warning(tmp_path: Path) -> None:
    """Oracle: HEAD against an unchanged working tree; then a changed one against it."""
    run = gate(tmp_path, {CELLS[0]: ["equivalent"]})
    (tmp_path / "project" / "code.py").write_text("VERSION = 'changed'\n")

    assert "the same commit" in run.result["warnings"][0]
    assert run.result["subject"]["head_changed"] is False

    (tmp_path / "again").mkdir()
    other = gate(tmp_path / "again", {CELLS[0]: ["equivalent"]}, base="v1.0")
    assert other.result["warnings"] == []


def test_an_error_of_the_gate_itself_is_no_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python would end with 1, the code of a confirmed regression. Oracle: the design: 3."""

    def broken() -> date:
        raise RuntimeError("no calendar")

    assert gate(tmp_path, {}, means={"today": broken}).code == 3
    assert "no calendar" in capsys.readouterr().err


def test_nothing_is_lost_where_a_file_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: a folder is no file; the JSON is there, the summary is on standard output, exit 2."""
    (tmp_path / "taken").mkdir()
    run = gate(tmp_path, {CELLS[0]: ["equivalent"]}, junit=tmp_path / "taken")
    told = capsys.readouterr()

    assert run.code == 2
    assert run.result["exit_code"] == 0
    assert "# Gate: no confirmed regression" in told.out
    assert "taken cannot be written" in told.err

    (tmp_path / "again" / "taken").mkdir(parents=True)
    regressed = {CELLS[0]: ["slower", "slower"]}
    again = gate(tmp_path / "again", regressed, junit=tmp_path / "again" / "taken")
    assert again.code == 1  # a full disk must not hide a regression


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("no room"), 2, "no page: no room"),
        (ValueError("odd"), 2, "no page: odd"),
        (ModuleNotFoundError("no", name="plotly"), 0, "plotly is not installed"),
    ],
)
def test_a_page_that_fails_takes_nothing_with_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    words: str,
) -> None:
    """Oracle: exit 2 where a file is missing; a missing package is said, as `run` does."""

    def write_page(folders: Any, page: Any) -> None:
        raise error

    run = gate(
        tmp_path,
        {CELLS[0]: ["equivalent"]},
        duels={"make_folders": True},
        means={"write_page": write_page},
    )
    told = capsys.readouterr()

    assert run.code == code
    assert words in told.out + told.err
    assert run.result["rows"][0]["outcome"] == "passed"
    assert run.result["page"] is None


def test_the_page_is_made_of_every_session_and_named(tmp_path: Path) -> None:
    """Oracle: two sessions, two folders."""
    run = gate(tmp_path, {CELLS[0]: ["slower", "equivalent"]}, duels={"make_folders": True})

    assert (tmp_path / "page.html").read_text() == "2"
    assert run.result["page"] == str(tmp_path / "page.html")


def test_the_summary_is_added_to_what_a_workflow_names(tmp_path: Path) -> None:
    """Oracle: GitHub's variable; the step before wrote there too. An option has the last word."""
    step, own = tmp_path / "step.md", tmp_path / "own.md"
    step.write_text("before\n")
    environ = {"environ": {"GITHUB_STEP_SUMMARY": str(step)}}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    gate(tmp_path / "one", {CELLS[0]: ["equivalent"]}, means=environ)
    gate(tmp_path / "two", {CELLS[0]: ["equivalent"]}, means=environ, summary=own)

    assert step.read_text().startswith("before\n# Gate: no confirmed regression")
    assert step.read_text().count("# Gate:") == own.read_text().count("# Gate:") == 1


def test_the_rates_are_printed_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: by hand: 1.39 false alarms in 1,000 runs, alpha 0.0373."""
    with pytest.raises(UserError):
        gate(tmp_path, {CELLS[0]: [UserError("stop")]})

    told = capsys.readouterr().err
    assert "a rate of 0.0373" in told
    assert "in 1,000 gate runs: at most 1.39" in told
