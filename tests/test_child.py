"""Programs of this package started in other interpreters: where each module comes from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import bertopt_bench
from bertopt_bench.child import ROOT, module_command

PROGRAM = """
import json, sys
import bertopt_bench, chosen
print(json.dumps({
    "package": bertopt_bench.__file__,
    "chosen": chosen.__file__,
    "path": sys.path,
    "arguments": sys.argv[1:],
}))
"""


def write(folder: Path, name: str, text: str = "") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return str(folder)


def start(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user's folder with a program of the user's."""
    folder = tmp_path / "user's {folder}"
    write(folder, "program", PROGRAM)
    write(folder, "chosen")
    monkeypatch.chdir(folder)
    return folder


def test_the_package_is_this_one_and_the_working_directory_comes_last(
    working_directory: Path,
) -> None:
    """Oracle: ``__file__`` and ``sys.path`` of the child; braces and quotes survive the trip."""
    done = start(module_command("program", "one", "{0!r}'\""))

    seen = json.loads(done.stdout)
    assert Path(seen["package"]) == Path(str(bertopt_bench.__file__))
    assert seen["path"][-1] == str(working_directory)
    assert seen["arguments"] == ["one", "{0!r}'\""]


def test_an_overlay_comes_before_all_that_is_installed(tmp_path: Path) -> None:
    """Oracle: ``__file__`` of a module that the working directory and both folders have."""
    overlay = [write(tmp_path / "first", "chosen"), write(tmp_path / "second", "chosen")]
    write(tmp_path / "first", "torch", "raise ImportError('the overlay has a torch of its own')")

    done = start(module_command("program", overlay=overlay))

    seen = json.loads(done.stdout)
    assert seen["chosen"] == str(tmp_path / "first/chosen.py")
    assert seen["path"][:2] == overlay


def test_another_root_gives_its_package_and_nothing_else(tmp_path: Path) -> None:
    """A root may be another interpreter's site-packages: its other packages must not leak.

    Oracle: ``__file__`` of the package, and of a neighbour that the working directory has too.
    """
    root = Path(write(tmp_path / "site-packages", "chosen"))
    write(root / "bertopt_bench", "__init__")

    done = start(module_command("program", root=str(root), overlay=[ROOT]))

    seen = json.loads(done.stdout)
    assert seen["package"] == str(root / "bertopt_bench/__init__.py")
    assert seen["chosen"] != str(root / "chosen.py")
    assert str(root) not in seen["path"]


def test_a_root_without_the_package_never_falls_back_on_the_installed_one(tmp_path: Path) -> None:
    """Oracle: the child's own error."""
    done = start(module_command("program", root=str(tmp_path)))

    assert done.returncode == 1
    assert "there is no bertopt_bench in" in done.stderr
