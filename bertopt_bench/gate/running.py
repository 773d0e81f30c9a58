"""Run a gate: policy -> sessions until none is needed -> decisions -> outputs -> exit code.

Live, a session is a duel of the base revision with the working tree; of recorded sets it is the
next pair of sessions in them. Both answer the same question in the same loop.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from bertopt_bench.errors import UserError
from bertopt_bench.gate import account, checkout, levels, outputs
from bertopt_bench.gate.decide import decide, exit_code, next_need
from bertopt_bench.gate.live import LiveSessions
from bertopt_bench.gate.policy import in_unit, read_policy
from bertopt_bench.gate.recorded import RecordedSessions
from bertopt_bench.gate.result import GateRates, GateSubject
from bertopt_bench.matrix.keys import Place
from bertopt_bench.matrix.quantities import read_seconds
from bertopt_bench.results.store import next_free

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bertopt_bench.dispatch.checkouts import Tree
    from bertopt_bench.gate.decide import Decision, Need, Row, Seen
    from bertopt_bench.gate.duels import RunDuel
    from bertopt_bench.gate.policy import GatedCell, Policy
    from bertopt_bench.gate.recorded import Compare
    from bertopt_bench.gate.result import GateResult

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
REGRESSION, USAGE, REFUSED = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for; ``sets`` is empty, or the two recorded sets."""

    policy: Path
    sets: tuple[Path, ...] = ()
    checkout: Path | None = None
    base: str | None = None
    anchor: str | None = None
    budget: str | None = None
    strict: bool = False
    results: Path | None = None
    page: Path | None = None
    summary: Path | None = None
    junit: Path | None = None
    json: Path | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What the gate is handed: who runs duels, compares sets, writes pages; day and variables."""

    run_duel: RunDuel
    compare: Compare
    write_page: Callable[[Sequence[Path], Path], object]
    today: Callable[[], date] = lambda: datetime.now(UTC).date()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


class Sessions(Protocol):
    """Where a gate's sessions come from."""

    warnings: list[str]

    @property
    def mode(self) -> Literal["live", "recorded"]:
        """Say whether the sessions are run or read."""
        ...

    @property
    def subject(self) -> GateSubject:
        """Say what is compared."""
        ...

    def rows(self, cell: GatedCell) -> tuple[Row, ...]:
        """Name what is decided of a cell."""
        ...

    def ask(self, cell: GatedCell, need: Need, seen: Sequence[Seen], waiting: int) -> Seen | str:
        """Give the session that is needed, or why there is none.

        ``waiting`` counts the sessions that are needed now, this one included.
        """
        ...

    def folders(self) -> list[Path]:
        """Name the results folders that a page is made of."""
        ...


def run_gate(request: Request, means: Means) -> int:
    """Run the gate and give its exit code.

    An error of ours is 3, with its traceback: the interpreter's own exit code would be 1, which
    says that a regression is confirmed.

    Raises:
        UserError: a mistake in policy or request, found before the first session ends.
    """
    try:
        return _run(request, means)
    except UserError:
        raise
    except Exception:  # noqa: BLE001 - no crash may read as a verdict
        traceback.print_exc()
        sys.stderr.write("gate: refused, since the gate itself failed as shown above\n")
        return REFUSED


def _run(request: Request, means: Means) -> int:
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    policy, sessions, declared = _prepare(request, means)
    sys.stderr.write(f"{outputs.rates_text(declared)}\n")
    sys.stderr.flush()
    seen, stopped = collect(policy.cells, sessions)
    today = means.today()
    decisions = {
        cell.text: _decisions(cell, policy, sessions, seen[cell.text], stopped, today)
        for cell in policy.cells
    }
    every = [one for found in decisions.values() for one in found]
    page, unwritten = _page(request, policy, sessions, means)
    result = account.result_of(
        policy,
        declared,
        seen,
        decisions,
        mode=sessions.mode,
        subject=sessions.subject,
        warnings=_warnings(policy, sessions, stopped, every, today),
        today=today,
        started_utc=started,
        elapsed_seconds=time.monotonic() - began,
        strict=request.strict,
        code=exit_code(every, strict=request.strict),
        page=page,
    )
    return _hand_over(result, request, means, unwritten)


def collect(
    cells: Sequence[GatedCell], sessions: Sessions
) -> tuple[dict[str, list[Seen]], dict[str, str]]:
    """Ask for sessions in rounds until no cell needs one: by cell, and why some were not had.

    A cell's second session comes after the first ones of all cells, so that what disturbed the one
    has passed.
    """
    seen: dict[str, list[Seen]] = {cell.text: [] for cell in cells}
    stopped: dict[str, str] = {}
    while due := list(_due(cells, sessions, seen, stopped)):
        for number, (cell, need) in enumerate(due):
            found = sessions.ask(cell, need, seen[cell.text], len(due) - number)
            if isinstance(found, str):
                stopped[cell.text] = found
            else:
                seen[cell.text].append(found)
    return seen, stopped


def _due(
    cells: Sequence[GatedCell],
    sessions: Sessions,
    seen: Mapping[str, Sequence[Seen]],
    stopped: Mapping[str, str],
) -> Iterator[tuple[GatedCell, Need]]:
    for cell in cells:
        need = next_need(sessions.rows(cell), seen[cell.text])
        if need is not None and cell.text not in stopped:
            yield cell, need


def _prepare(
    request: Request, means: Means
) -> tuple[Policy, LiveSessions | RecordedSessions, GateRates]:
    """Check all that can be checked before a session is asked for."""
    if len(request.sets) not in {0, 2}:
        raise UserError(
            f"{len(request.sets)} result set is given: name two recorded sets (the old one first), "
            "or none to run duels."
        )
    if request.sets:
        policy = read_policy(request.policy)
        rates = levels.derive(policy, 1)
        sessions: LiveSessions | RecordedSessions = _recorded(request, policy, rates, means)
    else:
        code = checkout.find_head(request.checkout)
        with checkout.importable(code.folder):
            policy = read_policy(request.policy)
        rates = levels.derive(policy, 1 if request.anchor is None else 2)
        levels.refuse_out_of_reach(policy, rates)
        sessions = _live(request, policy, rates, code, means)
    return policy, sessions, account.rates_of(policy, rates)


def _live(
    request: Request,
    policy: Policy,
    rates: levels.Levels,
    code: Tree,
    means: Means,
) -> LiveSessions:
    base = request.base or policy.base
    if base is None:
        raise UserError(
            "nothing says what to compare with. Give --base REV, or base = 'origin/main' in "
            f"{policy.file}."
        )
    subject = _subject(code, base, request.anchor)
    budget = policy.budget_seconds
    if request.budget is not None:
        budget = read_seconds(request.budget, Place("--budget").error)
    if budget is not None and "loss" in policy.metrics:
        raise UserError(
            f"{policy.file}: a gate of loss takes no budget: its seeds say how often is trained. "
            "Leave the budget out."
        )
    warnings = []
    if subject.base_commit == subject.head_commit and not subject.head_changed:
        warnings.append(f"{base} and the working tree are the same commit: nothing is gated")
    return LiveSessions(
        policy=policy,
        levels=rates,
        subject=subject,
        checkout=code.folder,
        results=next_free(request.results or Path("results") / f"gate-{policy.name}"),
        budget_seconds=budget,
        today=means.today(),
        run_duel=means.run_duel,
        warnings=warnings,
    )


def _subject(code: Tree, base: str, anchor: str | None) -> GateSubject:
    """Give what is compared, the revisions as the commits that they are now."""
    return GateSubject(
        base=base,
        base_commit=checkout.resolve(code.folder, base, "--base"),
        anchor=anchor,
        anchor_commit=anchor and checkout.resolve(code.folder, anchor, "--anchor"),
        head="the working tree",
        head_commit=code.commit,
        head_changed=bool(code.dirty_hash),
    )


def _recorded(
    request: Request, policy: Policy, rates: levels.Levels, means: Means
) -> RecordedSessions:
    live_only = {"--checkout": request.checkout, "--base": request.base, "--budget": request.budget}
    given = [name for name, value in live_only.items() if value is not None]
    if given:
        raise UserError(
            f"{', '.join(given)} asks for duels, and two recorded sets are given. Leave out either."
        )
    return RecordedSessions.load(
        policy, rates, request.sets, request.anchor, means.today(), means.compare
    )


def _decisions(
    cell: GatedCell,
    policy: Policy,
    sessions: Sessions,
    seen: Sequence[Seen],
    stopped: Mapping[str, str],
    today: date,
) -> list[Decision]:
    made = []
    for row in sessions.rows(cell):
        accepted = policy.acceptance(cell.text, row[0], today)
        made.append(
            decide(
                row,
                seen,
                stopped=stopped.get(cell.text, ""),
                accepted=None if accepted is None else accepted.reason,
                margin=in_unit(row[0], policy.margins[row[0]]),
            )
        )
    return made


def _warnings(
    policy: Policy,
    sessions: Sessions,
    stopped: Mapping[str, str],
    every: Sequence[Decision],
    today: date,
) -> list[str]:
    expired = [
        f"the acceptance of {one.metric} of '{one.cell}' expired on {one.expiry}: it is ignored"
        for one in policy.expired(today)
    ]
    count = sum(not one.settled for one in every)
    left_open = [f"left open: {count} of {len(every)} comparisons (exit 4 under --strict)"]
    return [*sessions.warnings, *expired, *stopped.values(), *(left_open if count else [])]


def _page(
    request: Request, policy: Policy, sessions: Sessions, means: Means
) -> tuple[str | None, list[str]]:
    """Write the page; give its name, or what went wrong: the rest must still be written."""
    page = request.page
    if page is None and sessions.mode == "live":
        page = Path("reports") / f"gate-{policy.name}.html"
    folders = sessions.folders()
    if page is None or not folders:
        return None, []
    try:
        means.write_page(folders, page)
    except ModuleNotFoundError as error:
        sessions.warnings.append(f"no page: {error.name} is not installed")
        return None, []
    except Exception as error:  # noqa: BLE001 - whatever a page fails of, the verdict must be told
        return None, [f"no page: {error}"]
    return str(page), []


def _hand_over(result: GateResult, request: Request, means: Means, unwritten: Sequence[str]) -> int:
    """Write everything that can be written, then say what could not; give the exit code.

    A confirmed regression keeps its exit code: a full disk must not hide it.
    """
    text = outputs.markdown(result)
    named = means.environ.get(SUMMARY_VARIABLE)
    summary = request.summary or (Path(named) if named else None)
    files = {
        path: write
        for path, write in (
            (request.json, result.text),
            (request.junit, lambda: outputs.junit(result)),
        )
        if path is not None
    }
    failures = [*unwritten, *outputs.write_files(files, summary, text)]
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, outputs.UNWRITABLE).decode(encoding))
    sys.stdout.flush()
    for failure in failures:
        sys.stderr.write(f"error: {failure}\n")
    return USAGE if failures and result.exit_code != REGRESSION else result.exit_code
