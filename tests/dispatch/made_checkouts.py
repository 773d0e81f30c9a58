"""Repositories that tests make, and workers that prove what they imported of them."""

from __future__ import annotations

import json
import subprocess
from contextlib import chdir
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.child import module_command

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.dispatch.environments import Subject

PROVE = """
import importlib, json, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
from bertopt_bench.measure.imports import prove_imports
print(json.dumps(prove_imports(sys.argv[2:], json.loads(sys.argv[1]))))
"""
BACKEND = '''
"""A build backend without dependencies: wheels are zip files."""
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "norms-1.5-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.write("norms/__init__.py")
        info = "norms-1.5.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: norms\\nVersion: 1.5\\n")
        kind = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(info + "WHEEL", kind)
        wheel.writestr(info + "RECORD", "")
    return name
'''


def git(checkout: Path, *arguments: str) -> str:
    """Run git with an identity of the test's own."""
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files by their place below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def commit(checkout: Path, files: dict[str, str], tag: str) -> str:
    """Write files, commit everything under a tag, and give the commit."""
    if not (checkout / ".git").exists():
        checkout.mkdir(parents=True, exist_ok=True)
        git(checkout, "init", "-q", "-b", "main")
    write(checkout, files)
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "--allow-empty", "-m", tag)
    git(checkout, "tag", tag)
    return git(checkout, "rev-parse", "HEAD")


def prove(subject: Subject, folder: Path, *modules: str) -> dict[str, Any]:
    """Give the proof of a worker that imports the modules, started in a folder of the user's."""
    write(folder, {"proving.py": PROVE})
    with chdir(folder):
        command = module_command(
            "proving",
            json.dumps(subject.overlay),
            *modules,
            python=subject.python,
            root=subject.root,
            overlay=subject.overlay,
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    proof: dict[str, Any] = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    return proof


def without_torch(subject: Subject) -> Subject:
    """Expect no torch of a worker: importing it takes seconds, and proves nothing more here."""
    return replace(subject, expected={**subject.expected, "versions": {}})
