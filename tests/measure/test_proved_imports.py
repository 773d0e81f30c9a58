"""What a process imported, proved on packages that the test writes."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.measure import imports
from bertopt_bench.measure.imports import (
    find_module,
    hash_sources,
    library_addresses,
    prove_imports,
    top_names,
)
from bertopt_bench.measure.provenance import source_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Load = Callable[..., None]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a module from a folder, and forget it afterwards."""
    before = set(sys.modules)

    def load_from(name: str, *folders: Path) -> None:
        for folder in reversed(folders):
            monkeypatch.syspath_prepend(str(folder))
        importlib.import_module(name)

    yield load_from
    for name in set(sys.modules) - before:
        del sys.modules[name]


def package(folder: Path, text: str = "__version__ = '1.5'\n") -> Path:
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(text)
    return folder


def proved(name: str, *overlay: Path) -> Any:
    return prove_imports([name], [str(folder) for folder in overlay])["modules"][name]


def git(checkout: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_process_and_this_package_are_described() -> None:
    """Oracles: sys, and the hash of the package's own folder."""
    proof = prove_imports([], [])

    assert proof["python"].split(".") == [str(part) for part in sys.version_info[:3]]
    assert proof["flags"]["optimize"] == sys.flags.optimize
    ours = proof["modules"]["bertopt_bench"]
    assert (ours["root"], ours["file"]) == ("root", "bertopt_bench/__init__.py")
    assert ours["sources"] == source_hash(Path(imports.__file__).parents[1])


def test_an_installed_package_has_its_distribution_and_the_installers_list() -> None:
    """Oracle: importlib.metadata."""
    import numpy as np

    found = proved("numpy")

    assert found["version"] == metadata.version("numpy") == np.__version__
    assert (found["root"], found["file"]) == ("site-packages", "numpy/__init__.py")
    assert len(found["record"]) == 16
    assert found["commit"] is None


def test_a_package_of_the_overlay_is_described_unasked(tmp_path: Path, load: Load) -> None:
    """Oracle: the package as it was written."""
    place = package(tmp_path / "layer_norms")
    load("layer_norms", tmp_path)

    found = prove_imports([], [str(tmp_path)])["modules"]["layer_norms"]

    assert found == {
        "version": "1.5",
        "root": "overlay",
        "file": "layer_norms/__init__.py",
        "sources": source_hash(place),
        "record": None,
        "commit": None,
        "dirty": None,
        "strays": [],
    }


def test_a_package_that_the_overlay_offers_but_did_not_give_is_told(
    tmp_path: Path, load: Load
) -> None:
    """The measured code was the installed one (asv#1417). Oracle: where it was imported from."""
    package(tmp_path / "overlay/layer_norms")
    package(tmp_path / "site-packages/layer_norms")
    load("layer_norms", tmp_path / "site-packages")

    found = prove_imports([], [str(tmp_path / "overlay")])["modules"]["layer_norms"]

    assert found["root"] == "site-packages"


@pytest.mark.parametrize(
    ("folder", "root"),
    [("lib/site-packages", "site-packages"), ("work", "working directory"), ("else", "other")],
)
def test_each_place_has_its_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: Load, folder: str, root: str
) -> None:
    """Oracle: the folder's name."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    (place / "single.py").write_text("x = 1\n")
    load("single", place)

    found = proved("single")

    assert (found["root"], found["file"]) == (root, "single.py")
    assert found["sources"] == hash_sources(place / "single.py")
    assert proved("json")["root"] == "stdlib"


def test_a_linked_package_lies_where_it_was_found(tmp_path: Path, load: Load) -> None:
    """A link's target lies elsewhere, and the import did come from the overlay."""
    package(tmp_path / "elsewhere/linked")
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay/linked").symlink_to(tmp_path / "elsewhere/linked")
    load("linked", tmp_path / "overlay")

    assert proved("linked", tmp_path / "overlay")["root"] == "overlay"


def test_parts_from_elsewhere_are_named(tmp_path: Path, load: Load) -> None:
    """An installer's import hook may send submodules to another folder."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/compiled.py").write_text("")
    package(tmp_path / "overlay/hooked")
    load("hooked", tmp_path / "overlay")
    place = tmp_path / "hidden/compiled.py"
    spec = importlib.util.spec_from_file_location("hooked.compiled", place)
    assert spec is not None
    sys.modules["hooked.compiled"] = importlib.util.module_from_spec(spec)

    found = proved("hooked", tmp_path / "overlay")

    assert (found["root"], found["strays"]) == ("overlay", ["hooked.compiled"])


def test_a_namespace_is_told_by_its_parts(tmp_path: Path, load: Load) -> None:
    """Oracle: the folder that each part was written to."""
    package(tmp_path / "overlay/spaced/norms")
    package(tmp_path / "site-packages/spaced/core")
    for name in ("spaced.norms", "spaced.core"):
        load(name, tmp_path / "overlay", tmp_path / "site-packages")

    modules = prove_imports(["spaced.core"], [str(tmp_path / "overlay")])["modules"]

    assert modules["spaced"]["root"] == "overlay + site-packages"
    assert modules["spaced.norms"]["root"] == "overlay"
    assert modules["spaced.norms"]["file"] == "spaced/norms/__init__.py"
    assert modules["spaced.core"]["root"] == "site-packages"


def test_commit_and_edits_are_gits(tmp_path: Path, load: Load) -> None:
    """Oracle: git rev-parse; only tracked files make a checkout dirty."""
    place = package(tmp_path / "tracked_norms")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    load("tracked_norms", tmp_path)

    clean = proved("tracked_norms")
    (place / "notes.txt").write_text("untracked")
    (place / "__init__.py").write_text("x = 2\n")
    dirty = proved("tracked_norms")

    assert (clean["commit"], clean["dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), False)
    assert (dirty["commit"], dirty["dirty"]) == (clean["commit"], True)
    assert dirty["sources"] == source_hash(place) != clean["sources"]


def test_what_was_never_imported_is_none() -> None:
    assert proved("never_imported_anywhere") is None


def test_a_large_package_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: Load
) -> None:
    """Oracle: the limit, which is the number of files still read."""
    place = package(tmp_path / "large_norms")
    (place / "more.py").write_text("")
    load("large_norms", tmp_path)
    monkeypatch.setattr(imports, "MOST_FILES", 2)
    assert proved("large_norms")["sources"] == source_hash(place)

    monkeypatch.setattr(imports, "MOST_FILES", 1)

    assert proved("large_norms")["sources"] is None


def test_no_path_of_this_machine_leaves_the_process(tmp_path: Path, load: Load) -> None:
    """Oracle: the paths that are known here."""
    package(tmp_path / "pathless")
    load("pathless", tmp_path)

    text = json.dumps(prove_imports(["pathless", "json"], [str(tmp_path)]))

    for path in (tmp_path, Path.home(), sys.prefix, sys.base_prefix, Path(imports.__file__).parent):
        assert f"{path}/" not in text


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_address_of_libc_is_where_its_functions_are() -> None:
    """Oracle: the address of a function, as the dynamic linker gives it to ctypes."""
    function = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value

    base = int(library_addresses()["libc"], 16)

    assert function is not None
    assert 0 < function - base < 1 << 23


def test_a_folder_offers_packages_modules_and_what_lies_in_namespaces(tmp_path: Path) -> None:
    """Oracle: Python's import rules; a folder of data offers nothing."""
    package(tmp_path / "regular")
    package(tmp_path / "regular/inner")
    package(tmp_path / "space/part")
    (tmp_path / "module.py").write_text("")
    (tmp_path / "fast.abi3.so").write_text("")
    (tmp_path / "not-a-name.py").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/table.csv").write_text("")

    assert top_names(tmp_path) == {"regular", "module", "fast", "space.part"}
    assert top_names(tmp_path / "missing") == set()
    assert find_module(tmp_path, "regular") == tmp_path / "regular"
    assert find_module(tmp_path, "space.part") == tmp_path / "space/part"
    assert find_module(tmp_path, "fast") == tmp_path / "fast.abi3.so"
    assert find_module(tmp_path, "data") is None
