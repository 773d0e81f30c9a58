"""The package's code, described in git checkouts that the test makes."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from bertopt_bench.measure import provenance
from bertopt_bench.measure.provenance import package_code, source_hash

if TYPE_CHECKING:
    from pathlib import Path

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(checkout: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()


def write_package(folder: Path) -> Path:
    (folder / "report/templates").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "loop.py").write_text("steps = 1\n")
    (folder / "report/templates/page.html").write_text("<p>")
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Make a package in a checkout with one commit."""
    folder = write_package(tmp_path / "checkout/bertopt_bench")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-q", "-m", "one")
    return folder


@needs_git
def test_a_clean_checkout_is_its_commit(package: Path) -> None:
    """Oracle: git rev-parse."""
    code = package_code(package)

    assert code["commit"] == git(package, "rev-parse", "HEAD")
    assert code["dirty_hash"] == ""
    assert code["version"] == metadata.version("bertopt-bench")


@needs_git
def test_a_commit_beside_the_package_changes_nothing(package: Path) -> None:
    """Committing results must not make the records stale."""
    before = package_code(package)
    (package.parent / "results.jsonl").write_text("{}")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "results")

    assert package_code(package) == before
    assert before["commit"] != git(package, "rev-parse", "HEAD")


@needs_git
@pytest.mark.parametrize("name", ["loop.py", "report/templates/page.html", "new.py"])
@pytest.mark.parametrize("staged", [False, True])
def test_an_edit_or_a_new_source_file_is_dirty(package: Path, name: str, staged: bool) -> None:
    """The hash stands for the content: undoing the edit makes the code clean again."""
    clean = package_code(package)
    (package / name).write_text("edited\n")
    if staged:
        git(package, "add", ".")

    dirty = package_code(package)

    assert dirty["commit"] == clean["commit"]
    assert dirty["dirty_hash"] == source_hash(package) != ""
    git(package, "reset", "-q", "--hard")
    git(package, "clean", "-qfd")
    assert package_code(package) == clean


@needs_git
def test_a_deleted_source_file_is_dirty_and_bytecode_is_not(package: Path) -> None:
    (package / "__pycache__").mkdir()
    (package / "__pycache__/loop.cpython-311.pyc").write_text("x")
    assert package_code(package)["dirty_hash"] == ""

    (package / "loop.py").unlink()

    assert package_code(package)["dirty_hash"] != ""


def installed_from(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    """Let pip's metadata say that the package came from the folder."""
    stated = json.dumps({"url": checkout.as_uri(), "dir_info": {}})
    installed_as(monkeypatch, stated)


def installed_as(monkeypatch: pytest.MonkeyPatch, stated: str | None) -> None:
    found = SimpleNamespace(read_text=lambda _name: stated, version="9")
    monkeypatch.setattr(provenance.metadata, "distribution", lambda _name: found)


@needs_git
def test_an_installed_copy_finds_its_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: Path
) -> None:
    """Oracle: the checkout's own description; a blank in the path comes quoted in the URL."""
    spaced = package.parent.rename(tmp_path / "my checkout")
    copy = write_package(tmp_path / "site-packages/bertopt_bench")
    installed_from(monkeypatch, spaced)

    assert package_code(copy) == package_code(spaced / "bertopt_bench")
    assert package_code(copy)["dirty_hash"] == ""


@needs_git
def test_a_copy_that_differs_from_its_checkout_has_only_a_hash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: Path
) -> None:
    """The checkout moved on after the install: its commit says nothing about the copy."""
    copy = write_package(tmp_path / "site-packages/bertopt_bench")
    (package / "loop.py").write_text("steps = 2\n")
    installed_from(monkeypatch, package.parent)

    code = package_code(copy)

    assert (code["commit"], code["dirty_hash"]) == (None, source_hash(copy))


@needs_git
def test_a_package_that_the_surrounding_checkout_ignores_has_no_commit_of_it(
    monkeypatch: pytest.MonkeyPatch, package: Path
) -> None:
    """An environment inside another project's checkout must not borrow that project's commit."""
    copy = write_package(package.parent / "venv/bertopt_bench")
    installed_as(monkeypatch, None)

    assert package_code(copy)["commit"] is None


def test_without_git_the_content_is_hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    copy = write_package(tmp_path / "bertopt_bench")

    code = package_code(copy)

    assert (code["commit"], code["dirty_hash"]) == (None, source_hash(copy))


def test_the_hash_follows_names_and_contents_of_sources_only(tmp_path: Path) -> None:
    one = write_package(tmp_path / "one")
    first = source_hash(one)
    (one / "notes.md").write_text("no source")

    assert source_hash(one) == first
    assert len(first) == 16
    (one / "loop.py").rename(one / "moved.py")
    assert source_hash(one) != first
