"""Prove what this process imported: from where, which version, which commit, which sources.

A comparison of two commits that measured one of them twice is the worst a tool can do (asv#1417).
No path of this machine leaves the process: files are told by their place below one of

    overlay            a folder put before the installed packages, as an arm asked for
    root               the folder of this package
    site-packages      what is installed
    stdlib             Python's own
    working directory  the user's own modules
    other              anywhere else, an editable install for example

or several of them, for a namespace package that has parts in each.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import sysconfig
from importlib import machinery, metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from bertopt_bench.measure.provenance import run_git, source_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType

HARNESS = __name__.partition(".")[0]
ROOT = Path(__file__).resolve().parents[2]
MOST_FILES = 2000  # of a larger package the installer's own list of hashes has to do
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_LIBRARIES = {"libc": ("libc.so", "libc-"), "libtorch": ("libtorch_cpu.", "libtorch.")}


class Imported(TypedDict):
    """A top-level module as it was imported.

    ``sources`` hashes its Python files, ``record`` the installer's list of its files with their
    hashes. ``commit`` is the HEAD of the git checkout it lies in, ``dirty`` whether tracked files
    differ from it. ``strays`` are its submodules that came from elsewhere.
    """

    version: str | None
    root: str
    file: str
    sources: str | None
    record: str | None
    commit: str | None
    dirty: bool | None
    strays: list[str]


def prove_imports(modules: Sequence[str], overlay: Sequence[str]) -> dict[str, Any]:
    """Describe Python, this package, torch, NumPy and the modules, as JSON.

    ``modules`` are dotted names; each stands for its top-level package too. What was imported from
    a folder of ``overlay`` or from the working directory is described unasked. A module that was
    never imported is None.
    """
    folders = [Path(folder).resolve() for folder in overlay]
    named = [part for name in modules for part in (name.partition(".")[0], name)]
    names = dict.fromkeys([HARNESS, "torch", "numpy", *named, *_unasked(folders)])
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "flags": {name: getattr(sys.flags, name) for name in sys.flags.__match_args__},
        "addresses": library_addresses(),
        "modules": {name: _describe(name, sys.modules.get(name), folders) for name in names},
    }


def library_addresses() -> dict[str, str]:
    """Give where libc and libtorch were loaded (hexadecimal): replicates must differ in it."""
    addresses: dict[str, str] = {}
    if sys.platform == "linux":
        for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
            file = line.rpartition("/")[2]
            for name, beginnings in _LIBRARIES.items():
                if name not in addresses and file.startswith(beginnings):
                    addresses[name] = line.partition("-")[0]
    return addresses


def top_names(folder: Path) -> set[str]:
    """Name the modules and packages that a folder on the import path offers.

    Of a folder that is no package, and so may become a namespace, these are ``folder.module``.
    """
    names = _own_names(folder)
    inner = [item for item in folder.iterdir() if item.is_dir()] if folder.is_dir() else []
    spaces = [item for item in inner if item.name.isidentifier() and item.name not in names]
    return names | {f"{space.name}.{name}" for space in spaces for name in _own_names(space)}


def _own_names(folder: Path) -> set[str]:
    found = {
        item.name.partition(".")[0]
        for item in (folder.iterdir() if folder.is_dir() else ())
        if _is_module(item)
    }
    return {name for name in found if name.isidentifier()}


def _is_module(item: Path) -> bool:
    suffixes = tuple(machinery.all_suffixes())
    return (item / "__init__.py").is_file() or (item.name.endswith(suffixes) and item.is_file())


def find_module(home: Path, name: str) -> Path | None:
    """Give the folder or file of a module below a folder on the import path."""
    place = home / name.replace(".", "/")
    return next(filter(_is_module, (place, *sorted(place.parent.glob(f"{place.name}.*")))), None)


def hash_sources(place: Path) -> str | None:
    """Hash the sources of a package's folder or of a module's file; None where there is none.

    A package of more than ``MOST_FILES`` files is not read: None.
    """
    if place.is_file():
        return hashlib.sha256(place.read_bytes()).hexdigest()[:16]
    if not place.is_dir() or any(islice(place.rglob("*.py"), MOST_FILES, None)):
        return None
    return source_hash(place)


def _unasked(folders: Sequence[Path]) -> list[str]:
    """Name the loaded modules that the overlay offers, or that lie in it or in the cwd."""
    loaded = {
        name: module
        for name, module in list(sys.modules.items())
        if not name.startswith("__") and name.partition(".")[0] not in sys.stdlib_module_names
    }
    offered = set[str]().union(*map(top_names, folders))
    homes = {*folders, Path.cwd().resolve()}
    lying = (n for n, m in loaded.items() if n.isidentifier() and homes & _homes(n, _places(m)))
    return sorted({*(offered & loaded.keys()), *lying})


def _places(module: ModuleType | None) -> list[Path]:
    """Give the folders of a package or the file of a module; none for a built-in one."""
    file = getattr(module, "__file__", None)
    found = getattr(module, "__path__", None)
    texts: Iterable[Any] = found if found is not None else [file] if file else []
    return [Path(os.path.abspath(text)) for text in texts if isinstance(text, str)]  # noqa: PTH100 - links stay: resolve() would leave the folder that was searched


def _homes(name: str, places: Iterable[Path]) -> set[Path]:
    """Give the folders on the import path in which a module's places lie."""
    return {place.parents[name.count(".")].resolve() for place in places}


def _describe(name: str, module: ModuleType | None, folders: Sequence[Path]) -> Imported | None:
    if module is None:
        return None
    places = _places(module)
    roots = {_root(name, home, folders) for home in _homes(name, places)}
    root = " + ".join(sorted(roots)) or "stdlib"
    distribution = _distribution(name, places) if root in {"site-packages", "root"} else None
    version = distribution.version if distribution else vars(module).get("__version__")
    record = distribution.read_text("RECORD") if distribution else None
    commit, dirty = (None, None) if root == "site-packages" else _commit(places)
    return {
        "version": None if version is None else str(version),
        "root": root,
        "file": _place_below_home(name, module),
        "sources": hash_sources(places[0]) if len(places) == 1 else None,
        "record": hashlib.sha256(record.encode()).hexdigest()[:16] if record else None,
        "commit": commit,
        "dirty": dirty,
        "strays": _strays(name, places) if root == "overlay" else [],
    }


def _place_below_home(name: str, module: ModuleType) -> str:
    file = Path(getattr(module, "__file__", None) or "").name
    folders = name if hasattr(module, "__path__") else name.rpartition(".")[0]
    return "/".join(filter(None, [*folders.split("."), file]))


def _root(name: str, home: Path, folders: Sequence[Path]) -> str:
    """Name the place that a module's folder is, the particular before the general."""
    if home in folders:
        return "overlay"
    if name == HARNESS and home == ROOT:
        return "root"
    if not _INSTALLED.isdisjoint(home.parts):
        return "site-packages"
    own = {Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib")}
    if any(home.is_relative_to(folder) for folder in own):
        return "stdlib"
    return "working directory" if home.is_relative_to(Path.cwd().resolve()) else "other"


def _distribution(name: str, places: Sequence[Path]) -> metadata.Distribution | None:
    """Find the installed distribution that put the module where it is; a checkout has none."""
    top = name.partition(".")[0]
    titles = [top, top.replace("_", "-")]
    if not any(map(_is_installed, titles)):
        titles = metadata.packages_distributions().get(top, [])
    for distribution in map(metadata.distribution, filter(_is_installed, titles)):
        home = Path(str(distribution.locate_file(""))).resolve()
        if _homes(name, places) == {home}:
            return distribution
    return None


def _is_installed(title: str) -> bool:
    try:
        metadata.distribution(title)
    except metadata.PackageNotFoundError:
        return False
    return True


def _commit(places: Sequence[Path]) -> tuple[str | None, bool | None]:
    """Give the HEAD of the checkout in which a module lies, and whether tracked files changed."""
    if len(places) != 1:
        return None, None
    place = places[0]
    folder, name = (place, ".") if place.is_dir() else (place.parent, place.name)
    if not run_git(folder, "ls-files", "--", name):
        return None, None
    commit = run_git(folder, "rev-parse", "HEAD")
    options = ("--porcelain", "--untracked-files=no")
    changed = run_git(folder, "--no-optional-locks", "status", *options, "--", name)
    return commit, None if changed is None else bool(changed)


def _strays(name: str, places: Sequence[Path]) -> list[str]:
    """Name the loaded submodules whose file lies outside the package's own folders."""
    within = tuple(f"{place}{os.sep}" for place in places)
    modules: Mapping[str, ModuleType] = dict(sys.modules)
    return sorted(
        inner
        for inner, module in modules.items()
        if inner.startswith(f"{name}.")
        and isinstance(file := getattr(module, "__file__", None), str)
        and os.path.isabs(file)  # noqa: PTH117 - made-up modules name files that are not there
        and not os.path.abspath(file).startswith(within)  # noqa: PTH100 - links stay
    )
