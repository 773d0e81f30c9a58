"""The user's git checkouts: a revision's files in a worktree of the cache, and what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.shelves import discard, evict, folders, hold, locked
from bertopt_bench.errors import UserError, nearest
from bertopt_bench.measure.provenance import PACKAGE, git_environment, run_git
from bertopt_bench.workload.cache import cache_root, hash_file

if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[[str], None]

WORKER_FILE = "trial/arm.py"
KEPT_WORKTREES = 8  # of all repositories; more only while they are in use
_STATED = ("dependencies", "optional-dependencies", "requires-python", "dynamic")
_POETRY = ("dependencies", "extras", "group")
_FILES = ("setup.py", "setup.cfg", "requirements*.txt", "constraints*.txt", "requirements/*.txt")
QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",  # nothing is fetched, neither large files
    "GIT_NO_LAZY_FETCH": "1",  # nor the missing objects of a partial clone
    "GIT_OPTIONAL_LOCKS": "0",
}


@dataclass(frozen=True, slots=True)
class Tree:
    """A project's files on disk: a checkout's working tree, or a worktree of one commit.

    ``folder`` is the project's, which may lie below the checkout's top. ``dirty_hash`` is empty
    exactly when ``commit`` says it all.
    """

    folder: Path
    commit: str
    dirty_hash: str


def find_checkout() -> Path:
    """Give the checkout that this package lies in, else that of the working directory."""
    ours = run_git(PACKAGE, "ls-files", "--error-unmatch", "__init__.py") is not None
    for folder in (PACKAGE, Path.cwd()) if ours else (Path.cwd(),):
        top = run_git(folder, "rev-parse", "--show-toplevel")
        if top:
            return Path(top)
    raise UserError(
        f"A revision needs a git checkout, and {Path.cwd()} lies in none. "
        'Name it: checkout = "path/to/repository".'
    )


def working_tree(project: Path) -> Tree:
    """Describe a project's files as they are, edited or not.

    Raises:
        UserError: the folder is not there, in no git checkout, or in one without a commit.
    """
    folder = project.expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"checkout '{project}': there is no such folder.")
    _git(folder, "rev-parse", "--show-toplevel")
    commit = run_git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        raise UserError(f"checkout '{project}' has no commit yet: make one first.")
    return Tree(folder, commit, dirty_hash(folder))


def revision_tree(project: Path, revision: str, say: Say) -> Tree:
    """Give a project's files at a revision, in a worktree that the cache keeps.

    Two processes at once make it once; one that was left half made, was edited, or belongs to a
    repository that is no longer there is made anew. Nothing is fetched and no hook runs. It stays
    while this process lives; of others, those that were not used for longest make way.

    Raises:
        UserError: there is no such revision, or the project's folder did not exist in it.
    """
    top = Path(_git(project, "rev-parse", "--show-toplevel"))
    commit = _resolve(top, revision)
    repository = _git_folder(top)
    shelf = _shelf() / hashlib.sha256(os.fsencode(repository)).hexdigest()[:16]
    folder = shelf / commit
    hold(folder)
    with locked(shelf.with_suffix(".lock"), say):
        whole = _is_whole(folder, commit, repository)
        if not whole:
            _make_worktree(top, folder, commit)
    if not whole:
        if (folder / ".gitmodules").is_file():
            say(f"note: the submodules of {revision} are not filled")
        for gone in evict(folders(_shelf(), "*/*"), KEPT_WORKTREES, _remove_worktree):
            say(f"removed from the cache: the worktree of commit {gone.name[:12]}, long not used")
    inner = folder / project.resolve().relative_to(top.resolve())
    if not inner.is_dir():
        raise UserError(f"revision '{revision}' has no folder {inner.relative_to(folder)}.")
    return Tree(inner, commit, dirty_hash(inner))


def import_folders(project: Path) -> tuple[Path, ...]:
    """Give the folders from which a project's packages are imported: as stated, src/, or itself."""
    setting = read_toml(project / "pyproject.toml").get("tool", {}).get("setuptools", {})
    find = setting.get("packages", {})
    stated = find.get("find", {}).get("where", []) if isinstance(find, dict) else []
    stated = stated or [setting.get("package-dir", {}).get("", "src")]
    found = [project / name for name in stated if _has_packages(project / name)]
    source = project / "src"
    if not found and any(source.glob("*.py")) and not any(project.glob("*/__init__.py")):
        found = [source]
    return tuple(found) or (project,)


def requirements_hash(project: Path) -> str:
    """Hash what a project says of its dependencies: equal hashes may share an environment."""
    document = read_toml(project / "pyproject.toml")
    tool = document.get("tool", {})
    dynamic = tool.get("setuptools", {}).get("dynamic", {})
    stated: dict[str, Any] = {
        "build-system": document.get("build-system"),
        "project": {key: document.get("project", {}).get(key) for key in _STATED},
        "poetry": {key: tool.get("poetry", {}).get(key) for key in _POETRY},
        "dynamic": {key: dynamic.get(key) for key in _STATED},
    }
    named = {project / name for name in re.findall(r"[\w./-]+\.\w+", json.dumps(stated["dynamic"]))}
    files = {file for pattern in _FILES for file in project.glob(pattern)} | named
    stated["files"] = {
        file.relative_to(project).as_posix(): hash_file(file)
        for file in sorted(files)
        if file.is_file() and file.is_relative_to(project)
    }
    canonical = json.dumps(stated, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file; one that is missing says nothing, a faulty one its text."""
    text = file.read_text("utf-8", "replace") if file.is_file() else ""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {"build-system": {"faulty": text}}


def needs_compiler(project: Path) -> bool:
    """Say whether a project's extensions must be built, which a worktree's are not."""
    system = read_toml(project / "pyproject.toml").get("build-system", {})
    setup = project / "setup.py"
    builds = ("scikit_build_core", "mesonpy", "maturin")
    return str(system.get("build-backend", "")).startswith(builds) or (
        setup.is_file() and "ext_modules" in setup.read_text("utf-8", "replace")
    )


def arm_protocol(root: Path) -> int | None:
    """Read the protocol of the duel worker below a root; None where it has no such worker."""
    file = root / PACKAGE.name / WORKER_FILE
    text = file.read_text("utf-8") if file.is_file() else ""
    found = re.search(r"^ARM_PROTOCOL\b[^=\n]*=\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def changed_files(folder: Path) -> list[str]:
    """Name the files below a folder that differ from HEAD, new ones included, bytecode not."""
    listed = _git(folder, "diff", "--name-only", "--relative", "-z", "HEAD", "--", ".")
    listed += "\0" + _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", ".")
    names = {name for name in listed.split("\0") if name and not name.endswith(".pyc")}
    return sorted(names)


def dirty_hash(folder: Path) -> str:
    """Hash the files below a folder that differ from HEAD, to 16 digits; empty where none does."""
    names, digest = changed_files(folder), hashlib.sha256()
    for name in names:
        file = folder / name
        content = hash_file(file) if file.is_file() else "gone"
        digest.update(f"{content}  {name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16] if names else ""


def place_in_repository(project: Path) -> str:
    """Give the folder of a project below its repository's top, as "one/two/"; empty for the top."""
    return _git(project, "rev-parse", "--show-prefix")


def copy_sources(project: Path, target: Path) -> None:
    """Copy a project's files, ignored ones not, to build it there: building leaves traces.

    The copy finds the repository, so that tools which read the version from its tags work.
    """
    listed = _git(project, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        file = project / name
        if file.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target / name)
    if (project / ".git").exists():
        repository = _git(project, "rev-parse", "--absolute-git-dir")
        (target / ".git").write_text(f"gitdir: {repository}\n", encoding="utf-8")


def _resolve(top: Path, revision: str) -> str:
    commit = None
    if not revision.startswith("-"):
        name = f"{revision}^{{commit}}"
        commit = run_git(top, "rev-parse", "--verify", "--quiet", name)
    if commit:
        return commit
    names = (run_git(top, "for-each-ref", "--format=%(refname:short)") or "").split()
    hint = nearest(revision, names)
    if not hint and names:
        hint = f" It has: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}."
    if run_git(top, "rev-parse", "--is-shallow-repository") == "true":
        hint += (
            " It is shallow; 'git fetch --unshallow --tags' completes it"
            " (fetch-depth: 0 for actions/checkout, GIT_DEPTH: 0 for GitLab)."
        )
    raise UserError(
        f"The checkout {top} has no revision '{revision}'.{hint} "
        "A revision is a branch, a tag or a commit that is there; nothing is fetched."
    )


def _git_folder(top: Path) -> Path:
    """Give the repository's own folder, which all its worktrees share."""
    return Path(top, _git(top, "rev-parse", "--git-common-dir")).resolve()


def _is_whole(folder: Path, commit: str, repository: Path) -> bool:
    """Say whether a worktree is there, at the commit, unedited, and of this repository."""
    if not (folder / ".git").is_file():
        return False
    try:
        return (
            _git(folder, "rev-parse", "HEAD") == commit
            and _git_folder(folder) == repository
            and not changed_files(folder)
        )
    except UserError:
        return False


def _shelf() -> Path:
    return cache_root().absolute() / "worktrees"


def _make_worktree(top: Path, folder: Path, commit: str) -> None:
    discard(folder)
    _git(top, "worktree", "prune")
    # Forced twice: one whose making was interrupted is registered, and locked.
    add = ("worktree", "add", "--force", "--force", "--detach", "--quiet")
    _git(top, *add, str(folder), commit)


def _remove_worktree(folder: Path) -> None:
    """Remove a worktree, and what its repository knows of it, if that is still there."""
    repository = None
    with suppress(UserError):
        repository = _git_folder(folder)
    discard(folder)
    if repository is not None:
        with suppress(UserError):
            _git(repository, "worktree", "remove", "--force", "--force", str(folder))


def _has_packages(folder: Path) -> bool:
    return any(folder.glob("*/__init__.py")) or any(folder.glob("*/*/__init__.py"))


def _git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and give what it prints.

    Raises:
        UserError: git is not installed, or it refuses, with its own words.
    """
    try:
        run = subprocess.run(
            ["git", "-c", f"core.hooksPath={os.devnull}", *arguments],
            cwd=folder,
            env=git_environment() | QUIET | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError:
        raise UserError("A checkout's revisions need git, which is not installed.") from None
    if run.returncode:
        said = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
        raise UserError(f"git {arguments[0]} in {folder} refuses: {said[-1]}")
    return run.stdout.strip()
