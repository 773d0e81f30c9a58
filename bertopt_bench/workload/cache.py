"""Keep what was prepared in folders named by what it was made from; never use a damaged one.

A folder is written under another name and then renamed, so that it is there whole or not at all.
Its ``manifest.json`` holds size and sha256 of each file; both are checked before use.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Progress = Callable[[str, int, int], None]
    Build = Callable[[Path], Mapping[str, Any]]

ENVIRONMENT = "BERTOPT_BENCH_CACHE"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder of the cache: sha256 of its files by name, and what its builder had to say of it."""

    folder: Path
    files: Mapping[str, str]
    facts: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """One hash of all files."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def cache_root() -> Path:
    """Give the cache's folder: ``BERTOPT_BENCH_CACHE``, else ``~/.cache/bertopt-bench``."""
    chosen = os.environ.get(ENVIRONMENT)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "bertopt-bench"


def keep(root: Path, kind: str, key: Mapping[str, Any], build: Build, progress: Progress) -> Kept:
    """Give the folder made from ``key``; build it where it is missing or damaged.

    ``build(folder)`` writes the files and returns facts for the manifest (JSON). ``key`` must hold
    all that the files depend on. A rebuilt folder is announced through ``progress``.
    """
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"))
    folder = root / kind / hashlib.sha256(canonical.encode()).hexdigest()[:24]
    if folder.exists():
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, TypeError) as fault:
            progress(f"cache damaged, made anew: {folder} ({fault})", 0, 1)
            _discard(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as unfinished:
        building = Path(unfinished) / "whole"
        building.mkdir()
        facts = build(building)
        _seal(building, key, facts)
        try:
            building.rename(folder)
        except OSError:  # another process was first
            if not folder.exists():
                raise
    return _read(folder)


def hash_file(file: Path) -> str:
    """Give the sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_sources(*names: str) -> str:
    """Hash modules of this package by name: what they write depends on their text."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def _seal(folder: Path, key: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": hash_file(file)}
        for file in sorted(folder.iterdir())
    }
    text = json.dumps({"key": key, "files": files, "facts": facts}, indent=1, sort_keys=True)
    (folder / _MANIFEST).write_text(text, encoding="utf-8")


def _read(folder: Path) -> Kept:
    """Check a folder against its manifest.

    Raises:
        ValueError: a file's size or hash is not what was written, or the manifest is no JSON.
        OSError: a file is missing.
    """
    manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    for name, expected in manifest["files"].items():
        file = folder / name
        if file.stat().st_size != expected["bytes"]:
            raise ValueError(f"{name} has {file.stat().st_size} bytes, not {expected['bytes']}")
        if hash_file(file) != expected["sha256"]:
            raise ValueError(f"the sha256 of {name} is not what was written")
    files = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    return Kept(folder, files, manifest["facts"])


def _discard(folder: Path) -> None:
    """Move a folder out of the way before deleting it: a reader sees it whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".damaged-", dir=folder.parent) as bin_:
        folder.rename(Path(bin_) / "damaged")
        shutil.rmtree(Path(bin_) / "damaged", ignore_errors=True)
