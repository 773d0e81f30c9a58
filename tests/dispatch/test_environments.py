"""Arms' code: prepared from what the test commits, and proved by workers that import it."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from made_checkouts import BACKEND, commit, git, prove, without_torch, write

from bertopt_bench.child import ROOT
from bertopt_bench.dispatch import checkouts, interpreters
from bertopt_bench.dispatch.environments import arm_identity, mismatch, prepare_subject
from bertopt_bench.errors import UserError
from bertopt_bench.measure.provenance import source_hash

if TYPE_CHECKING:
    from bertopt_bench.dispatch.environments import Subject

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make a project with two commits, tagged v1 and v2; the second has a module more."""
    folder = tmp_path / "checkout"
    setup = 'from setuptools import setup\nsetup(name="norms")\n'
    commit(folder, {"norms/__init__.py": "SPEED = 1\n", "setup.py": setup}, "v1")
    files = {"norms/__init__.py": "SPEED = 2\n", "later.py": "", "space/part/__init__.py": ""}
    commit(folder, files, "v2")
    return folder


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """Make the folder in which the user starts."""
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


def prepared(checkout: Path, revision: str | None = None, **options: Any) -> Subject:
    return without_torch(prepare_subject(checkout=checkout, revision=revision, **options))


def test_nothing_asked_is_this_interpreter_and_this_package(user: Path) -> None:
    """Oracles: sys, the package's hash; a worker of it proves torch too."""
    subject = prepare_subject()

    assert (subject.python, subject.root, subject.overlay) == (sys.executable, ROOT, ())
    assert subject.expected["harness"] == source_hash(Path(ROOT) / "bertopt_bench")
    assert subject.description["environment"] == "shared"
    proof = prove(subject, user, "torch", "numpy")
    assert mismatch(proof, subject) is None
    assert {"libc", "libtorch"} == set(proof["addresses"]) or sys.platform != "linux"


@pytest.mark.slow
def test_another_interpreter_runs_this_package(tmp_path: Path, user: Path) -> None:
    """One version of the harness drives both. Oracle: its hash, proved by the other one."""
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    other.chmod(0o755)

    subject = without_torch(prepare_subject(python=str(other)))

    assert (subject.python, subject.root) == (str(other), ROOT)
    assert subject.description["environment"] == "given"
    assert mismatch(prove(subject, user), subject) is None


def test_two_commits_meet_in_one_environment(checkout: Path, user: Path) -> None:
    """Oracle: git's commits; the worker imports what stands in its own."""
    old, new = prepared(checkout, "v1"), prepared(checkout, "v2")

    assert old.python == new.python == sys.executable
    assert old.root == new.root == ROOT
    for subject, tag in ((old, "v1"), (new, "v2")):
        proof = prove(subject, user, "norms")
        assert mismatch(proof, subject) is None
        assert proof["modules"]["norms"]["root"] == "overlay"
        assert proof["modules"]["norms"]["commit"] == git(checkout, "rev-parse", tag)
        assert subject.description["revision"] == tag
        assert subject.description["environment"] == "shared"
    swapped = prove(old, user, "norms")
    assert "is of commit" in str(mismatch(swapped, new))


def test_the_checkout_as_it_is_may_be_edited(checkout: Path, user: Path) -> None:
    """Oracle: the commit it stands on, and a hash that follows the edit."""
    write(checkout, {"norms/__init__.py": "SPEED = 3\n"})
    subject = prepared(checkout)

    assert subject.overlay == (str(checkout),)
    assert subject.description["commit"] == git(checkout, "rev-parse", "HEAD")
    assert subject.description["dirty_hash"]
    proof = prove(subject, user, "norms")
    assert mismatch(proof, subject) is None
    assert proof["modules"]["norms"]["dirty"] is True

    write(checkout, {"norms/__init__.py": "SPEED = 4\n"})

    assert "has other sources" in str(mismatch(prove(subject, user, "norms"), subject))
    assert mismatch(prove(prepared(checkout), user, "norms"), prepared(checkout)) is None


def test_a_new_package_that_git_does_not_know_is_proved_by_its_sources(
    checkout: Path, user: Path
) -> None:
    write(checkout, {"fresh/__init__.py": "", "ignored.py": "", ".gitignore": "ignored.py\n"})
    subject = prepared(checkout)

    proof = prove(subject, user, "fresh", "ignored")

    assert proof["modules"]["fresh"]["commit"] is None
    assert mismatch(proof, subject) is None


def test_a_source_layout_is_imported_from_src(tmp_path: Path, user: Path) -> None:
    files = {"src/norms/__init__.py": "", "tests/__init__.py": ""}
    commit(tmp_path / "project", files, "v1")
    subject = prepared(tmp_path / "project", "v1")

    assert [Path(folder).name for folder in subject.overlay] == ["src"]
    assert mismatch(prove(subject, user, "norms"), subject) is None


def test_no_path_of_this_machine_is_recorded(checkout: Path, tmp_path: Path, user: Path) -> None:
    """Oracle: the paths that are known here."""
    subject = prepared(checkout, "v1")

    text = json.dumps([dict(subject.description), prove(subject, user, "norms")])

    assert not [path for path in (tmp_path, sys.prefix, ROOT) if str(path) in text]


def test_the_installed_package_instead_of_the_checkouts_is_refused(
    checkout: Path, tmp_path: Path, user: Path
) -> None:
    """The wrong code was measured twice (asv#1417). Oracle: the overlay is left out here."""
    write(tmp_path / "site-packages", {"norms/__init__.py": "SPEED = 0\n"})
    subject = prepared(checkout, "v1")
    hooked = replace(subject, overlay=(str(tmp_path / "site-packages"), *subject.overlay))

    proof = prove(hooked, user, "norms")
    proof["modules"]["norms"]["root"] = "site-packages"

    assert mismatch(proof, subject) == (
        "'norms' was imported from elsewhere (site-packages), not from the checkout"
    )


def test_what_a_revision_lacks_must_not_come_from_the_working_tree(
    checkout: Path, user: Path
) -> None:
    """The user starts in the checkout, so that its later module can be imported by chance."""
    subject = prepared(checkout, "v1")

    assert {"later", "space.part"} <= set(subject.modules)
    reason = mismatch(prove(subject, checkout, "norms", "later"), subject)
    assert reason == (
        "'later' was imported (working directory), and the revision has no such module"
    )
    reason = mismatch(prove(subject, checkout, "norms", "space.part"), subject)
    assert "'space.part' was imported" in str(reason)
    later = prepared(checkout, "v2")
    assert mismatch(prove(later, checkout, "later", "space.part"), later) is None


def test_a_trial_that_uses_nothing_of_the_checkout_is_refused(checkout: Path, user: Path) -> None:
    """Both arms would run the same code, and be called equivalent."""
    subject = prepared(checkout, "v1")

    assert mismatch(prove(subject, user), subject) == (
        "nothing of the checkout was imported: it has norms, setup, and the cell names none of them"
    )


def test_a_worktree_edited_after_it_was_prepared_is_refused(checkout: Path, user: Path) -> None:
    """Sources are told by their hash, other tracked files by git."""
    commit(checkout, {"norms/kernel.cu": "one"}, "v3")
    subject = prepared(checkout, "v3")
    write(Path(subject.overlay[0]), {"norms/kernel.cu": "two"})

    assert "was edited after commit" in str(mismatch(prove(subject, user, "norms"), subject))
    again = prepared(checkout, "v3")
    assert mismatch(prove(again, user, "norms"), again) is None


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Subject]:
    """Give a proof with its subject that match, torch apart."""
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERTOPT_BENCH_CACHE", str(folder / "cache"))
        commit(folder / "checkout", {"norms/__init__.py": ""}, "v1")
        subject = prepared(folder / "checkout", "v1")
        (folder / "user").mkdir()
        return prove(subject, folder / "user", "norms", "numpy"), subject


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (["python"], "3.99.0", "the python is 3.99.0, not"),
        (["implementation"], "PyPy", "the implementation is PyPy, not CPython"),
        (["modules", "bertopt_bench", "sources"], "0" * 16, "sources of bertopt_bench are 0000"),
        (["modules", "bertopt_bench"], None, "sources of bertopt_bench are None"),
        (["modules", "norms", "root"], "other", "imported from elsewhere (other)"),
        (["modules", "norms", "commit"], "f" * 40, "is of commit ffff"),
        (["modules", "norms", "dirty"], True, "was edited after commit"),
        (["modules", "norms", "sources"], "0" * 16, "has other sources (0000"),
        (["modules", "norms", "strays"], ["norms.fast"], "has parts from elsewhere: norms.fast"),
        (["modules", "norms"], None, "nothing of the checkout was imported"),
        (["modules"], {}, "the sources of bertopt_bench are None"),
    ],
)
def test_each_part_of_a_proof_is_compared(
    sound: tuple[dict[str, Any], Subject], place: list[str], value: Any, said: str
) -> None:
    """Oracle: a proof that matches, with one part changed."""
    proof, subject = copy.deepcopy(sound[0]), sound[1]
    assert mismatch(proof, subject) is None
    part = proof
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value

    assert said in str(mismatch(proof, subject))


def test_another_version_of_numpy_is_refused(sound: tuple[dict[str, Any], Subject]) -> None:
    proof, subject = sound
    found = proof["modules"]["numpy"]["version"]
    subject = replace(subject, expected={**subject.expected, "versions": {"numpy": "1.0"}})

    assert mismatch(proof, subject) == f"numpy {found} was imported, not 1.0"
    assert mismatch({}, subject) is not None


def test_a_module_that_neither_git_nor_a_hash_can_tell_is_refused(
    sound: tuple[dict[str, Any], Subject],
) -> None:
    proof, subject = copy.deepcopy(sound[0]), sound[1]
    proof["modules"]["norms"] |= {"sources": None, "commit": None, "dirty": None}
    subject = replace(subject, expected={**subject.expected, "modules": {"norms": None}})

    assert "too large to be told by its sources" in str(mismatch(proof, subject))


def own_package(protocol: int | None) -> dict[str, str]:
    files = {"bertopt_bench/__init__.py": f"# {protocol}\n", "bertopt_bench/trial/__init__.py": ""}
    if protocol is not None:
        files["bertopt_bench/trial/arm.py"] = f"ARM_PROTOCOL = {protocol}\n"
    return files


def test_a_revision_of_this_package_runs_its_own_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Oracle: the worktree is the root, and its hash and commit are what must be proved."""
    ours = checkouts.arm_protocol(Path(ROOT))
    assert ours is not None
    bench = tmp_path / "bench"
    old = commit(bench, own_package(ours), "v1")
    commit(bench, own_package(None), "v0")
    (bench / "bertopt_bench/trial/arm.py").unlink()
    commit(bench, own_package(None), "v0-gone")
    commit(bench, own_package(ours + 1), "v2")

    subject = prepare_subject(checkout=bench, revision="v1")

    assert subject.overlay == ()
    assert Path(subject.root).parent.name != bench.name
    assert subject.expected["harness"] == source_hash(Path(subject.root) / "bertopt_bench")
    assert subject.expected["harness_commit"] == old == subject.description["commit"]
    with pytest.raises(UserError, match="revision 'v0-gone' has no duel worker"):
        prepare_subject(checkout=bench, revision="v0-gone")
    with pytest.raises(UserError, match=f"speaks version {ours + 1} of the duel protocol"):
        prepare_subject(checkout=bench)


def test_this_packages_own_checkout_is_compared_with_its_commit(
    sound: tuple[dict[str, Any], Subject],
) -> None:
    proof, subject = sound
    subject = replace(subject, expected={**subject.expected, "harness_commit": "f" * 40})
    proof = copy.deepcopy(proof)
    proof["modules"]["bertopt_bench"]["commit"] = "e" * 40

    assert mismatch(proof, subject) == f"bertopt_bench is of commit {'e' * 40}, not {'f' * 40}"


def test_changed_dependencies_get_an_environment_of_their_own(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, user: Path
) -> None:
    """Only the revision whose dependencies differ from the checkout's gets one."""
    commit(checkout, {"requirements.txt": "einops\n"}, "v3")
    asked = []

    def made(base: Any, tree: Any, **options: Any) -> tuple[Any, str]:
        asked.append((tree.commit, options["packages"]))
        return replace(base, python="/own/bin/python"), "name"

    monkeypatch.setattr(interpreters, "own_environment", made)

    new = prepared(checkout, "v3", packages=["einops"])
    old = prepared(checkout, "v2", packages=["einops"])

    assert (new.description["environment"], new.python) == ("shared", sys.executable)
    assert (old.description["environment"], old.python) == ("own", "/own/bin/python")
    assert old.description["environment_hash"] == "name"
    assert len(old.overlay) == 1
    assert asked == [(git(checkout, "rev-parse", "v2"), ["einops"])]
    # What differs may be a dependency: nothing of the checkout itself need be imported.
    assert mismatch(prove(replace(old, python=sys.executable), user), old) is None


@pytest.mark.slow
def test_a_built_project_is_proved_by_what_was_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user: Path
) -> None:
    """The real venv and pip, offline. Oracles: the sources that were committed; an edit of them."""
    pyproject = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {"pyproject.toml": pyproject, "backend.py": BACKEND, "norms/__init__.py": "SPEED = 1\n"}
    commit(tmp_path / "built", files, "v1")
    monkeypatch.setattr(interpreters, "NEEDED", ())
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    subject = prepared(tmp_path / "built", "v1", build=True)

    assert (subject.overlay, subject.description["environment"]) == ((), "own")
    assert subject.description["built"] is True
    assert subject.expected["modules"] == {"norms": source_hash(tmp_path / "built/norms")}
    proof = prove(subject, user, *subject.modules)
    assert proof["modules"]["norms"]["version"] == "1.5"
    assert mismatch(proof, subject) is None
    assert git(tmp_path / "built", "status", "--porcelain") == ""

    installed = subprocess.run(
        [subject.python, "-c", "import norms; print(norms.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=user,
    ).stdout.strip()
    Path(installed).write_text("SPEED = 2\n")
    assert "has other sources" in str(mismatch(prove(subject, user, "norms"), subject))
    nothing = mismatch(prove(subject, user), subject)
    assert "nothing of the checkout was imported" in str(nothing)


def test_building_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="without a checkout or a revision"):
        prepare_subject(build=True)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"profile.py": ""}, "warning: the checkout's profile shadows Python's own module"),
        ({"setup.py": "setup(ext_modules=[])"}, "has extensions to compile"),
    ],
)
def test_what_may_go_wrong_is_told(tmp_path: Path, files: dict[str, str], said: str) -> None:
    commit(tmp_path / "project", files, "v1")
    told: list[str] = []

    subject = prepared(tmp_path / "project", "v1", say=told.append)

    assert said in told[0]
    assert "profile" not in subject.modules


def test_two_projects_of_one_commit_are_told_apart(tmp_path: Path) -> None:
    """Oracle: what was committed: one commit, two folders, nothing edited."""
    top = tmp_path / "several"
    commit(top, {"one/norms/__init__.py": "", "two/norms/__init__.py": ""}, "v1")
    one, two = (prepared(top / name, "v1").description for name in ("one", "two"))

    assert one["commit"] == two["commit"]
    assert one["dirty_hash"] == two["dirty_hash"] == ""
    assert (one["project"], two["project"]) == ("one/", "two/")
    assert prepare_subject().description["project"] == ""


FACTS: dict[str, Any] = {
    "implementation": "CPython",
    "python": "3.11.7",
    "versions": {"torch": "2.9.0"},
    "installed_hash": "i",
    "environment": "given",
    "revision": "v1",
    "commit": "c",
    "project": "one/",
    "dirty_hash": "",
    "environment_hash": "e",
    "built": False,
}


def arm(**own: Any) -> Any:
    given = {"revision": None, "python": None, "checkout": None, "build": False, **own}
    return SimpleNamespace(label="a", cell=SimpleNamespace(id="x"), injected_share=0.0, **given)


@pytest.mark.parametrize(
    "own", [{"revision": "v1"}, {"python": "p"}, {"checkout": Path("c")}, {"build": True}]
)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("python", "3.12.0"),
        ("implementation", "PyPy"),
        ("versions", {"torch": "2.10.0"}),
        ("installed_hash", "j"),
        ("commit", "d"),
        ("project", "two/"),
        ("dirty_hash", "1"),
        ("environment_hash", "f"),
    ],
)
def test_an_arm_with_code_of_its_own_is_known_by_it(
    own: dict[str, Any], name: str, value: Any
) -> None:
    """Oracle: one fact changed; what all arms share counts for none of them."""
    same, other = arm_identity(arm(**own), FACTS), arm_identity(arm(**own), {**FACTS, name: value})
    assert same == arm_identity(arm(**own), dict(FACTS))
    assert same != other

    shared = {**FACTS, "environment": "shared"}
    of_interpreter = name in {"python", "implementation", "versions", "installed_hash"}
    alike = arm_identity(arm(**own), shared) == arm_identity(arm(**own), {**shared, name: value})
    assert alike is of_interpreter


def test_an_arm_of_what_is_installed_is_known_as_it_always_was() -> None:
    """Oracle: the five facts of version 0.1, so that folders of plain arms go on."""
    assert arm_identity(arm(), FACTS) == ["a", "x", None, False, 0.0]
    assert arm_identity(arm(build=True), FACTS) != arm_identity(arm(revision="v1"), FACTS)
    built, plain = (arm_identity(arm(revision="v1", build=b), FACTS) for b in (True, False))
    assert built != plain
