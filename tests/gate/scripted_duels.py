"""Script what duels say, and write policies, for the tests of the gate."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bertopt_bench.gate.decide import Seen
from bertopt_bench.gate.duels import DuelOutcome
from bertopt_bench.results.duels import Finding, Verdicts

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.gate.duels import DuelSpec

ROW = ("step_time", "base", "head")
MATRIX = """
name = "gated"
seeds = [1, 2, 3]
[workload]
model = "tiny"
steps = 20
[axes]
optimizer = ["adamw", "sgd", "momentum"]
precision = ["fp32", "bf16"]
"""
CELLS = ("optimizer=adamw precision=fp32", "optimizer=sgd precision=bf16")
POLICY = f"""
matrix = "gated.toml"
cells = ["{CELLS[0]}"]
gate_runs_per_month = 60
base = "HEAD"
"""


def finding(verdict: str, row: tuple[str, str, str] = ROW, **fields: Any) -> Finding:
    """Give a finding with numbers that go with its verdict, at a margin of 2 %."""
    low = {"slower": 0.03, "faster": -0.05, "equivalent": -0.005}.get(verdict, -0.01)
    high = {"slower": 0.05, "faster": -0.03, "equivalent": 0.005}.get(verdict, 0.03)
    numbers: dict[str, Any] = {
        "estimate": (low + high) / 2,
        "low": low,
        "high": high,
        "gate_low": low,
        "gate_high": high,
        "corrected_p_more": 0.0005 if verdict == "slower" else 0.4,
        "margin": 0.0198,
        "margin_in_force": 0.0198,
        "noise_floor": 0.008,
        "n": 12,
    }
    if verdict == "refused":
        numbers = {"n": 0}
    numbers |= {"needed_replicates": 34} if verdict == "inconclusive" else {}
    metric, baseline, arm = row
    told: dict[str, Any] = {"metric": metric, "baseline": baseline, "arm": arm, "verdict": verdict}
    return Finding(**{**told, "reason": f"scripted {verdict}", **numbers, **fields})


def seen(purpose: str, verdict: str, state: str = "valid", **fields: Any) -> Seen:
    """Give a session of one row."""
    reasons = () if state == "valid" else (f"scripted {state}",)
    return Seen(
        session=f"{purpose}-{verdict}",
        purpose=purpose,  # type: ignore[arg-type]
        state=state,  # type: ignore[arg-type]
        reasons=reasons,
        findings={ROW: finding(verdict, **fields)},
    )


@dataclass
class ScriptedDuels:
    """Answer each duel by the next word of its cell: a verdict, a state, or an exception.

    A word is a verdict of every row, ``too_noisy``, ``invalid``, an exception to raise, or a
    mapping from (metric, baseline, arm) to a verdict, the others being equivalent.
    """

    script: dict[str, list[Any]]
    seconds: float = 100.0
    fields: dict[str, Any] = field(default_factory=dict)
    asked: list[DuelSpec] = field(default_factory=list)
    make_folders: bool = False
    replicates: int = 12

    def __call__(self, spec: DuelSpec) -> DuelOutcome:
        self.asked.append(spec)
        word = self.script[spec.base[0]].pop(0)
        if isinstance(word, BaseException):
            raise word
        if self.make_folders:
            spec.results.mkdir(parents=True)
        session = f"session-{len(self.asked)}"
        return DuelOutcome(session, self._verdicts(spec, word, session), self.seconds)

    def _verdicts(self, spec: DuelSpec, word: Any, session: str) -> Verdicts:
        state = word if word in ("too_noisy", "invalid") else "valid"
        rows = [(m, b, a) for m in spec.metrics for b, a in spec.comparisons]
        plain = {"too_noisy": "inconclusive", "invalid": "refused"}.get(str(word), word)
        said = [word.get(row, "equivalent") if isinstance(word, dict) else plain for row in rows]
        return Verdicts(
            session=session,
            at_utc="2026-11-25T00:00:00+00:00",
            look=1,
            replicates=self.replicates,
            state=state,
            reasons=() if state == "valid" else (f"scripted {state}",),
            findings=tuple(
                finding(verdict, row, **self.fields)
                for verdict, row in zip(said, rows, strict=True)
            ),
        )


def checkout(folder: Path, policy: str = POLICY) -> Path:
    """Make a git checkout with a matrix, a policy and two tagged commits; give the policy."""
    folder.mkdir(exist_ok=True)
    (folder / "gated.toml").write_text(MATRIX)
    file = folder / "policy.toml"
    file.write_text(policy)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for tag in ("v1.0", "v1.1"):
        (folder / "code.py").write_text(f"VERSION = '{tag}'\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", tag)
        git(folder, "tag", tag)
    return file


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody."""
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.invalid")
    command = ["git", *who, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
