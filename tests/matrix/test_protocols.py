"""Protocols never change: what is hashed, what is locked, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.matrix.protocols import (
    DECLARED,
    LOCK,
    declared_hash,
    hold_declared,
    protocol_hash,
    read_lock,
    read_protocol,
)
from bertopt_bench.matrix.spec import read_document
from bertopt_bench.matrix.tuning import read_tuning

ROOT = Path(__file__).parents[2] / "benchmarks" / "protocols"
PUBLISHED = {
    "tiny-v1": "79e99ec160b24257632a3eb4d21e20f03a1888be3c9f4bbfd337b41f9ea89822",
}
"""Protocols with records: neither the file nor its lock may change. A new version is a new line."""
DECLARED_THEN = {
    "tiny-v1": "39798c67cccd2faa8c869b31124fb781346c0e38cefc04acc8a0e8756d8db65f",
}
"""What their spaces expanded to: they are written around the defaults, which are code."""


def test_the_lock_has_every_protocol_and_published_ones_are_as_they_were() -> None:
    """Oracle: hashes written down here when the records were made."""
    locked = read_lock(ROOT)

    files = {file.stem for file in ROOT.glob("*.toml")}
    assert files | {f"{name}{DECLARED}" for name in files} == set(locked)
    for name in files:
        assert protocol_hash(read_document(ROOT / f"{name}.toml")) == locked[name], name
    assert {name: locked[name] for name in PUBLISHED} == PUBLISHED
    assert {name: locked[f"{name}{DECLARED}"] for name in PUBLISHED} == DECLARED_THEN


@pytest.mark.parametrize("name", ["tiny-v1", "small-v1", "base-v1"])
def test_the_words_of_a_protocol_come_to_what_is_locked(name: str) -> None:
    """Oracle: the lock's hash of points, seeds and values, written before any record was made."""
    tuning = read_tuning(ROOT / f"{name}.toml")

    assert declared_hash(tuning.declared()) == read_lock(ROOT)[f"{name}{DECLARED}"]
    hold_declared(ROOT / f"{name}.toml", tuning.document, tuning.declared())


def test_a_changed_default_is_refused_and_a_matrix_of_ones_own_is_not(tmp_path: Path) -> None:
    """Oracle: tiny-v1's words with one value more, as a changed default would give."""
    file = ROOT / "tiny-v1.toml"
    tuning = read_tuning(file)
    other = tuning.declared() | {"points": 13}

    with pytest.raises(UserError, match="a default has changed"):
        hold_declared(file, tuning.document, other)
    hold_declared(file, tuning.document | {"seeds": [1]}, other)  # overrides: another matrix
    hold_declared(tmp_path / "mine.toml", tuning.document, other)  # no lock beside it


@pytest.mark.parametrize("name", ["tiny-v1", "small-v1", "base-v1"])
def test_every_protocol_tunes_its_arms_alike(name: str) -> None:
    """Oracle: seven arms, as many points each, and a baseline that is one of them."""
    protocol = read_protocol(ROOT / f"{name}.toml")
    tuning = read_tuning(protocol.file)

    assert len(tuning.arms) == 7
    assert protocol.baseline in {arm.name for arm in tuning.arms}
    assert protocol.reproduce_seed in tuning.report_seeds
    steps = tuning.matrix.levels["workload.steps"][0]
    every = tuning.matrix.levels["workload.evaluate_every"][0]
    assert all((share * steps) % every == 0 for share in protocol.targets_at)


def test_any_change_but_of_comments_and_description_is_refused(tmp_path: Path) -> None:
    """Oracle: the same protocol with a comment more, and with one seed more."""
    shutil.copy(ROOT / LOCK, tmp_path)
    text = (ROOT / "tiny-v1.toml").read_text()
    file = tmp_path / "tiny-v1.toml"
    file.write_text(f"# a comment\n{text}")
    assert read_protocol(file).name == "tiny-v1"

    file.write_text(text.replace("seeds = [1, 2,", "seeds = [11, 1, 2,"))
    with pytest.raises(UserError, match="make another version, tiny-v2"):
        read_protocol(file)


def test_a_protocol_is_named_by_its_file_and_unknown_ones_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the checkout's protocols, and the nearest name; an installed package has none."""
    monkeypatch.chdir(ROOT.parents[1])

    assert read_protocol("tiny-v1").file.resolve() == ROOT / "tiny-v1.toml"
    with pytest.raises(UserError, match="Did you mean 'tiny-v1'"):
        read_protocol("tiny-1")
    shutil.copy(ROOT / "tiny-v1.toml", tmp_path / "mine-v1.toml")
    shutil.copy(ROOT / LOCK, tmp_path)
    with pytest.raises(UserError, match="is called 'mine-v1'"):
        read_protocol(tmp_path / "mine-v1.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("targets_at = [1.0, 0.75]", "targets_at = [1.0, 0.7]", "after 140 of 200 steps nothing"),
        ('baseline = "AdamW"', 'baseline = "AdamV"', "Did you mean 'AdamW'"),
        ("reproduce_seed = 1", "reproduce_seed = 19", "none of the seeds"),
    ],
)
def test_a_protocol_that_its_own_runs_cannot_serve_is_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    """Oracle: tiny-v1 with one value that names nothing there is, and a lock that agrees."""
    file = tmp_path / "tiny-v1.toml"
    file.write_text((ROOT / "tiny-v1.toml").read_text().replace(old, new))
    (tmp_path / LOCK).write_text(f"{protocol_hash(read_document(file))}  tiny-v1\n")

    with pytest.raises(UserError, match=said):
        read_protocol(file)
