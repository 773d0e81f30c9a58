"""Entries from outside the package: described by a child process, hashed, listed when installed."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING

import pytest

from bertopt_bench import catalogue
from bertopt_bench.catalogue import outside
from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

SHRINK = '''
"""A user's module."""
import my_numbers

print("a user's module may print")


class Shrink:
    """Shrink everything.

    Source: nowhere.
    """

    def __init__(self, rate: float = 0.5, *, steps=my_numbers.STEPS, kind: "str | None" = None):
        self.rate = rate


def needs(*, strength: float):
    """Need a number."""


NUMBER = 3
'''


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a working directory with a user's module ``my_shrink`` in it."""
    (tmp_path / "my_shrink.py").write_text(SHRINK)
    (tmp_path / "my_numbers.py").write_text("STEPS = 7\n")
    (tmp_path / "my_unused.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_class_in_the_working_directory_is_an_entry(own_module: Path) -> None:
    """It is described by its signature, with the hashes of the user's files that it imports."""
    entry = catalogue.find("regularizer", "my_shrink:Shrink")

    assert catalogue.canonical(entry, {"rate": 1}) == {
        "name": "my_shrink:Shrink",
        "rate": 1.0,
        "steps": 7,
        "kind": None,
    }
    assert (entry.help, entry.source) == ("Shrink everything.", "nowhere.")
    assert dict(entry.sources) == {
        name: hashlib.sha256((own_module / name).read_bytes()).hexdigest()
        for name in ("my_numbers.py", "my_shrink.py")
    }
    assert "my_shrink" not in sys.modules


def test_a_description_is_made_anew_when_a_file_changed(
    own_module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One child process for any number of looks, another one after an edit."""
    asked: list[str] = []
    ask = outside._ask_child
    monkeypatch.setattr(outside, "_ask_child", lambda *a: asked.append(a[1]) or ask(*a))

    first = catalogue.find("regularizer", "my_shrink:Shrink")
    assert catalogue.find("regularizer", "my_shrink:Shrink") == first
    assert len(asked) == 1
    (own_module / "my_numbers.py").write_text("STEPS = 8\n")

    second = catalogue.find("regularizer", "my_shrink:Shrink")

    assert len(asked) == 2
    assert catalogue.canonical(second, {})["steps"] == 8
    assert second.sources["my_numbers.py"] != first.sources["my_numbers.py"]
    assert second.sources["my_shrink.py"] == first.sources["my_shrink.py"]


def test_here_and_apart_describe_alike(own_module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at an entry in this process gives what the child gives."""
    monkeypatch.syspath_prepend(own_module)
    apart = catalogue.find("regularizer", "my_shrink:Shrink")

    here = catalogue.describe("regularizer", "my_shrink:Shrink")

    for module in ("my_shrink", "my_numbers"):
        sys.modules.pop(module)
    assert here == apart


def test_a_required_option_is_asked_for(own_module: Path) -> None:
    """A function without a default for its keyword needs it from the user."""
    entry = catalogue.find("regularizer", "my_shrink:needs")

    with pytest.raises(UserError, match=r"needs the option 'strength' \(float\)"):
        catalogue.canonical(entry, {})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("my_shrink:Shrunk", "'my_shrink' has no 'Shrunk'. Did you mean 'Shrink'?"),
        ("my_shrunk:Shrink", "No module named 'my_shrunk'"),
        ("my_shrink:NUMBER", "is no function and no class, but 3"),
        ("my_broken:Shrink", "ZeroDivisionError: division by zero"),
        ("my_exit:Shrink", "ended with exit code 5"),
    ],
)
def test_what_cannot_be_imported_is_an_error(own_module: Path, name: str, text: str) -> None:
    """The error names the axis, the entry and the cause."""
    (own_module / "my_broken.py").write_text("1 / 0\n")
    (own_module / "my_exit.py").write_text("raise SystemExit(5)\n")

    with pytest.raises(UserError) as caught:
        catalogue.find("regularizer", name)

    assert text in str(caught.value)
    assert f"regularizer '{name}'" in str(caught.value)


def test_a_class_of_torch_is_an_entry() -> None:
    """torch.optim:AdamW has AdamW's options; of torch only the class' own files are hashed."""
    entry = catalogue.find("optimizer", "torch.optim:AdamW")

    choice = catalogue.canonical(entry, {"lr": 2})

    assert (choice["lr"], choice["betas"], choice["weight_decay"]) == (2.0, [0.9, 0.999], 0.01)
    assert {"foreach", "fused"} <= entry.accepts - set(choice)
    assert set(entry.sources) == {"torch/optim/__init__.py", "torch/optim/adamw.py"}


def test_installed_packages_add_names(
    own_module: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package with an entry point of our group is listed by name, and described when found."""
    site = tmp_path_factory.mktemp("site")
    info = site / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[bertopt_bench.regularizer]\nshrink = my_shrink:Shrink\nl1 = my_shrink:Shrink\n"
    )
    monkeypatch.syspath_prepend(site)
    outside.entry_points.cache_clear()

    listed = catalogue.entries("regularizer")
    found = catalogue.find("regularizer", "shrink")
    outside.entry_points.cache_clear()

    assert listed["shrink"].target == "my_shrink:Shrink"
    assert listed["l1"].target == "bertopt_bench.axes.regularizers:l1", "ours go first"
    assert catalogue.canonical(found, {}) == {
        "name": "shrink",
        "rate": 0.5,
        "steps": 7,
        "kind": None,
    }
    assert found.sources


def test_corpora_may_be_named_with_an_argument(own_module: Path) -> None:
    """The name path:FILES is the entry ``path``, called with what follows the colon."""
    (own_module / "a.txt").write_text("a text")

    entry = catalogue.find("corpus", "path:*.txt")

    assert entry.name == "path:*.txt"
    assert entry.help == catalogue.entries("corpus")["path"].help
    assert catalogue.canonical(entry, {}) == {"name": "path:*.txt"}
    assert list(catalogue.resolve("corpus", "path:*.txt")()) == ["a text"]
