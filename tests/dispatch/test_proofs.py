"""Training trials of two commits: real workers' proofs, and the records that they end as."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_checkouts import commit, git, without_torch, write

from bertopt_bench.dispatch.duel import Contender
from bertopt_bench.dispatch.environments import prepare_subject
from bertopt_bench.dispatch.local import Zygote
from bertopt_bench.dispatch.progress import PlainDisplay
from bertopt_bench.dispatch.sessions import SessionRun
from bertopt_bench.matrix.cells import Cell, TrialPlan
from bertopt_bench.measure.provenance import source_hash
from bertopt_bench.results.store import ResultsFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.dispatch.environments import Subject
    from bertopt_bench.results.record import Record

    Train = Callable[..., Record]

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

OURS = {"version": "0.1", "commit": "a" * 40, "dirty_hash": ""}
HERE = {"norms/__init__.py": "f" * 64}
TEXT = {
    "batches": {"1": {"sha256": "b"}},
    "evaluation": {"sha256": "e"},
    "text_sha256": "t",
    "tokenizer_sha256": "k",
    "vocabulary_size": 64,
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make a project with two commits, v1 and v2; the second has a module more."""
    folder = tmp_path / "checkout"
    commit(folder, {"norms/__init__.py": "SPEED = 1\n"}, "v1")
    commit(folder, {"norms/__init__.py": "SPEED = 2\n", "later.py": ""}, "v2")
    return folder


@pytest.fixture
def train(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Give a function that trains an arm of a revision once, in a worker of another if asked to."""
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(Path(__file__).parent)  # the worker's module is found there

    def subject(revision: str) -> Subject:
        return without_torch(prepare_subject(checkout=checkout, revision=revision))

    def once(revision: str, started: str | None = None, **script: Any) -> Record:
        asked, real = subject(revision), subject(started or revision)
        content = {
            "script": {"imports": ["norms"], **script},
            "optimizer": {"name": "norms.inner:Norm"},
            "schedule": {"name": "constant"},
            "regularizer": [{"name": "theirs:Decay"}],
            "precision": {"name": "fp32"},
            "device": {"name": "cpu"},
            "kernel": {},
        }
        plan = TrialPlan(Cell("c", content, None, "c", HERE), 1, 0, 9)
        zygote = Zygote(
            threads=1,
            worker="scripted_trials",
            python=real.python,
            root=real.root,
            overlay=real.overlay,
        )
        with ResultsFolder.open(tmp_path / "results", "d") as store, zygote:
            run = SessionRun(
                "s",
                store,
                PlainDisplay(io.StringIO()),
                {"timeout_seconds": 60.0},
                {"c": TEXT},
                OURS,
            )
            return run.run_one(zygote, plan, Contender("arm", content, asked, TEXT))

    return once


@pytest.mark.parametrize("revision", ["v1", "v2"])
def test_a_record_names_the_revision_that_trained(
    train: Train, checkout: Path, revision: str
) -> None:
    """Oracle: git's commit and the sources in it; this package's commit stays its own."""
    record = train(revision)
    named = git(checkout, "rev-parse", revision)
    git(checkout, "checkout", "--quiet", revision)

    assert (record.status, record.arm) == ("ok", "arm")
    assert record.code.checkout is not None
    assert record.code.checkout.model_dump() == {"commit": named, "dirty_hash": "", "project": ""}
    assert record.code.outside == {"norms": source_hash(checkout / "norms")}
    assert (record.code.version, record.code.commit) == ("0.1", "a" * 40)
    assert record.imported["modules"]["norms"]["commit"] == named
    assert record.imported["modules"]["norms"]["root"] == "overlay"


def test_a_worker_proves_the_cells_entries_and_what_the_revision_lacks(train: Train) -> None:
    """Oracle: by hand: the packages of two entries, and the module that only v2 has."""
    modules = train("v1").imported["modules"]

    assert {"norms", "theirs", "later"} <= modules.keys()
    assert modules["theirs"] is modules["later"] is None


def test_a_worker_of_another_revision_is_stopped_before_it_trains(
    train: Train, checkout: Path
) -> None:
    """Oracle: it would wait for ever after its burn-in; the limit of 60 s is not reached."""
    record = train("v2", started="v1", hangs=True)

    assert (record.status, record.losses) == ("failed", ())
    assert record.reason.startswith("imported the wrong code: 'norms' ")
    assert record.elapsed_seconds is not None
    assert record.elapsed_seconds < 60.0
    assert record.imported["modules"]["norms"]["commit"] == git(checkout, "rev-parse", "v1")


def test_a_worker_that_proves_nothing_is_never_trusted(train: Train) -> None:
    """Oracle: the worker of a revision from before the proof, which would train on."""
    record = train("v1", silent=True, hangs=True)

    assert record.status == "failed"
    assert "does not prove what it imported" in record.reason
    assert "Name a later revision" in record.reason
    assert record.imported == {}
    assert record.code.outside == {}  # of what is not known nothing is said


def test_what_is_imported_while_it_trains_is_proved_too(train: Train, tmp_path: Path) -> None:
    """Oracle: a module that the revision does not have, from a folder beside it."""
    write(tmp_path / "beside", {"later.py": ""})
    record = train("v1", late=str(tmp_path / "beside"))

    assert record.status == "failed"
    assert "'later' was imported (other), and the revision has no such module" in record.reason


def test_an_arm_that_names_no_code_is_of_this_package_and_the_files_that_lie_here() -> None:
    """Oracle: what the parent knows of both; the worker proves it all the same."""
    from bertopt_bench.dispatch.proofs import check_proof, code_of
    from bertopt_bench.measure.imports import prove_imports

    subject = without_torch(prepare_subject())
    proof = prove_imports([], [])
    check_proof({"kind": "result", "imported": proof}, subject)

    code = code_of(subject, proof, modules=["norms"], ours=OURS, outside=HERE)
    assert code == {**OURS, "outside": HERE}
