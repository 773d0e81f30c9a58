"""Say exactly which code measured: version, commit, and a hash where the commit is not all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TypedDict
from urllib.parse import unquote, urlparse

DISTRIBUTION = "bertopt-bench"
PACKAGE = Path(__file__).resolve().parent.parent


class Code(TypedDict):
    """The package's code: `dirty_hash` is empty exactly when `commit` says it all."""

    version: str
    commit: str | None
    dirty_hash: str


def package_code(package: Path = PACKAGE) -> Code:
    """Describe the code in the package's folder.

    The commit is the last one that touched the folder, so that committing results makes no record
    stale. An installed copy is looked up in the checkout it came from, as long as both are equal.
    """
    folder = package if _tracked(package) else _origin(package)
    commit = run_git(folder, "log", "-1", "--format=%H", "--", ".") if folder else None
    clean = bool(commit) and folder is not None and not _changed(folder)
    return {
        "version": _version(),
        "commit": commit or None,
        "dirty_hash": "" if clean else source_hash(package),
    }


def source_hash(folder: Path) -> str:
    """Hash names and contents of the Python and template files below a folder, to 16 digits."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if _is_source(path, folder)):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _is_source(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    if "__pycache__" in parts or not path.is_file():
        return False
    return path.suffix == ".py" or "templates" in parts[:-1]


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "not installed"


def _tracked(package: Path) -> bool:
    return run_git(package, "ls-files", "--error-unmatch", "__init__.py") is not None


def _changed(folder: Path) -> bool:
    """Say whether a source file differs from the checkout's HEAD, new files included."""
    options = ("--porcelain", "-z", "--untracked-files=all")
    listed = run_git(folder, "--no-optional-locks", "status", *options, "--", ".")
    if listed is None:
        return True
    return any(entry.endswith(".py") or "/templates/" in entry for entry in listed.split("\0"))


def _origin(package: Path) -> Path | None:
    """Find the package's folder in the local checkout that pip installed it from, if unchanged."""
    try:
        stated = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    url = urlparse(json.loads(stated)["url"]) if stated else None
    if url is None or url.scheme != "file":
        return None
    folder = Path(unquote(url.path)) / PACKAGE.name
    same = folder.is_dir() and source_hash(folder) == source_hash(package)
    return folder if same and _tracked(folder) else None


def git_environment() -> dict[str, str]:
    """Give the environment without git's own variables: in a hook they name another repository."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}


def run_git(folder: Path, *arguments: str) -> str | None:
    """Run git in the folder; None where it fails, is not installed or takes too long."""
    try:
        run = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=git_environment(),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None
