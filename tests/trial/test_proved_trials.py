"""Training trials of arms by the real worker: what is proved, and that it changes nothing."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.dispatch.duel import Contender
from bertopt_bench.dispatch.environments import prepare_subject
from bertopt_bench.dispatch.local import Zygote
from bertopt_bench.dispatch.progress import PlainDisplay
from bertopt_bench.dispatch.sessions import SessionRun
from bertopt_bench.matrix.cells import Cell, TrialPlan
from bertopt_bench.measure import provenance
from bertopt_bench.results.store import ResultsFolder
from bertopt_bench.trial.worker import run_trial

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bertopt_bench.results.record import Record

    MakeRequest = Callable[..., dict[str, Any]]

OWN = """
import torch


class Mine(torch.optim.SGD):
    def __init__(self, groups, lr: float = 0.1):
        super().__init__(groups, lr=lr * {factor})
"""


def told(request: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Train in this process; give the last message of each kind."""
    said: list[dict[str, Any]] = []
    run_trial({**request, "dispatched_ns": monotonic_ns()}, said.append, [0])
    kinds = [message["kind"] for message in said]
    assert kinds.index("burned_in") < kinds.index("evaluation") < kinds.index("result")
    return {message["kind"]: message for message in said}


def test_an_arms_trial_proves_its_imports_before_it_trains_and_after(
    make_request: MakeRequest,
) -> None:
    """Oracle: the package's own hash; a module that is named, one that nobody imported."""
    named = {"modules": ["json.tool_of_mine", "email"], "overlay": []}
    said = told({**make_request(), **named})

    assert [kind for kind, message in said.items() if "imported" in message] == [
        "burned_in",
        "result",
    ]
    for kind in ("burned_in", "result"):
        modules = said[kind]["imported"]["modules"]
        assert modules["bertopt_bench"]["sources"] == provenance.source_hash(provenance.PACKAGE)
        assert modules["email"]["root"] == "stdlib"
        assert modules["json.tool_of_mine"] is None


def test_a_plain_trial_proves_nothing_and_trains_the_same(make_request: MakeRequest) -> None:
    """Oracle: equality of every weight's hash and of the held-out loss, bit for bit."""
    plain, proved = (
        told({**make_request(), **more}) for more in ({}, {"modules": [], "overlay": []})
    )

    assert not [kind for kind, message in plain.items() if "imported" in message]
    assert plain["evaluation"]["loss"] == proved["evaluation"]["loss"]
    assert plain["evaluation"]["losses"] == proved["evaluation"]["losses"]
    assert plain["burned_in"].keys() ^ proved["burned_in"].keys() == {"imported"}


def git(checkout: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_request: MakeRequest
) -> Callable[[str, str], Record]:
    """Train an arm of one revision by a worker of another: v1 and v2 differ in a learning rate."""
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", str(tmp_path / "cache"))
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    git(checkout, "init", "--quiet")
    for factor in (1, 2):
        (checkout / "own_steps.py").write_text(OWN.format(factor=factor))
        git(checkout, "add", ".")
        git(checkout, "commit", "--quiet", "--message", "x")
        git(checkout, "tag", f"v{factor}")
    request = make_request()
    content = {**request["cell"], "optimizer": {"name": "own_steps:Mine", "lr": 0.1}}
    text = {**request["text"], "text_sha256": "t", "tokenizer_sha256": "k"}

    def once(asked: str, started: str) -> Record:
        want, real = (
            prepare_subject(checkout=checkout, revision=name) for name in (asked, started)
        )
        plan = TrialPlan(Cell("c", content, None, "c", {}), 1, 0, request["steps"])
        zygote = Zygote(threads=1, python=real.python, root=real.root, overlay=real.overlay)
        with ResultsFolder.open(tmp_path / "results", "d") as store, zygote:
            run = SessionRun(
                "s",
                store,
                PlainDisplay(io.StringIO()),
                request["timing"],
                {"c": text},
                provenance.package_code(),
                1,
            )
            run.display.begin(1, 1, "arm", request["steps"])
            return run.run_one(zygote, plan, Contender("arm", content, want, text))

    return once


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_revisions_train_each_its_own_code_and_a_mistaken_one_is_stopped(
    train: Callable[[str, str], Record],
) -> None:
    """Oracle: equal starts, unlike ends: v2 steps twice as far; v1's worker is no v2."""
    first, second, mistaken = train("v1", "v1"), train("v2", "v2"), train("v2", "v1")

    assert [one.status for one in (first, second)] == ["ok", "ok"], first.reason + second.reason
    assert first.evaluations[0].loss == second.evaluations[0].loss
    assert first.evaluations[-1].loss != second.evaluations[-1].loss
    commits = [one.code.checkout.commit for one in (first, second) if one.code.checkout]
    assert len(set(commits)) == 2
    assert mistaken.status == "failed"
    assert mistaken.reason.startswith("imported the wrong code: 'own_steps' was imported from")
    assert mistaken.evaluations == ()
