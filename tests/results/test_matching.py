"""Two recorded sets: what pairs, what differs, what has to be declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_records import CODE, content
from made_sets import PROVED, arm, declaration, replicates, trial, write_duel, write_run

from bertopt_bench.errors import UserError
from bertopt_bench.measure.machine import describe_machine
from bertopt_bench.results import differing
from bertopt_bench.results.matching import Matching, match
from bertopt_bench.results.record import SCHEMA_VERSION, Session
from bertopt_bench.results.tables import load_results

OPTIMIZERS = ("adamw", "lion")
PUBLISHED = Path(__file__).parents[2] / "results/optimizers"


def run(folder: Path, name: str, **fields: Any) -> Path:
    """Write two cells on two seeds; what is no session's field is every record's."""
    of_session = {k: fields.pop(k) for k in list(fields) if k in Session.model_fields}
    records = [trial(name, seed, **fields) for name in OPTIMIZERS for seed in (1, 2)]
    if "code" in of_session:
        records = [{**one, "code": {**one["code"], **of_session["code"]}} for one in records]
    return write_run(folder / name, name, records, **of_session)


def matched(a: Path, b: Path, *differs: str) -> Matching:
    return match(load_results(a), load_results(b), differs)


def two_duels(
    folder: Path, a: list[Any], b: list[Any], proofs: Any = None, **fields: Any
) -> Matching:
    """Match two duels whose arms have one speed."""
    made = []
    for name, arms, proved in (("a", a, None), ("b", b, proofs)):
        declared = declaration(arms, **(fields if name == "b" else {}))
        speeds = {one.label: 0.02 for one in arms}
        path = folder / name
        made.append(
            write_duel(path, name, declared, replicates(name, declared, speeds, 2, proofs=proved))
        )
    return matched(*made)


def test_a_published_set_pairs_with_itself_whole() -> None:
    """Oracle: its 13 cells; nothing differs, nothing is left over."""
    found = matched(PUBLISHED, PUBLISHED)

    assert len(found.pairs) == 13
    assert found.differences == found.notes == ()
    assert all(trial.same for pair in found.pairs for trial in pair.trials())


def test_cells_pair_by_content_in_any_order_and_by_any_name(tmp_path: Path) -> None:
    """Oracle: the cell ids of either side of a pair."""
    records = [trial(name, seed) for name in ("lion", "sgd", "adamw") for seed in (1, 2)]
    a = write_run(tmp_path / "one", "s1", records)
    b = write_run(tmp_path / "any-name", "s2", records[::-1][:4])

    found = matched(a, b)

    assert [(p.label, p.a.cell_id == p.b.cell_id) for p in found.pairs] == [
        ("adamw", True),
        ("sgd", True),
    ]
    assert [(t.a.seed, t.b.seed) for t in found.pairs[0].trials()] == [(1, 1), (2, 2)]
    assert found.notes == ("1 of 3 cells is in A only: lion",)


UNDECLARED = {
    "torch": ({"versions": {"torch": "2.12.0"}}, "2.13.0+cpu", "2.12.0", ("torch",)),
    "python": ({"versions": {"python": "3.12.1"}}, "3.11.7", "3.12.1", ("python",)),
    "numpy": ({"versions": {"numpy": "2.3.0"}}, "2.4.6", "2.3.0", ("numpy", "packages")),
    "triton": ({"versions": {"triton": "3.0"}}, "none", "3.0", ("triton", "packages")),
    "governor": ({"machine": {"governor": None}}, "performance", "none", ("governor", "machine")),
    "memory_bytes": (
        {"machine": {"memory_bytes": 2**34}},
        "8 GiB",
        "16 GiB",
        ("memory_bytes", "machine"),
    ),
    "cache_bytes.L3": (
        {"machine": {"cache_bytes": {"L1d": 32768, "L3": 1}}},
        "33554432",
        "1",
        ("cache_bytes", "machine"),
    ),
    "affinity": (
        {"machine": {"affinity": [0]}},
        "[0,1]",
        "[0]",
        ("affinity", "threads", "machine"),
    ),
    "threads": ({"declared": {"threads": 1}}, "2", "1", ("threads",)),
    "commit": ({"code": {"commit": "b" * 40}}, "a" * 12, "b" * 12, ("commit",)),
    "dirty_hash": ({"code": {"dirty_hash": "d1"}}, "committed", "d1", ("commit",)),
    "version": ({"code": {"version": "0.2.0"}}, "0.1.0", "0.2.0", ("version",)),
    "outside mine": ({"code": {"outside": {"mine": "o1"}}}, "none", "o1", ("outside",)),
    "text_sha256": ({"text_sha256": "9" * 64}, "4" * 12, "9" * 12, ("workload",)),
    "tokenizer_sha256": ({"tokenizer_sha256": "9" * 64}, "5" * 12, "9" * 12, ("workload",)),
    "batches_sha256": ({"batches_sha256": "9" * 64}, "1" * 12, "9" * 12, ("workload",)),
    "evaluation_sha256": ({"evaluation_sha256": "9" * 64}, "3" * 12, "9" * 12, ("workload",)),
    "initial_weights_sha256": (
        {"initial_weights_sha256": "9" * 64},
        "1" * 12,
        "9" * 12,
        ("weights",),
    ),
    "matrix": (
        {"matrix": {"digest": "f" * 16}},
        "a matrix made (0123456789abcdef)",
        "a matrix made (ffffffffffffffff)",
        ("matrix",),
    ),
}


@pytest.mark.parametrize("key", UNDECLARED)
def test_what_differs_refuses_by_name_with_both_values_unless_declared(
    tmp_path: Path, key: str
) -> None:
    """Oracle: the one fact that was changed; its own name or its group's declares it."""
    fields, ours, theirs, names = UNDECLARED[key]
    a, b = run(tmp_path, "a"), run(tmp_path, "b", **fields)

    found = matched(a, b)

    assert [one.key for one in found.undeclared] == [key]
    assert f"{key} is {ours} in A" in found.refusal
    assert f"{theirs} in B" in found.refusal
    assert f"--differs {names[0]}" in found.refusal
    for name in names:
        declared = matched(a, b, name)
        assert declared.refusal == ""
        assert [one.key for one in declared.differences] == [key]
    assert matched(a, b, "python" if key == "torch" else "torch").refusal


def test_one_hash_that_differs_on_every_seed_is_told_once_with_its_place(tmp_path: Path) -> None:
    """Oracle: two cells on two seeds: the first place, and three more."""
    found = matched(run(tmp_path, "a"), run(tmp_path, "b", batches_sha256="9" * 64))

    assert "(adamw seed 1 and 3 more)" in found.refusal


def test_what_has_to_differ_with_a_declared_field_needs_no_declaration(tmp_path: Path) -> None:
    """Oracle: by reason: other packages make another hash, another version another commit."""
    a = run(tmp_path, "a")
    b = run(tmp_path, "b", versions={"torch": "2.12.0", "installed_hash": "h2"})
    c = run(tmp_path, "c", code={"version": "0.2.0", "commit": "c" * 40})
    d = run(tmp_path, "d", versions={"installed_hash": "h2"})

    assert matched(a, b).refusal.endswith("declare it: --differs torch.")
    assert matched(a, b, "torch").refusal == ""
    assert matched(a, c).refusal.endswith("declare it: --differs version.")
    assert matched(a, c, "version").refusal == ""
    assert matched(a, d, "torch").refusal
    assert matched(a, d, "packages").refusal == ""


def test_another_machine_is_declared_by_one_word(tmp_path: Path) -> None:
    """Oracle: four facts differ, all of the machine."""
    other = {"cpu_model": "another", "kernel": "6.2", "governor": None, "affinity": [0]}
    a, b = run(tmp_path, "a"), run(tmp_path, "b", machine=other)

    assert matched(a, b).refusal.endswith("declare it: --differs machine.")
    assert matched(a, b, "machine").refusal == ""


def test_a_definition_that_differs_can_not_be_declared_away(tmp_path: Path) -> None:
    """Oracle: the field is named, and the way out is to measure anew."""
    a = run(tmp_path, "a")
    b = run(tmp_path, "b", declared={"timing": {"burn_in_steps": 9}})

    found = matched(a, b, *differing.GROUPS)

    assert "timing.burn_in_steps is 3 in A and 9 in B" in found.refusal
    assert "measure one set anew" in found.refusal
    assert "--differs" not in found.refusal


@pytest.mark.parametrize(
    ("field", "value"),
    [("rounds", 8), ("block_seconds", 1.0), ("target_loss", 3.5), ("margins", {"step_time": 0.05})],
)
def test_duels_of_two_declarations_do_not_compare(tmp_path: Path, field: str, value: Any) -> None:
    """Oracle: the field that was changed, by name."""
    found = two_duels(tmp_path, [arm("adamw")], [arm("adamw")], **{field: value})

    assert {"margins": "margin of step_time"}.get(field, field) in found.refusal
    assert found.undeclared[0].fields == frozenset()


def test_duels_may_differ_in_arms_replicates_and_seeds(tmp_path: Path) -> None:
    """Oracle: none of these changes what a replicate's number means."""
    found = two_duels(
        tmp_path, [arm("adamw"), arm("lion")], [arm("adamw"), arm("sgd")], looks=(30,), seeds=(4, 5)
    )

    assert found.refusal == ""
    assert [pair.label for pair in found.pairs] == ["adamw"]


def test_an_unknown_field_is_a_mistake_with_the_nearest_name(tmp_path: Path) -> None:
    """Oracle: the house rule on errors."""
    a = run(tmp_path, "a")

    with pytest.raises(UserError, match="Did you mean 'governor'"):
        matched(a, a, "govenor")
    with pytest.raises(UserError, match="Did you mean 'commit'"):
        matched(a, a, "comit")


def test_what_a_boot_or_a_moment_changes_is_no_difference(tmp_path: Path) -> None:
    """Oracle: this machine described twice, with memory and load taken in between."""
    first = describe_machine()
    ballast = bytearray(64 * 2**20)
    second = {**describe_machine(), "boot_id_hash": "another", "load": [9.0], "ballast": 1}
    del ballast

    found = matched(run(tmp_path, "a", machine=first), run(tmp_path, "b", machine=second))

    assert [one.sentence() for one in found.differences] == []


def test_what_was_not_recorded_is_not_known_and_no_difference(tmp_path: Path) -> None:
    """Oracle: an older record without hashes, a session without the key."""
    a = run(tmp_path, "a", text_sha256=None, initial_weights_sha256=None)
    b = run(tmp_path, "b", machine={"turbo": True})

    assert matched(a, b).differences == ()


def test_every_schema_version_has_a_meaning() -> None:
    """Oracle: the versions that readers accept."""
    assert set(differing.MEANINGS) == set(range(1, SCHEMA_VERSION + 1))


def test_arms_pair_by_code_then_label_then_where_one_is_left(tmp_path: Path) -> None:
    """Oracle: by hand: v1 is v1 under any label; v2 and v3 are what is left of the cell."""
    a = [arm("base", "adamw", commit="1"), arm("new", "adamw", commit="2"), arm("lion")]
    b = [arm("new", "adamw", commit="1"), arm("base", "adamw", commit="3"), arm("lion")]

    found = two_duels(tmp_path, a, b)

    assert {(pair.a.label, pair.b.label) for pair in found.pairs} == {
        ("base", "new"),
        ("new", "base"),
        ("lion", "lion"),
    }
    assert "commit is 2 in A and 3 in B" in found.refusal
    assert "commit is 1" not in found.refusal


def test_an_injected_delay_is_part_of_what_an_arm_is(tmp_path: Path) -> None:
    """Oracle: a slowed copy of a cell is not the cell."""
    slowed = arm("slowed", "adamw", injected_share=0.05)

    found = two_duels(tmp_path, [arm("adamw"), slowed], [arm("adamw"), arm("x", "adamw")])

    assert [(p.a.label, p.b.label) for p in found.pairs] == [("adamw", "adamw")]


def test_code_is_known_by_its_sources_and_not_by_its_place_or_a_commit_beside_it(
    tmp_path: Path,
) -> None:
    """Oracle: the same sources from a worktree at another commit; then other sources."""
    own = PROVED["modules"]["bertopt_bench"]
    moved = {
        **PROVED,
        "addresses": {"libc": "7fff"},
        "modules": {
            **PROVED["modules"],
            "bertopt_bench": {**own, "root": "overlay", "file": "x", "commit": "b" * 40},
        },
    }
    edited = {
        **PROVED,
        "modules": {**PROVED["modules"], "mine": {"version": None, "sources": "m2"}},
    }
    before = {
        **PROVED,
        "modules": {**PROVED["modules"], "mine": {"version": None, "sources": "m1"}},
    }
    arms = [arm("adamw"), arm("lion")]

    assert two_duels(tmp_path / "1", arms, arms, proofs={"lion": moved}).differences == ()
    declared = declaration(arms)
    folders = []
    for name, proof in (("a", before), ("b", edited)):
        made = replicates(name, declared, {"adamw": 1.0, "lion": 1.0}, 2, proofs={"lion": proof})
        folders.append(write_duel(tmp_path / "2" / name, name, declared, made))
    (found,) = matched(*folders).undeclared
    assert (found.key, found.a, found.b, found.place) == ("mine.sources", "m1", "m2", "arm lion")
    assert found.fields == {"commit"}


def test_a_duels_fullest_session_counts(tmp_path: Path) -> None:
    """Oracle: three replicates beat one, whichever came later; it is said."""
    arms = [arm("adamw"), arm("lion")]
    declared = declaration(arms)
    speeds = {"adamw": 1.0, "lion": 1.0}
    write_duel(tmp_path / "a", "first", declared, replicates("first", declared, speeds, 3))
    folder = write_duel(
        tmp_path / "a",
        "second",
        declared,
        replicates("second", declared, speeds, 1),
        started_utc="2026-11-25T02:10:00+00:00",
    )

    found = matched(folder, folder)

    assert found.a.duel is not None
    assert found.a.duel.session == "first"
    assert len(found.a.replicates) == 3
    assert "A holds 2 sessions" in found.notes[0]


def test_a_run_and_a_duel_pair_by_cell_where_the_matrix_is_declared(tmp_path: Path) -> None:
    """Oracle: the duel's trials of an arm are trials of its cell."""
    declared = declaration([arm("adamw"), arm("lion")], metrics=("loss",))
    records = [{**trial(name, 1), "arm": name} for name in OPTIMIZERS]
    a = run(tmp_path, "a")
    b = write_duel(tmp_path / "b", "b", declared, [], records=records)

    assert [one.key for one in matched(a, b).undeclared] == ["matrix"]
    found = matched(a, b, "matrix")
    assert [(p.label, len(p.trained())) for p in found.pairs] == [("adamw", 1), ("lion", 1)]


def test_trials_that_pair_with_nothing_are_said(tmp_path: Path) -> None:
    """Oracle: by hand: a failed trial, a seed of B's own, a shorter timing replicate."""
    a = write_run(
        tmp_path / "a",
        "a",
        [trial("adamw", 1), trial("adamw", 2), trial("adamw", 3, status="timed_out", reason="r")],
    )
    shorter = trial("adamw", 1, replicate=1, steps=3, evaluations=[])
    b = write_run(tmp_path / "b", "b", [trial("adamw", s) for s in (1, 3, 4)] + [shorter])

    found = matched(a, b)

    assert found.notes == (
        "1 trial is timed out in A, which pairs with nothing",
        "seed 2 of adamw in A only",
        "seeds 3, 4 of adamw in B only",
    )
    assert len(found.pairs[0].trials()) == len(found.pairs[0].trained()) == 1


def test_a_session_that_was_changed_after_it_was_written_is_said(tmp_path: Path) -> None:
    """Oracle: one session name, two contents."""
    a = write_run(tmp_path / "a", "one", [trial("adamw", 1)])
    b = write_run(tmp_path / "b", "one", [trial("adamw", 1, loss=4.0)])

    assert "session one is in both sets with contents that differ" in matched(a, b).notes[0]


def test_sets_without_a_common_cell_name_the_nearest(tmp_path: Path) -> None:
    """Oracle: adamw and adam are near."""
    a = write_run(tmp_path / "a", "a", [trial("adamw", 1)])
    b = write_run(tmp_path / "b", "b", [trial("adam", 1), trial("sgd", 1)])

    with pytest.raises(UserError, match=r"no cell in common.*Did you mean 'adam'"):
        matched(a, b)


def test_cells_of_one_name_say_in_what_they_differ(tmp_path: Path) -> None:
    """Oracle: the one key that was changed."""
    with pytest.raises(UserError, match=r"called 'x' differ in optimizer.name \(adamw and sgd\)"):
        two_duels(tmp_path, [arm("x", "adamw")], [arm("x", "sgd")])


def test_the_code_of_made_records_is_that_of_their_sessions() -> None:
    """Oracle: the tests above compare one commit, unless they say otherwise."""
    assert trial("adamw", 1)["code"] == CODE
    assert trial("adamw", 1)["cell"] == content(optimizer="adamw")
