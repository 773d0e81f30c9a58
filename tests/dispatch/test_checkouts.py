"""Worktrees of the cache, made from repositories that the test makes."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from made_checkouts import commit, git, write

from bertopt_bench.dispatch import checkouts, shelves
from bertopt_bench.dispatch.checkouts import (
    Tree,
    arm_protocol,
    copy_sources,
    dirty_hash,
    find_checkout,
    import_folders,
    needs_compiler,
    place_in_repository,
    requirements_hash,
    revision_tree,
    working_tree,
)
from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def silent(_: str) -> None:
    """Hear nothing."""


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make a repository with two commits, tagged v1 and v2."""
    folder = tmp_path / "norms checkout"
    commit(folder, {"norms/__init__.py": "SPEED = 1\n", ".gitignore": "*.log\n"}, "v1")
    commit(folder, {"norms/__init__.py": "SPEED = 2\n"}, "v2")
    return folder


def test_a_revision_has_its_own_files_and_the_checkout_keeps_its_own(checkout: Path) -> None:
    """Oracle: what was committed under the tag; git status of the user's checkout."""
    tree = revision_tree(checkout, "v1", silent)

    assert (tree.folder / "norms/__init__.py").read_text() == "SPEED = 1\n"
    assert tree.commit == git(checkout, "rev-parse", "v1")
    assert tree.dirty_hash == ""
    assert (checkout / "norms/__init__.py").read_text() == "SPEED = 2\n"
    assert git(checkout, "status", "--porcelain", "--branch") == "## main"


@pytest.mark.parametrize("name", ["v1", "v2~1", "main^", "HEAD~1"])
def test_all_names_of_a_commit_share_a_worktree(checkout: Path, name: str) -> None:
    """Oracle: the tree of the full hash, kept since: a mark in an ignored file stays."""
    whole = revision_tree(checkout, git(checkout, "rev-parse", "v1"), silent)
    (whole.folder / "kept.log").write_text("")

    assert revision_tree(checkout, name, silent) == whole
    assert (whole.folder / "kept.log").exists()


def edit(tree: Tree, _: Path) -> None:
    (tree.folder / "norms/__init__.py").write_text("SPEED = 3\n")


def add(tree: Tree, _: Path) -> None:
    (tree.folder / "norms/new.py").write_text("")


def move_on(tree: Tree, _: Path) -> None:
    git(tree.folder, "checkout", "-q", "--detach", "v2")


def lose(tree: Tree, _: Path) -> None:
    shutil.rmtree(tree.folder)


def interrupt(tree: Tree, checkout: Path) -> None:
    """Leave what git leaves when it is killed while it fills a worktree."""
    (registered,) = (checkout / ".git/worktrees").iterdir()
    (registered / "locked").write_text("initializing")
    (registered / "index.lock").write_text("")
    (registered / "index").unlink()
    shutil.rmtree(tree.folder / "norms")


def interrupt_early(tree: Tree, checkout: Path) -> None:
    interrupt(tree, checkout)
    shutil.rmtree(tree.folder)


def forget(_: Tree, checkout: Path) -> None:
    shutil.rmtree(checkout / ".git/worktrees")


@pytest.mark.parametrize(
    "damage",
    [edit, add, move_on, lose, interrupt, interrupt_early, forget],
    ids=lambda f: f.__name__,
)
def test_a_damaged_worktree_is_made_anew(
    checkout: Path, damage: Callable[[Tree, Path], None]
) -> None:
    """Oracle: the tree before the damage; git knows of one worktree, and it is clean."""
    before = revision_tree(checkout, "v1", silent)
    damage(before, checkout)

    after = revision_tree(checkout, "v1", silent)

    assert after == before
    assert (after.folder / "norms/__init__.py").read_text() == "SPEED = 1\n"
    assert git(after.folder, "status", "--porcelain") == ""
    assert len(git(checkout, "worktree", "list").splitlines()) == 2


def test_bytecode_is_no_damage(checkout: Path) -> None:
    """Running a revision writes bytecode into its worktree."""
    before = revision_tree(checkout, "v1", silent)
    write(before.folder, {"norms/__pycache__/__init__.cpython-311.pyc": ""})

    assert revision_tree(checkout, "v1", silent) == before
    assert (before.folder / "norms/__pycache__").exists()


def test_a_moved_repository_and_another_one_in_its_place(checkout: Path) -> None:
    """Oracle: the text that each repository has under the tag."""
    revision_tree(checkout, "v1", silent)
    moved = checkout.rename(checkout.with_name("moved"))
    commit(checkout, {"norms/__init__.py": "SPEED = 9\n"}, "v1")

    old, new = revision_tree(moved, "v1", silent), revision_tree(checkout, "v1", silent)

    assert (old.folder / "norms/__init__.py").read_text() == "SPEED = 1\n"
    assert (new.folder / "norms/__init__.py").read_text() == "SPEED = 9\n"


def test_the_same_commit_in_a_repository_made_anew(checkout: Path, tmp_path: Path) -> None:
    """The worktree's own link leads nowhere then, or to another repository."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(checkout), str(clone))
    before = revision_tree(clone, "v1", silent)
    shutil.rmtree(clone)
    git(tmp_path, "clone", "-q", str(checkout), str(clone))

    after = revision_tree(clone, "v1", silent)

    assert after == before
    assert len(git(clone, "worktree", "list").splitlines()) == 2


def test_preparing_at_once_makes_one_worktree(checkout: Path) -> None:
    """Oracle: equal answers, and git's own list."""
    said: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(lambda _: revision_tree(checkout, "v1", said.append), range(4)))

    assert len(set(trees)) == 1
    assert len(git(checkout, "worktree", "list").splitlines()) == 2
    assert set(said) <= {"waiting for another process that prepares the same code"}


def test_no_hook_of_the_user_runs(checkout: Path, tmp_path: Path) -> None:
    """Oracle: the file that the hook would write."""
    hook = checkout / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    hook.chmod(0o755)

    revision_tree(checkout, "v1", silent)

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ("v11", "Did you mean 'v1'?"),
        ("mian", "Did you mean 'main'?"),
        ("zzzzzzzz", "It has: main, v1, v2."),
        ("--all", "a branch, a tag or a commit"),
        ("", "a branch, a tag or a commit"),
        ("v1:norms", "a branch, a tag or a commit"),
    ],
)
def test_an_unknown_revision_names_what_there_is(checkout: Path, revision: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        revision_tree(checkout, revision, silent)

    assert f"no revision '{revision}'" in str(raised.value)
    assert said in str(raised.value)


def test_a_shallow_checkout_says_how_to_get_the_rest(checkout: Path, tmp_path: Path) -> None:
    """Hosted runners clone one commit only. Oracle: git's own option."""
    git(tmp_path, "clone", "-q", "--depth=1", checkout.as_uri(), "shallow")

    with pytest.raises(UserError, match=r"git fetch --unshallow.*fetch-depth: 0"):
        revision_tree(tmp_path / "shallow", "v1", silent)


def test_unfilled_submodules_are_told(checkout: Path) -> None:
    commit(checkout, {".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = ./x\n'}, "v3")
    said: list[str] = []

    revision_tree(checkout, "v3", said.append)

    assert said == ["note: the submodules of v3 are not filled"]


def test_a_project_below_the_top_is_found_in_the_revision(tmp_path: Path) -> None:
    """Oracle: what was committed; a folder that came later is not there before."""
    top = tmp_path / "several"
    commit(top, {"one/norms/__init__.py": "SPEED = 1\n"}, "v1")
    commit(top, {"two/norms/__init__.py": ""}, "v2")

    tree = revision_tree(top / "one", "v1", silent)

    assert tree.folder.name == "one"
    with pytest.raises(UserError, match="revision 'v1' has no folder two"):
        revision_tree(top / "two", "v1", silent)


def test_a_cache_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", str(checkout / ".gitignore"))

    with pytest.raises(UserError, match="BERTOPT_BENCH_CACHE names another folder"):
        revision_tree(checkout, "v1", silent)


def test_a_working_tree_is_told_by_commit_and_by_what_differs(checkout: Path) -> None:
    """Oracle: git; undoing an edit makes the tree clean again, ignored files never matter."""
    clean = working_tree(checkout)
    assert (clean.commit, clean.dirty_hash) == (git(checkout, "rev-parse", "HEAD"), "")

    hashes = set()
    for name, text in (("norms/__init__.py", "3"), ("norms/__init__.py", "4"), ("new.cu", "")):
        write(checkout, {name: text})
        hashes.add(working_tree(checkout).dirty_hash)
    (checkout / "norms/__init__.py").unlink()
    hashes.add(dirty_hash(checkout))
    assert len(hashes) == 4
    assert "" not in hashes

    git(checkout, "reset", "-q", "--hard")
    (checkout / "new.cu").unlink()
    write(checkout, {"trace.log": "x", "norms/__pycache__/x.pyc": ""})
    assert working_tree(checkout) == clean


@pytest.mark.parametrize(
    ("folder", "said"),
    [("missing", "there is no such folder"), ("plain", "not a git rep"), ("new", "has no commit")],
)
def test_what_is_no_checkout_is_refused(tmp_path: Path, folder: str, said: str) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "new").mkdir()
    git(tmp_path / "new", "init", "-q")

    with pytest.raises(UserError, match=said):
        working_tree(tmp_path / folder)


def test_the_checkout_is_this_packages_or_the_working_directorys(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, tmp_path: Path
) -> None:
    """An installed package lies in no checkout of its own."""
    monkeypatch.chdir(checkout / "norms")
    monkeypatch.setattr(checkouts, "PACKAGE", tmp_path)
    assert find_checkout() == checkout.resolve()

    monkeypatch.setattr(checkouts, "PACKAGE", checkout / "norms")
    monkeypatch.chdir(tmp_path)
    assert find_checkout() == checkout.resolve()

    monkeypatch.setattr(checkouts, "PACKAGE", tmp_path)
    with pytest.raises(UserError, match="lies in none"):
        find_checkout()


@pytest.mark.parametrize(
    ("files", "folders"),
    [
        ({"norms/__init__.py": ""}, ["."]),
        ({"src/norms/__init__.py": "", "tests/__init__.py": ""}, ["src"]),
        ({"src/space/norms/__init__.py": ""}, ["src"]),
        ({"src/norms.py": "", "setup.py": ""}, ["src"]),
        ({"norms/__init__.py": "", "src/kernel.cu": "", "src/generate.py": ""}, ["."]),
        (
            {
                "python/norms/__init__.py": "",
                "pyproject.toml": '[tool.setuptools.packages.find]\nwhere = ["python"]\n',
            },
            ["python"],
        ),
        (
            {
                "lib/norms/__init__.py": "",
                "pyproject.toml": '[tool.setuptools]\npackage-dir = {"" = "lib"}\n',
            },
            ["lib"],
        ),
        ({"norms.py": "", "pyproject.toml": "not toml ["}, ["."]),
    ],
)
def test_packages_are_imported_from_where_they_lie(
    tmp_path: Path, files: dict[str, str], folders: list[str]
) -> None:
    """Oracle: the layouts that setuptools documents."""
    write(tmp_path, files)

    assert import_folders(tmp_path) == tuple(tmp_path / name for name in folders)


PYPROJECT = """
[build-system]
requires = ["setuptools"]
[project]
name = "norms"
version = "{version}"
dependencies = ["{dependency}"]
[tool.ruff]
line-length = {width}
"""


@pytest.mark.parametrize(
    ("files", "same"),
    [
        ({"pyproject.toml": PYPROJECT.format(version="2", dependency="numpy", width=80)}, True),
        ({"norms/__init__.py": "SPEED = 9\n"}, True),
        ({"pyproject.toml": PYPROJECT.format(version="1", dependency="numpy<2", width=80)}, False),
        ({"pyproject.toml": "not toml ["}, False),
        ({"requirements-test.txt": "pytest\n"}, False),
        ({"constraints.txt": "numpy==2\n"}, False),
        ({"setup.py": "setup(ext_modules=[])\n"}, False),
    ],
)
def test_only_what_is_said_of_dependencies_counts(
    tmp_path: Path, files: dict[str, str], same: bool
) -> None:
    write(tmp_path, {"pyproject.toml": PYPROJECT.format(version="1", dependency="numpy", width=88)})
    before = requirements_hash(tmp_path)
    write(tmp_path, files)

    assert (requirements_hash(tmp_path) == before) is same


def test_a_file_that_dependencies_are_read_from_counts(tmp_path: Path) -> None:
    dynamic = '[tool.setuptools.dynamic]\ndependencies = {file = ["deps/run.in", "../x.in"]}\n'
    write(tmp_path, {"pyproject.toml": dynamic, "deps/run.in": "numpy\n"})
    before = requirements_hash(tmp_path)
    write(tmp_path, {"deps/run.in": "numpy<2\n"})

    assert requirements_hash(tmp_path) != before


@pytest.mark.parametrize(
    ("files", "needed"),
    [
        ({}, False),
        ({"pyproject.toml": '[build-system]\nbuild-backend = "setuptools.build_meta"\n'}, False),
        ({"pyproject.toml": '[build-system]\nbuild-backend = "mesonpy"\n'}, True),
        ({"setup.py": "setup(ext_modules=[CUDAExtension()])\n"}, True),
    ],
)
def test_extensions_to_compile_are_seen(
    tmp_path: Path, files: dict[str, str], needed: bool
) -> None:
    write(tmp_path, files)

    assert needs_compiler(tmp_path) is needed


@pytest.mark.parametrize(
    ("text", "protocol"),
    [
        ("ARM_PROTOCOL = 7\n", 7),
        ("import x\nARM_PROTOCOL: Final[int] = 12  # why\n", 12),
        ("OTHER = 3\n# ARM_PROTOCOL = 4\n", None),
        (None, None),
    ],
)
def test_the_protocol_is_read_from_the_text(
    tmp_path: Path, text: str | None, protocol: int | None
) -> None:
    """A revision's worker is not imported here."""
    if text is not None:
        write(tmp_path, {"bertopt_bench/trial/arm.py": text})

    assert arm_protocol(tmp_path) == protocol


def test_a_copy_has_what_git_knows_and_knows_its_repository(checkout: Path, tmp_path: Path) -> None:
    """Oracle: git describe, which tools that read versions from tags call."""
    write(checkout, {"new.py": "", "trace.log": "ignored", "norms/__init__.py": "SPEED = 3\n"})
    tree = revision_tree(checkout, "v1", silent)
    for source, target in ((checkout, tmp_path / "one"), (tree.folder, tmp_path / "two")):
        target.mkdir()
        copy_sources(source, target)

    assert {item.name for item in (tmp_path / "one").iterdir()} == {
        ".git",
        ".gitignore",
        "new.py",
        "norms",
    }
    assert (tmp_path / "one/norms/__init__.py").read_text() == "SPEED = 3\n"
    assert git(tmp_path / "one", "describe", "--tags") == "v2"
    assert git(tmp_path / "two", "describe", "--tags") == "v1"
    assert git(checkout, "status", "--porcelain") == "M norms/__init__.py\n?? new.py"


def used(tree: Tree, seconds: float) -> None:
    """Let a worktree have been used at a time."""
    mark = tree.folder.with_name(f"{tree.folder.name}.used")
    os.utime(mark, (seconds, seconds))


def test_worktrees_that_were_not_used_for_longest_make_way(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: by hand: of v1 to v4 the last made and the last asked for; git's own list."""
    monkeypatch.setattr(checkouts, "KEPT_WORKTREES", 2)
    monkeypatch.setattr(shelves, "_HELD", {})
    for number in (3, 4):
        commit(checkout, {"norms/__init__.py": f"SPEED = {number}\n"}, f"v{number}")
    said: list[str] = []
    trees = [revision_tree(checkout, f"v{number}", said.append) for number in (1, 2, 3)]
    assert all(tree.folder.is_dir() for tree in trees)  # in use by this process
    assert said == []

    for number, tree in enumerate(trees):
        used(tree, 1000.0 + number)
    revision_tree(checkout, "v1", said.append)
    shelves._HELD.clear()  # as the end of this process does
    last = revision_tree(checkout, "v4", said.append)

    assert [tree.folder.is_dir() for tree in (*trees, last)] == [True, False, False, True]
    gone = sorted(tree.commit[:12] for tree in trees[1:])
    assert sorted(line.split()[-4].rstrip(",") for line in said) == gone
    assert len(git(checkout, "worktree", "list").splitlines()) == 3
    assert git(checkout, "status", "--porcelain", "--branch") == "## main"
    assert revision_tree(checkout, "v2", said.append) == trees[1]


def test_worktrees_of_other_repositories_make_way_even_where_these_are_gone(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the folders: a lost repository's and another one's; that one's own list."""
    monkeypatch.setattr(checkouts, "KEPT_WORKTREES", 1)
    monkeypatch.setattr(shelves, "_HELD", {})
    for name in ("lost", "other"):
        git(tmp_path, "clone", "-q", str(checkout), name)
    trees = [revision_tree(tmp_path / name, "v1", silent) for name in ("lost", "other")]
    shutil.rmtree(tmp_path / "lost")
    for tree in trees:
        used(tree, 1000.0)
    shelves._HELD.clear()

    revision_tree(checkout, "v1", silent)

    assert not any(tree.folder.exists() for tree in trees)
    assert len(git(tmp_path / "other", "worktree", "list").splitlines()) == 1


def test_a_project_has_a_place_in_its_repository(tmp_path: Path) -> None:
    """Oracle: git's own words for the folder below the top, where and of what it is looked at."""
    top = tmp_path / "several"
    commit(top, {"one/norms/__init__.py": ""}, "v1")

    assert place_in_repository(top) == ""
    assert place_in_repository(top / "one") == "one/"
    assert place_in_repository(revision_tree(top / "one", "v1", silent).folder) == "one/"
