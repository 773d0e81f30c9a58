"""Interpreters of arms: asked what they are, and made where dependencies differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from made_checkouts import commit

from bertopt_bench.dispatch import interpreters, shelves
from bertopt_bench.dispatch.checkouts import Tree, working_tree
from bertopt_bench.dispatch.interpreters import NEEDED, find_interpreter, own_environment
from bertopt_bench.errors import UserError
from bertopt_bench.measure.machine import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NEEDS = """
import sys
import torch, numpy, torch._dynamo, torch.profiler
known = {name.partition(".")[0] for name in sys.modules}
import bertopt_bench.dispatch.zygote, bertopt_bench.trial.worker
print(*{name.partition(".")[0] for name in sys.modules} - known - sys.stdlib_module_names)
"""


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", str(folder))
    return folder


class Pip:
    """Stands for pip and ``venv --with-pip``: writes down what it is asked for."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.held: list[str] = []
        self.failures: list[str] = []
        self.run = interpreters._run

    def __call__(self, command: Sequence[str], what: str) -> None:
        if "venv" in command:
            self.run([*command, "--without-pip"], what)
            return
        self.commands.append(list(command))
        if "-c" in command:
            self.held.append(Path(command[command.index("-c") + 1]).read_text())
        if self.failures:
            raise UserError(self.failures.pop(0))
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        packages = Path(command[0]).parents[1] / f"lib/python{version}/site-packages"
        for name in NEEDED:
            (packages / f"{name}.py").write_text("")
            (packages / f"{name}-9.0.dist-info").mkdir()
            (packages / f"{name}-9.0.dist-info/METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n"
            )


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    fake = Pip()
    monkeypatch.setattr(interpreters, "_run", fake)
    return fake


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    commit(tmp_path / "norms", {"setup.py": "", "norms/__init__.py": ""}, "v1")
    return working_tree(tmp_path / "norms")


def make(tree: Tree, said: list[str] | None = None, **options: object) -> tuple[object, str]:
    asked = {"build": False, "packages": (), **options}
    say: Callable[[str], None] = ([] if said is None else said).append
    return own_environment(find_interpreter(None), tree, say=say, **asked)  # type: ignore[arg-type]


def script(place: Path, text: str) -> str:
    place.write_text(f"#!/bin/sh\n{text}\n")
    place.chmod(0o755)
    return str(place)


@pytest.mark.slow
def test_a_worker_needs_torch_and_numpy_and_nothing_else() -> None:
    """Oracle: ``sys.modules`` of a process that imports what a worker does."""
    done = subprocess.run([sys.executable, "-c", NEEDS], capture_output=True, text=True, check=True)

    assert NEEDED == ("torch", "numpy")
    assert done.stdout.split() == ["bertopt_bench"]


def test_the_running_interpreter_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: importlib.metadata."""
    monkeypatch.setattr(interpreters, "_ask", None)

    found = find_interpreter(None)

    assert found == find_interpreter(sys.executable)
    assert found.python == sys.executable
    assert found.versions == {name: metadata.version(name) for name in NEEDED}


def test_another_interpreter_is_asked_once_and_tells_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Oracle: this interpreter's own description; a link to it is another path."""
    other = script(tmp_path / "other-python", f'exec "{sys.executable}" "$@"')
    monkeypatch.chdir(tmp_path)
    homes = (sys.prefix, sys.base_prefix)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p.startswith(homes)])
    interpreters._this.cache_clear()  # an earlier test's import path is not this one's

    found = find_interpreter("./other-python")
    monkeypatch.setattr(interpreters.subprocess, "run", None)

    assert find_interpreter(other) is found
    ours = find_interpreter(None)
    assert found.require().python == other
    assert found.version == ours.version
    assert found.versions == ours.versions
    assert found.installed_hash == ours.installed_hash == versions()["installed_hash"]
    assert found.packages_folder == ours.packages_folder


def test_a_bare_environment_lacks_torch(tmp_path: Path) -> None:
    """Oracle: the venv module makes it without packages; the advice is a command for it."""
    python = tmp_path / "bare/bin/python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)

    with pytest.raises(UserError) as raised:
        find_interpreter(str(python), ["pytorch_optimizer"]).require()

    assert f"{python} -m pip install torch numpy pytorch-optimizer" in str(raised.value)


def test_a_package_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    """Oracle: the exception of the package."""
    (tmp_path / "broken_norms.py").write_text("raise OSError('no such library')")
    place = f'PYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"'
    python = script(tmp_path / "python", place)

    found = find_interpreter(python, ["broken_norms"])

    with pytest.raises(UserError, match=r"importing broken_norms fails \(OSError: no such lib"):
        found.require()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("""echo '{"version": "3.9.18", "missing": []}'""", "is Python 3.9.18; arms need 3.11"),
        ("echo some text", "does not answer as a Python does"),
        ("echo 'not found' >&2; exit 3", "does not answer as a Python does: not found"),
    ],
)
def test_what_is_no_python_of_today_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_interpreter(script(tmp_path / "python", text))


def test_what_is_no_program_is_refused_with_the_likely_one(tmp_path: Path) -> None:
    """An environment's folder stands for its interpreter in many tools."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    script(tmp_path / "venv/bin/python", "")
    (tmp_path / "text").write_text("")

    for path in (tmp_path / "missing", tmp_path / "text"):
        with pytest.raises(UserError, match="is no program that can be run"):
            find_interpreter(str(path))
    with pytest.raises(UserError, match=r"Did you mean '.*venv/bin/python'\?"):
        find_interpreter(str(tmp_path / "venv"))


def test_a_file_without_an_interpreter_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "python").write_bytes(b"\x7fELF no program")
    (tmp_path / "python").chmod(0o755)

    with pytest.raises(UserError, match="cannot be run"):
        find_interpreter(str(tmp_path / "python"))


def test_an_environment_is_made_once_with_the_pins_of_the_other_arm(pip: Pip, tree: Tree) -> None:
    """Oracle: the commands that pip gets."""
    said: list[str] = []
    made, name = make(tree, said)
    again, same = make(tree, said)

    assert (again, same) == (made, name)
    assert len(pip.commands) == 1
    assert len(said) == 1
    assert "-I" in pip.commands[0]  # nothing of this environment shows through
    torch, numpy = (metadata.version(package) for package in NEEDED)
    assert pip.held == [f"numpy=={numpy}\ntorch=={torch}"]
    assert pip.commands[0][-3:-1] == list(NEEDED)
    assert pip.commands[0][-1].endswith("/sources")
    assert made.versions == {"torch": "9.0", "numpy": "9.0"}  # type: ignore[attr-defined]
    assert made.python.startswith(os.environ["BERTOPT_BENCH_CACHE"])  # type: ignore[attr-defined]


def test_environments_differ_by_what_goes_into_them(pip: Pip, tree: Tree, tmp_path: Path) -> None:
    """Equal dependencies share one; built ones follow the sources."""
    _, name = make(tree)
    commit(tmp_path / "norms", {"norms/__init__.py": "x = 1\n"}, "v2")
    later = working_tree(tmp_path / "norms")
    assert make(later)[1] == name

    built = {make(each, build=True)[1] for each in (tree, later)}
    commit(tmp_path / "norms", {"requirements.txt": "numpy\n"}, "v3")
    changed = make(working_tree(tmp_path / "norms"))[1]

    assert len({name, changed, *built}) == 4


def test_the_projects_own_constraints_hold(pip: Pip, tmp_path: Path) -> None:
    """A project with only a list of requirements is not installed itself."""
    files = {"constraints.txt": "numpy==1\n", "requirements.txt": "einops\n", "norms.py": ""}
    commit(tmp_path / "plain", {**files, "pyproject.toml": "[tool.ruff]\n"}, "v1")

    make(working_tree(tmp_path / "plain"))

    assert pip.held == ["numpy==1\n"]
    assert pip.commands[0][-2] == "-r"
    assert pip.commands[0][-1].endswith("sources/requirements.txt")


def test_a_cells_packages_come_in_the_versions_that_are_here(pip: Pip, tree: Tree) -> None:
    """Oracle: importlib.metadata; the packages are looked for in the environment too."""
    with pytest.raises(UserError, match="lacks pytorch_optimizer"):
        make(tree, packages=["pytorch_optimizer"])

    wanted = {f"{name}=={metadata.version('pytorch-optimizer')}" for name in ("pytorch_optimizer",)}
    assert wanted <= {word.replace("-", "_") for word in pip.commands[0]}


def test_torch_from_its_own_index_is_looked_for_there() -> None:
    """A version with a local part is on no other index. Oracle: pytorch.org's layout."""
    assert interpreters._indexes(["numpy==2.0", "torch==2.9.0+cu128"]) == [
        "--extra-index-url=https://download.pytorch.org/whl/cu128"
    ]
    assert interpreters._indexes(["torch==2.9.0"]) == []


def test_a_failed_environment_is_made_anew(pip: Pip, tree: Tree) -> None:
    """Oracle: pip is asked again, and its words are shown."""
    pip.failures = ["pip install for the arm's own environment fails:\nno network"]
    with pytest.raises(UserError, match="no network"):
        make(tree)

    make(tree)

    assert len(pip.commands) == 2


def test_other_versions_of_torch_are_had_where_the_revision_asks_for_them(
    pip: Pip, tree: Tree
) -> None:
    """Two torch versions are to meet: a pin that contradicts the revision yields, and is told."""
    pip.failures = ["ERROR: ResolutionImpossible: for help visit ..."]
    said: list[str] = []

    make(tree, said)

    assert len(pip.held) == 1
    assert "-c" not in pip.commands[1]
    assert "asks for other versions than numpy==" in said[-1]


def test_an_environment_left_half_made_is_made_anew(pip: Pip, tree: Tree, cache: Path) -> None:
    """The marker is written last. Oracle: pip is asked again; the rest is gone."""
    _, name = make(tree)
    folder = cache / "environments" / name
    assert json.loads((folder / "bertopt-bench.json").read_text())["packages"] == []
    (folder / "bertopt-bench.json").unlink()
    (folder / "left").write_text("")

    make(tree)

    assert len(pip.commands) == 2
    assert not (folder / "left").exists()


def test_preparing_at_once_makes_one_environment(pip: Pip, tree: Tree) -> None:
    """Oracle: the number of pip's runs."""
    find_interpreter(None)
    with ThreadPoolExecutor(3) as pool:
        names = set(pool.map(lambda _: make(tree)[1], range(3)))

    assert len(names) == 1
    assert len(pip.commands) == 1


def test_a_step_that_fails_shows_the_end_of_what_it_said() -> None:
    """Oracle: the lines that the program prints."""
    program = "print(*(f'line {i}' for i in range(40)), sep='\\n'); raise SystemExit(1)"

    with pytest.raises(UserError) as raised:
        interpreters._run([sys.executable, "-c", program], "counting")

    lines = str(raised.value).splitlines()
    assert lines[0] == "counting for the arm's own environment fails:"
    assert lines[1:] == [f"line {number}" for number in range(28, 40)]


def test_making_an_environment_sees_nothing_of_this_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A PYTHONPATH would make pip believe that torch is installed already."""
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    monkeypatch.setenv("PIP_TARGET", "somewhere")
    program = f"import os; open({str(tmp_path / 'seen')!r}, 'w').write(repr(dict(os.environ)))"

    interpreters._run([sys.executable, "-c", program], "looking")

    assert "somewhere" not in (tmp_path / "seen").read_text()


def test_environments_that_were_not_used_for_longest_make_way(
    pip: Pip, tree: Tree, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the folders: those in use stay beyond the number, and go with their process."""
    monkeypatch.setattr(interpreters, "KEPT_ENVIRONMENTS", 1)
    monkeypatch.setattr(shelves, "_HELD", {})
    said: list[str] = []
    shelf = cache / "environments"
    _, first = make(tree, said)
    _, second = make(tree, said, build=True)
    assert {folder.name for folder in shelves.folders(shelf)} == {first, second}

    for name in (first, second):
        os.utime(shelf / f"{name}.used", (1000.0, 1000.0))
    shelves._HELD.clear()  # as the end of this process does
    commit(tree.folder, {"requirements.txt": "numpy\n"}, "v2")
    _, third = make(working_tree(tree.folder), said)

    assert {folder.name for folder in shelves.folders(shelf)} == {third}
    removed = [line for line in said if line.startswith("removed from the cache")]
    assert len(removed) == 2
    assert all(any(name in line for line in removed) for name in (first, second))
    (tree.folder / "requirements.txt").unlink()
    assert make(tree)[1] == first  # made anew
    assert len(pip.commands) == 4
