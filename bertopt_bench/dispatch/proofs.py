"""Hold a training trial to the code that its arm asked for, and name that code in its record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch import environments
from bertopt_bench.measure.imports import HARNESS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.dispatch.environments import Subject

PROVING = frozenset({"burned_in", "result"})
"""Messages that carry a proof: one before training begins, one of all that was imported in it."""
UNPROVED = (
    "does not prove what it imported: its bertopt-bench is older than the proof of training runs. "
    "Name a later revision, or compare step_time and peak_memory alone"
)


class WrongCode(Exception):  # noqa: N818 - an ending, told as a record's reason
    """A worker imported other code than its arm asked for, or does not say which."""

    def __init__(self, reason: str, proof: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.proof = proof


def check_proof(message: Mapping[str, Any], subject: Subject) -> None:
    """Refuse a worker's message that does not prove the subject's code.

    Raises:
        WrongCode: it proves other code, or none.
    """
    if message["kind"] not in PROVING:
        return
    proof = message.get("imported")
    if not isinstance(proof, dict) or not proof:
        raise WrongCode(UNPROVED, {})
    why = environments.mismatch(proof, subject)
    if why is not None:
        raise WrongCode(f"imported the wrong code: {why}", proof)


def code_of(
    subject: Subject,
    proof: Mapping[str, Any],
    *,
    modules: Sequence[str],
    ours: Mapping[str, Any],
    outside: Mapping[str, str],
) -> dict[str, Any]:
    """Name the code of an arm, as a record does.

    Args:
        subject: what the arm asked for.
        proof: what its worker imported; empty where it did not come to say.
        modules: those that were to be proved besides this package.
        ours: this package's own code, which runs the arm unless it is of a checkout of it.
        outside: the source files of the cell's entries, as they lie here.
    """
    told, found = subject.description, proof.get("modules", {})
    code: dict[str, Any] = {**ours, "outside": dict(outside)}
    if told.get("commit") or told.get("environment", "shared") != "shared":
        code["outside"] = {name: text for name in modules if (text := _told(found.get(name)))}
    if told.get("commit"):
        code["checkout"] = {key: told.get(key, "") for key in ("commit", "dirty_hash", "project")}
    if subject.expected.get("harness_commit"):
        version = (found.get(HARNESS) or {}).get("version") or "not installed"
        code |= {"version": version, "commit": told["commit"], "dirty_hash": told["dirty_hash"]}
    return code


def _told(module: Mapping[str, Any] | None) -> str | None:
    """Give what tells a module from others of its name: its sources, else where they came from."""
    keys = ("sources", "record", "commit")
    return next((str(module[key]) for key in keys if module.get(key)), None) if module else None
