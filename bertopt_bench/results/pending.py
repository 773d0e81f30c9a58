"""Find the planned trials that have no record, or one that the code has left behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bertopt_bench.matrix.cells import TrialPlan
    from bertopt_bench.results.record import Record

    Key = tuple[str, int, int, str]
    Texts = Mapping[str, Mapping[str, Any] | None]  # prepared text by cell id


@dataclass(frozen=True, slots=True)
class Pending:
    """What is left to run: trials without a record, and those whose record is stale, with why."""

    plans: tuple[TrialPlan, ...]
    missing: tuple[TrialPlan, ...]
    stale: tuple[tuple[TrialPlan, str], ...]

    def reasons(self) -> dict[str, int]:
        """Count the stale trials by reason."""
        counts: dict[str, int] = {}
        for _, reason in self.stale:
            counts[reason] = counts.get(reason, 0) + 1
        return counts


def latest(records: Iterable[Record]) -> dict[Key, Record]:
    """Give the record that counts for each trial: the last one started, or else written."""
    found: dict[Key, Record] = {}
    for record in records:
        key = (record.cell_id, record.seed, record.replicate, record.arm or "")
        if key not in found or record.started_utc >= found[key].started_utc:
            found[key] = record
    return found


def find_pending(
    trials: Sequence[TrialPlan],
    records: Iterable[Record],
    code: Mapping[str, Any],
    texts: Texts,
) -> Pending:
    """Compare the plan with the records, in the order of the plan.

    Args:
        trials: the plan.
        records: all that are on disk.
        code: the package's version, commit and dirty_hash now.
        texts: by cell id what ``workload.prepare`` gave, of which ``text_sha256``,
            ``tokenizer_sha256``, ``batches`` (seed -> ``sha256``) and ``evaluation`` (``sha256``)
            are read; what is absent or None is not known, and does not make a record stale.
    """
    counted = latest(records)
    plans, missing, stale = [], [], []
    for plan in trials:
        record = counted.get((plan.cell.id, plan.seed, plan.replicate, ""))
        reason = None if record is None else stale_reason(plan, record, code, texts)
        if record is None:
            missing.append(plan)
        elif reason is not None:
            stale.append((plan, reason))
        else:
            continue
        plans.append(plan)
    return Pending(tuple(plans), tuple(missing), tuple(stale))


def stale_reason(
    plan: TrialPlan, record: Record, code: Mapping[str, Any], texts: Texts
) -> str | None:
    """Say why a record no longer stands for its trial, or None where it does."""
    if record.status == "skipped":
        # Reasons may hold figures measured anew in each session: only whether it runs counts.
        return None if plan.cell.skip is not None else "it was skipped before and can run now"
    if plan.cell.skip is not None:
        return None
    if record.steps != plan.steps:
        return f"it had {record.steps} steps and is planned with {plan.steps}"
    return (
        _data_change(plan, record, texts.get(plan.cell.id) or {})
        or _outside_change(plan.cell.outside, record.code.outside)
        or _code_change(record, code)
    )


def _data_change(plan: TrialPlan, record: Record, text: Mapping[str, Any]) -> str | None:
    """Compare what a trial is fed, from the text on: the first that differs explains the others."""
    batches = (text.get("batches") or {}).get(str(plan.seed)) or {}
    pairs = (
        ("text", record.text_sha256, text.get("text_sha256")),
        ("tokenizer", record.tokenizer_sha256, text.get("tokenizer_sha256")),
        (
            "held-out batches",
            record.evaluation_sha256,
            (text.get("evaluation") or {}).get("sha256"),
        ),
        ("training batches", record.batches_sha256, batches.get("sha256")),
        (
            "pretrained weights",
            record.classification.weights_sha256 if record.classification else None,
            text.get("weights_sha256"),
        ),
    )
    for what, then, now in pairs:
        if then is not None and now is not None and then != now:
            return f"the {what} changed ({then[:12]} to {now[:12]})"
    return None


def _outside_change(now: Mapping[str, str], then: Mapping[str, str]) -> str | None:
    if dict(now) == dict(then):
        return None
    names = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
    return f"your code changed: {', '.join(names)}"


def _code_change(record: Record, code: Mapping[str, Any]) -> str | None:
    then = record.code
    if then.version != code["version"]:
        return f"bertopt-bench changed from {then.version} to {code['version']}"
    if then.commit != code.get("commit"):
        return f"the commit changed from {_short(then.commit)} to {_short(code.get('commit'))}"
    if (then.dirty_hash or "") != (code.get("dirty_hash") or ""):
        return "bertopt-bench's source changed without a commit"
    return None


def _short(commit: str | None) -> str:
    return commit[:10] if commit else "none"
