"""The Pythons that arms run in: what one is, whether a worker can run in it, and own ones."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.checkouts import QUIET, copy_sources, read_toml, requirements_hash
from bertopt_bench.dispatch.shelves import discard, evict, folders, hold, locked
from bertopt_bench.errors import UserError
from bertopt_bench.measure.machine import versions
from bertopt_bench.workload.cache import cache_root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertopt_bench.dispatch.checkouts import Tree

    Say = Callable[[str], None]

NEEDED = ("torch", "numpy")
"""What a worker process imports besides Python's own (a test reads it from ``sys.modules``)."""

LEAST = (3, 11)
KEPT_ENVIRONMENTS = 4  # more only while they are in use
_MARKER = "bertopt-bench.json"
_TAIL = 12  # lines of pip's output that an error shows
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
# Any Python can read it: it may well be an old one.
_QUESTION = """
import json, platform, sys
sys.path[:] = [place for place in sys.path if place]
answer = {"version": platform.python_version(), "missing": [], "fault": ""}
answer["implementation"] = platform.python_implementation()
if sys.version_info >= (3, 11):
    import importlib, sysconfig
    from importlib import metadata, util
    answer["platform"] = sysconfig.get_platform()
    answer["packages_folder"] = sysconfig.get_path("purelib")
    answer["missing"] = [name for name in sys.argv[1:] if util.find_spec(name) is None]
    answer["installed"] = {d.name: d.version for d in metadata.distributions() if d.name}
    try:
        for name in set(sys.argv[1:]) - set(answer["missing"]):
            importlib.import_module(name)
    except BaseException as error:
        answer["fault"] = "importing %s fails (%s: %s)" % (name, type(error).__name__, error)
print("\\n" + json.dumps(answer))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python: where it is, what it is, what it has.

    ``installed_hash`` stands for all its distributions with their versions. ``missing`` are needed
    packages that it lacks, ``fault`` says which one cannot be imported and why.
    """

    python: str
    version: str
    implementation: str
    platform: str
    packages_folder: str
    installed_hash: str
    versions: Mapping[str, str]
    missing: tuple[str, ...] = ()
    fault: str = ""

    def require(self) -> Interpreter:
        """Give this interpreter, if a worker can run in it.

        Raises:
            UserError: it lacks a package, or cannot import one.
        """
        if self.missing:
            wanted = " ".join(name.replace("_", "-") for name in self.missing)
            raise UserError(
                f"{self.python} (Python {self.version}) lacks {', '.join(self.missing)}. "
                f"Install: {self.python} -m pip install {wanted}"
            )
        if self.fault:
            raise UserError(f"{self.python} (Python {self.version}): {self.fault}.")
        return self


def find_interpreter(python: str | None, packages: Sequence[str] = ()) -> Interpreter:
    """Describe an interpreter, None for the one that runs; another one is asked in a child.

    Raises:
        UserError: there is no such program, it is no Python, or one before 3.11.
    """
    if python is None:
        return _this()
    found = shutil.which(os.path.expanduser(python))  # noqa: PTH111 - a Path would lose "./"
    if found is None:
        inner = Path(python).expanduser() / "bin/python"
        hint = f" Did you mean '{inner}'?" if inner.is_file() else ""
        raise UserError(
            f"python '{python}' is no program that can be run.{hint} "
            "Give a path as venv/bin/python, or a name that is on the PATH."
        )
    found = os.path.abspath(found)  # noqa: PTH100 - a link resolved would be another environment
    return _this() if found == sys.executable else _ask(found, tuple(packages))


@cache
def _this() -> Interpreter:
    """Describe the running interpreter, which has been checked by being started."""
    known = versions(NEEDED)
    return Interpreter(
        python=sys.executable,
        version=known["python"],
        implementation=known["implementation"],
        platform=sysconfig.get_platform(),
        packages_folder=sysconfig.get_path("purelib"),
        installed_hash=known["installed_hash"],
        versions={name: known[name] for name in NEEDED if known[name]},
    )


@cache
def _ask(python: str, packages: tuple[str, ...]) -> Interpreter:
    names = dict.fromkeys([*NEEDED, *packages])
    try:
        done = subprocess.run(
            [python, "-c", _QUESTION, *names], capture_output=True, text=True, check=False
        )
        answer = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    except OSError as error:
        raise UserError(f"python '{python}' cannot be run: {error.strerror}.") from None
    except ValueError:
        said = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise UserError(f"python '{python}' does not answer as a Python does: {said}") from None
    if tuple(map(int, answer["version"].split(".")[:2])) < LEAST:
        raise UserError(
            f"python '{python}' is Python {answer['version']}; "
            f"arms need {LEAST[0]}.{LEAST[1]} or later."
        )
    installed = {_plain(name): version for name, version in answer.pop("installed").items()}
    return Interpreter(
        python=python,
        installed_hash=_hash_installed(installed),
        versions={name: installed[name] for name in NEEDED if name in installed},
        missing=tuple(answer.pop("missing")),
        **answer,
    )


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _hash_installed(installed: Mapping[str, str]) -> str:
    """Hash what is installed as ``measure.machine.versions`` does."""
    listing = "\n".join(f"{name}=={version}" for name, version in sorted(installed.items()))
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def own_environment(
    base: Interpreter,
    tree: Tree,
    *,
    build: bool,
    packages: Sequence[str],
    say: Say,
) -> tuple[Interpreter, str]:
    """Give the environment made for a project's dependencies, and its name, a hash.

    It is a venv in the cache, made once for equal dependencies, Python, platform and pins; with
    ``build`` once for equal sources. Other packages of this environment do not show through. It
    stays while this process lives; of others, those that were not used for longest make way.

    Raises:
        UserError: pip fails, with the end of what it said.
    """
    key: dict[str, Any] = {
        "requirements": requirements_hash(tree.folder),
        "python": [base.implementation, base.version, base.platform, sys.byteorder],
        "pins": _pins(base, tree.folder),
        "packages": sorted(packages),
        "sources": [tree.commit, tree.dirty_hash] if build else [],
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_root().absolute() / "environments" / name
    python = folder / "bin/python"
    hold(folder)
    with locked(folder.with_suffix(".lock"), say):
        whole = (folder / _MARKER).is_file() and python.exists()
        if not whole:
            say(f"making an environment for commit {tree.commit[:12]}, once: pip may take minutes")
            discard(folder)
            _run([base.python, "-I", "-m", "venv", str(folder)], "making a venv")
            _fill(python, tree, key["pins"], packages, say)
            (folder / _MARKER).write_text(json.dumps(key, indent=1), encoding="utf-8")
    if not whole:
        _make_room(folder.parent, say)
    return _ask(str(python), tuple(packages)).require(), name


def _make_room(shelf: Path, say: Say) -> None:
    for gone in evict(folders(shelf), KEPT_ENVIRONMENTS):
        say(f"removed from the cache: the environment {gone.name}, long not used")


def _pins(base: Interpreter, project: Path) -> list[str]:
    """Pin torch and NumPy to what the other arm runs, unless the project constrains them itself."""
    if (project / "constraints.txt").is_file():
        return []
    return [f"{name}=={version}" for name, version in sorted(base.versions.items())]


def _fill(python: Path, tree: Tree, pins: Sequence[str], packages: Sequence[str], say: Say) -> None:
    """Install a project's dependencies, what a worker needs and a cell's packages into a venv."""
    with tempfile.TemporaryDirectory(prefix="bertopt-bench-") as place:
        sources = Path(place) / "sources"
        sources.mkdir()
        copy_sources(tree.folder, sources)
        own, pinned = sources / "constraints.txt", Path(place) / "pins.txt"
        pinned.write_text("\n".join(pins), encoding="utf-8")
        held = ["-c", str(own if own.is_file() else pinned), *_indexes(pins)]
        wanted = [*NEEDED, *_distributions(packages), *_targets(sources)]
        try:
            _install(python, [*held, *wanted])
        except UserError as error:
            if not pins or "ResolutionImpossible" not in str(error):
                raise
            say(f"commit {tree.commit[:12]} asks for other versions than {', '.join(pins)}")
            _install(python, wanted)


def _install(python: Path, wanted: Sequence[str]) -> None:
    pip = (str(python), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input")
    _run([*pip, *wanted], "pip install")


def _indexes(pins: Sequence[str]) -> list[str]:
    """Name torch's own index where its version says that it comes from there (2.9.0+cpu)."""
    local = [pin.partition("+")[2] for pin in pins if pin.startswith("torch==") and "+" in pin]
    return [f"--extra-index-url=https://download.pytorch.org/whl/{tag}" for tag in local]


def _distributions(packages: Sequence[str]) -> list[str]:
    """Ask for a cell's packages in the versions that are installed here."""
    if not packages:
        return []
    titles = metadata.packages_distributions()
    named = {title for name in packages for title in titles.get(name, [])}
    return [f"{title}=={metadata.version(title)}" for title in sorted(named)]


def _targets(sources: Path) -> list[str]:
    """Name what pip is to install of a project: itself, else its list of requirements."""
    stated = read_toml(sources / "pyproject.toml").keys() & {"project", "build-system"}
    if stated or (sources / "setup.py").is_file():
        return [str(sources)]
    listed = sources / "requirements.txt"
    return ["-r", str(listed)] if listed.is_file() else []


def _run(command: Sequence[str], what: str) -> None:
    """Run a step of making an environment, apart from this one's.

    Raises:
        UserError: it fails, with the end of what it said.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    done = subprocess.run(
        command,
        env=environment | QUIET,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-_TAIL:])
        raise UserError(f"{what} for the arm's own environment fails:\n{tail}")
