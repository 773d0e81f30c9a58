"""Two recorded sets: verdicts that mirror, know copies, and never rest on absolute times."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_sets import PROVED, arm, declaration, replicates, trial, write_duel, write_run

from bertopt_bench.errors import UserError
from bertopt_bench.results.tables import Results, load_results
from bertopt_bench.stats import recorded
from bertopt_bench.stats.sets import METRICS, SetComparison, compare_sets, read_margins
from bertopt_bench.stats.verdicts import WORDS

if TYPE_CHECKING:
    from bertopt_bench.results.duels import Finding

PUBLISHED = Path(__file__).parents[2] / "results/optimizers"
SEEDS = range(1, 9)
MIRRORED = {a: b for pair in WORDS.values() for a, b in (pair, pair[::-1])}


def runs(
    folder: Path, name: str, losses: dict[str, list[float]], peak: float = 1.0, **fields: Any
) -> Results:
    """Write cells with a loss a seed; every process takes about a megabyte times ``peak``."""
    draw = random.Random(name)
    records = [
        trial(cell, seed, loss, int(1e6 * peak * (1 + 0.001 * draw.random())))
        for cell, values in losses.items()
        for seed, loss in enumerate(values, start=1)
    ]
    return load_results(write_run(folder / name, name, records, **fields))


def duel(
    folder: Path,
    name: str,
    speeds: dict[str, float],
    count: int = 12,
    *,
    proofs: Any = None,
    peak: Any = None,
    records: Any = (),
    state: str = "valid",
    arms: Any = None,
    session: Any = None,
    noise: float = 0.005,
    **fields: Any,
) -> Results:
    """Write a duel of arms with these seconds a step, the first one the baseline."""
    declared = declaration(arms or [arm(label) for label in speeds], **fields)
    made = replicates(name, declared, speeds, count, noise=noise, proofs=proofs, peak=peak)
    path = folder / name
    return load_results(
        write_duel(path, name, declared, made, records=records, state=state, **(session or {}))
    )


def only(comparison: SetComparison) -> Finding:
    (finding,) = comparison.findings
    return finding


def verdicts(comparison: SetComparison) -> dict[tuple[str, str], str]:
    return {
        (family.metric, label): finding.verdict
        for family in comparison.families
        for label, finding in zip(family.labels, family.findings, strict=True)
    }


def drawn(seed: int, shift: float = 0.0) -> dict[str, list[float]]:
    draw = random.Random(seed)
    return {name: [5 + draw.gauss(0, 0.02) + shift for _ in SEEDS] for name in ("adamw", "lion")}


@pytest.mark.parametrize("metrics", [(), ("step_time",), ("peak_memory", "loss")])
def test_a_published_set_against_its_copy_says_no_difference(
    tmp_path: Path, metrics: tuple[str, ...]
) -> None:
    """Oracle: byte-identical folders; three seeds are below the six that a verdict takes."""
    copy = shutil.copytree(PUBLISHED, tmp_path / "another-name")

    found = compare_sets(load_results(PUBLISHED), load_results(copy), metrics=metrics)

    assert set(verdicts(found).values()) == {"inconclusive"}
    assert all("the same measurement twice" in one.reason for one in found.findings)
    assert {one.estimate for one in found.findings} == {0.0}
    assert found.exit_code == 0


def test_identical_sets_are_equivalent_where_there_are_enough(tmp_path: Path) -> None:
    """Oracle: eight seeds, twelve replicates, byte-identical: every metric, never a direction."""
    made = runs(tmp_path, "a", drawn(1))
    records = [{**trial(n, s, 5 + s / 9), "arm": n} for n in ("adamw", "lion") for s in SEEDS]
    live = duel(tmp_path, "d", {"adamw": 1.0, "lion": 2.0}, records=records, target_loss=5.6)

    found = compare_sets(made, made)
    lived = compare_sets(live, live, metrics=METRICS)

    assert set(verdicts(found).values()) == set(verdicts(lived).values()) == {"equivalent"}
    assert len(found.findings) == 6
    assert all("the same measurement twice" in one.reason for one in found.findings)
    assert all("same_measurement" in one.flags for one in lived.findings)


def test_times_of_runs_are_refused_and_say_what_to_do(tmp_path: Path) -> None:
    """Oracle: two sets that were not interleaved; exit 3 only where asked for."""
    a, b = runs(tmp_path, "a", drawn(1)), runs(tmp_path, "b", drawn(1))

    found = compare_sets(a, b)
    asked = compare_sets(a, b, metrics=("step_time",))

    assert "bertopt-bench duel" in found.refusals["step_time"]
    assert {one.verdict for one in asked.findings} == {"refused"}
    assert (found.exit_code, asked.exit_code) == (0, 3)


def test_an_undeclared_difference_refuses_every_metric(tmp_path: Path) -> None:
    """Oracle: another torch; declared, the same sets compare."""
    a = runs(tmp_path, "a", drawn(1))
    b = runs(tmp_path, "b", drawn(1), versions={"torch": "2.12.0"})

    found = compare_sets(a, b)

    assert {one.verdict for one in found.findings} == {"refused"}
    assert all("torch is 2.13.0+cpu in A and 2.12.0 in B" in one.reason for one in found.findings)
    assert found.exit_code == 3
    assert compare_sets(a, b, differs=("torch",)).exit_code == 0


def test_a_machine_twice_as_slow_all_over_changes_no_ratio(tmp_path: Path) -> None:
    """Oracle: both arms of B take twice as long; by the anchor that is no difference."""
    a = duel(tmp_path, "a", {"adamw": 0.02, "lion": 0.03})
    b = duel(tmp_path, "b", {"adamw": 0.04, "lion": 0.06})

    finding = only(compare_sets(a, b, metrics=("step_time",)))

    assert finding.verdict == "equivalent"
    assert finding.n == 12
    assert finding.noise_floor > 0


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "slower"), (0.9, "faster")])
def test_an_arm_that_changed_by_its_anchor_is_found(
    tmp_path: Path, factor: float, verdict: str
) -> None:
    """Oracle: the injected factor, by hand through the anchor of another pace."""
    a = duel(tmp_path, "a", {"adamw": 0.02, "lion": 0.03})
    b = duel(tmp_path, "b", {"adamw": 0.05, "lion": 0.075 * factor})

    comparison = compare_sets(a, b, metrics=("step_time",))

    finding = only(comparison)
    assert (finding.baseline, finding.arm, finding.verdict) == ("lion", "lion", verdict)
    assert finding.estimate == pytest.approx(math.log(factor), abs=0.01)
    assert comparison.anchor == "adamw"
    assert comparison.exit_code == 0


def test_ratios_pair_in_order_as_far_as_the_shorter_set_goes(tmp_path: Path) -> None:
    """Oracle: NumPy on the blocks: mean over rounds of log ratios, B less A, the first nine."""
    a = duel(tmp_path, "a", {"adamw": 0.02, "lion": 0.03}, 14)
    b = duel(tmp_path, "b", {"adamw": 0.02, "lion": 0.03}, 9)

    def ratios(results: Results) -> np.ndarray:
        return np.array(
            [
                np.mean(
                    [
                        math.log(two.wall_seconds / one.wall_seconds)
                        for one in replicate.blocks
                        for two in replicate.blocks
                        if (one.arm, two.arm) == ("adamw", "lion") and one.round == two.round
                    ]
                )
                for replicate in results.replicates
            ]
        )

    finding = only(compare_sets(a, b, metrics=("step_time",)))

    assert finding.n == 9
    np.testing.assert_allclose(finding.differences, ratios(b) - ratios(a)[:9], atol=1e-12)


def test_an_anchor_of_other_code_is_no_anchor(tmp_path: Path) -> None:
    """Oracle: the baseline's sources changed; declaring it helps memory, never times."""
    edited = {**PROVED, "modules": {**PROVED["modules"], "mine": {"sources": "m2"}}}
    before = {**PROVED, "modules": {**PROVED["modules"], "mine": {"sources": "m1"}}}
    speeds = {"adamw": 0.02, "lion": 0.03}
    a = duel(tmp_path, "a", speeds, proofs={"adamw": before})
    b = duel(tmp_path, "b", speeds, proofs={"adamw": edited})

    found = compare_sets(a, b, metrics=("step_time",), differs=("commit",))
    by_lion = compare_sets(a, b, metrics=("step_time",), differs=("commit",), anchor="lion")

    assert "the anchor 'adamw' is not the same in both sets" in found.refusals["step_time"]
    assert "mine.sources is m1 in A and m2 in B" in found.refusals["step_time"]
    assert found.exit_code == 3
    assert verdicts(by_lion) == {("step_time", "adamw"): "equivalent"}


def test_an_anchor_of_unrecorded_imports_is_known_by_its_session(tmp_path: Path) -> None:
    """Oracle: workers that proved nothing, under another torch."""
    speeds, nothing = {"adamw": 0.02, "lion": 0.03}, {"adamw": {}, "lion": {}}
    other = {"versions": {"torch": "2.12.0"}}
    a = duel(tmp_path, "a", speeds, proofs=nothing)
    b = duel(tmp_path, "b", speeds, proofs=nothing, session=other)

    found = compare_sets(a, b, metrics=("step_time",), differs=("torch",))

    assert "torch is 2.13.0+cpu in A and 2.12.0 in B" in found.refusals["step_time"]
    assert compare_sets(a, a, metrics=("step_time",)).exit_code == 0


def test_the_anchor_is_the_common_baseline_or_has_to_be_named(tmp_path: Path) -> None:
    """Oracle: two baselines; an unknown name is a mistake with the nearest."""
    a = duel(tmp_path, "a", {"adamw": 0.02, "lion": 0.03})
    b = duel(tmp_path, "b", {"lion": 0.03, "adamw": 0.02})

    assert "--anchor" in compare_sets(a, b).refusals["step_time"]
    assert verdicts(compare_sets(a, b, metrics=("step_time",), anchor="lion")) == {
        ("step_time", "adamw"): "equivalent"
    }
    with pytest.raises(UserError, match="Did you mean 'lion'"):
        compare_sets(a, b, anchor="lyon")


def test_duels_of_the_anchor_alone_have_no_times_to_compare(tmp_path: Path) -> None:
    """Oracle: a difference of the yardstick from itself would be 0, and read as equivalent."""
    a, b = duel(tmp_path, "a", {"adamw": 0.02}), duel(tmp_path, "b", {"adamw": 0.02})

    found = compare_sets(a, b, metrics=("step_time",))

    assert only(found).verdict == "refused"
    assert "measures the others" in found.refusals["step_time"]


def test_arms_without_labels_in_common_still_pair(tmp_path: Path) -> None:
    """Oracle: B's arms renamed and in another order; the numbers are those of the first names."""
    speeds = {"adamw": 0.02, "lion": 0.03, "sgd": 0.01}
    renamed = {"adamw": "zero", "lion": "two", "sgd": "one"}
    a = duel(tmp_path, "a", speeds)
    plain = duel(tmp_path, "b", speeds)
    declared = declaration([arm(renamed[name], name) for name in ("adamw", "sgd", "lion")])

    def renaming(value: Any) -> Any:
        return value.model_copy(update={"arm": renamed.get(value.arm, value.arm)})

    made = [
        one.model_copy(
            update={
                "arms": tuple(map(renaming, one.arms)),
                "blocks": tuple(map(renaming, one.blocks)),
            }
        )
        for one in plain.replicates
    ]
    b = load_results(write_duel(tmp_path / "c", "b", declared, made))

    before = compare_sets(a, plain, metrics=("step_time", "peak_memory"))
    after = compare_sets(a, b, metrics=("step_time", "peak_memory"))

    def numbers(found: SetComparison) -> dict[tuple[str, str], Any]:
        return {
            (one.metric, one.baseline): (one.differences, one.verdict) for one in found.findings
        }

    assert numbers(before) == numbers(after)


def test_too_much_noise_takes_a_direction_back(tmp_path: Path) -> None:
    """Oracle: a difference that is found, from a duel that called itself too noisy."""
    a = duel(tmp_path, "a", {"adamw": 0.02, "lion": 0.03})
    quiet = duel(tmp_path, "b", {"adamw": 0.02, "lion": 0.04})
    noisy = duel(tmp_path, "c", {"adamw": 0.02, "lion": 0.04}, state="too_noisy")
    wrong = duel(tmp_path, "d", {"adamw": 0.02, "lion": 0.04}, state="invalid")

    assert only(compare_sets(a, quiet, metrics=("step_time",))).verdict == "slower"
    found = only(compare_sets(a, noisy, metrics=("step_time",)))
    assert (found.verdict, found.reason) == (
        "inconclusive",
        "too noisy: B was too noisy when it was measured: scripted",
    )
    refused = compare_sets(a, wrong)
    assert {one.verdict for one in refused.findings} == {"refused"}
    assert refused.exit_code == 3


def test_what_the_a_a_arms_differ_by_widens_the_margin(tmp_path: Path) -> None:
    """Oracle: replicates that spread by 8 % can not show 3 %."""
    a = duel(tmp_path, "a", {"adamw": 0.02, "lion": 0.03}, noise=0.08)
    b = duel(tmp_path, "b", {"adamw": 0.02, "lion": 0.0309}, noise=0.08)

    finding = only(compare_sets(a, b, metrics=("step_time",)))

    assert finding.margin == pytest.approx(math.log(1.02))
    assert finding.margin_in_force == finding.noise_floor > 0.03
    assert finding.verdict in {"equivalent", "inconclusive"}


def test_memory_pairs_by_seed_and_replicate_and_needs_no_test_where_it_repeats(
    tmp_path: Path,
) -> None:
    """Oracle: 5 % more bytes in each of eight pairs; 1 % is the margin."""

    def written(name: str, peak: int) -> Results:
        records = [
            trial("adamw", seed, peak=peak, replicate=r) for seed in range(1, 5) for r in (0, 1)
        ]
        return load_results(write_run(tmp_path / name, name, records))

    a, b, c = written("a", 1_000_000), written("b", 1_050_000), written("c", 1_005_000)

    larger = only(compare_sets(a, b, metrics=("peak_memory",)))
    alike = only(compare_sets(a, c, metrics=("peak_memory",)))

    assert (larger.verdict, larger.n) == ("larger", 8)
    assert larger.estimate == pytest.approx(math.log(1.05))
    assert alike.verdict == "equivalent"


def test_memory_of_duels_comes_from_their_processes(tmp_path: Path) -> None:
    """Oracle: lion's processes of B take a tenth more."""
    speeds = {"adamw": 0.02, "lion": 0.03}
    a = duel(tmp_path, "a", speeds, peak=lambda *_: 1000)
    b = duel(tmp_path, "b", speeds, peak=lambda label, _: 1100 if label == "lion" else 1000)

    found = compare_sets(a, b, metrics=("peak_memory",))

    assert verdicts(found) == {
        ("peak_memory", "adamw"): "equivalent",
        ("peak_memory", "lion"): "larger",
    }
    assert {one.n for one in found.findings} == {12}


def test_losses_pair_by_seed_once_each_and_a_diverged_run_is_infinite(tmp_path: Path) -> None:
    """Oracle: by hand: mean of the last evaluations; a replicate of a seed is no second seed."""
    a = [trial("adamw", seed, 5 + seed / 100) for seed in SEEDS]
    a += [trial("adamw", 1, 9.0, replicate=1), trial("adamw", 2, 9.0, replicate=2, steps=3)]
    b = [trial("adamw", seed, 5 + seed / 100 + seed / 1000) for seed in SEEDS if seed != 3]
    b += [trial("adamw", 3, status="diverged", reason="r", diverged_at_step=2, evaluations=[])]
    sets = [load_results(write_run(tmp_path / n, n, r)) for n, r in (("a", a), ("b", b))]

    finding = only(compare_sets(*sets, metrics=("loss",)))

    expected = [seed / 1000 if seed != 3 else math.inf for seed in SEEDS]
    assert finding.differences == pytest.approx(expected)
    assert "infinite_differences" in finding.flags


def test_trials_that_did_not_finish_count_in_no_metric(tmp_path: Path) -> None:
    """Oracle: one of eight seeds failed: seven pairs, and it is said."""
    bad = trial("adamw", 8, status="out_of_memory", reason="r")
    a = write_run(tmp_path / "a", "a", [trial("adamw", seed) for seed in SEEDS])
    b = write_run(tmp_path / "b", "b", [*(trial("adamw", seed) for seed in SEEDS[:-1]), bad])

    found = compare_sets(load_results(a), load_results(b), metrics=("loss", "peak_memory"))

    assert [one.n for one in found.findings] == [7, 7]
    assert "1 trial is out of memory in B, which pairs with nothing" in found.notes


def test_a_metric_of_which_nothing_pairs_is_refused(tmp_path: Path) -> None:
    """Oracle: duels without trained records; sets without a common seed."""
    live = duel(tmp_path, "d", {"adamw": 0.02, "lion": 0.03})
    a = load_results(write_run(tmp_path / "a", "a", [trial("adamw", seed) for seed in (1, 2)]))
    b = load_results(write_run(tmp_path / "b", "b", [trial("adamw", seed) for seed in (3, 4)]))

    assert compare_sets(live, live).refusals == {"loss": "the sets have no loss that pairs"}
    assert compare_sets(live, live).exit_code == 0
    assert compare_sets(live, live, metrics=("loss",)).exit_code == 3
    assert compare_sets(a, b).exit_code == 3


def test_a_losss_margin_is_a_quarter_of_the_spread_and_the_same_swapped(tmp_path: Path) -> None:
    """Oracle: NumPy: root of the mean variance of both sets, the median over cells."""
    a = runs(tmp_path, "a", drawn(1))
    b = runs(tmp_path, "b", {**drawn(2), "adamw": [5 + 0.3 * s for s in SEEDS]})

    spreads = []
    for name in ("adamw", "lion"):
        both = [
            [r.evaluations[-1].loss for r in one.records if r.cell["optimizer"]["name"] == name]
            for one in (a, b)
        ]
        spreads.append(math.sqrt(np.mean([np.var(values, ddof=1) for values in both])))
    both = (compare_sets(x, y, metrics=("loss",)) for x, y in ((a, b), (b, a)))
    (margin,) = {one.margin for found in both for one in found.findings}

    assert margin == pytest.approx(np.median(spreads) / 4)
    stated = compare_sets(a, b, metrics=("loss",), margins={"loss": 0.5}).findings
    assert {one.margin for one in stated} == {0.5}


def test_losses_on_other_text_are_refused_even_where_it_was_declared(tmp_path: Path) -> None:
    """Oracle: the held-out text's hash; memory still compares."""
    a = write_run(tmp_path / "a", "a", [trial("adamw", seed) for seed in SEEDS])
    other = [trial("adamw", seed, evaluation_sha256="9" * 64) for seed in SEEDS]
    b = write_run(tmp_path / "b", "b", other)

    found = compare_sets(
        load_results(a), load_results(b), metrics=("loss", "peak_memory"), differs=("workload",)
    )

    assert verdicts(found) == {("loss", "adamw"): "refused", ("peak_memory", "adamw"): "equivalent"}
    assert "held-out text differs" in found.findings[0].reason


def test_a_measurement_in_both_sets_is_no_evidence_beside_others(tmp_path: Path) -> None:
    """Oracle: two of eight seeds are A's own records: six pairs are left."""
    records = [trial("adamw", seed, 5 + seed / 100) for seed in SEEDS]
    a = write_run(tmp_path / "a", "one", records)
    b = shutil.copytree(a, tmp_path / "b")
    kept = (b / "records.jsonl").read_bytes().splitlines(keepends=True)[:2]
    (b / "records.jsonl").write_bytes(b"".join(kept))
    write_run(b, "two", [{**r, "losses": [4.0] * 6} for r in records[2:]])

    found = compare_sets(load_results(a), load_results(b), metrics=("loss",))

    assert only(found).n == 6
    assert "2 pairs are one measurement" in found.families[0].notes[0]


def test_time_to_a_target_takes_a_declared_target_and_an_anchor(tmp_path: Path) -> None:
    """Oracle: equal curves, so only the seconds a step are left: lion's are a fifth more in B."""
    speeds = {"adamw": 0.02, "lion": 0.03}

    def lived(name: str, factor: float, **fields: Any) -> Results:
        records = [{**trial(n, s, 5 + s / 99), "arm": n} for n in speeds for s in SEEDS]
        records = [{**one, "losses": [factor] * 6} for one in records]
        paces = {**speeds, "lion": speeds["lion"] * factor}
        return duel(tmp_path, name, paces, records=records, **fields)

    a, b = lived("a", 1.0, target_loss=5.5), lived("b", 1.2, target_loss=5.5)
    found = compare_sets(a, b, metrics=("time_to_target",))
    without = compare_sets(lived("c", 1.0), lived("d", 1.0), metrics=("time_to_target",))

    assert only(found).estimate == pytest.approx(math.log(1.2), abs=0.01)
    assert (only(found).n, only(found).verdict) == (8, "slower")
    assert "no target loss was declared" in without.refusals["time_to_target"]
    assert without.exit_code == 3


def test_a_family_is_a_metric_over_its_cells(tmp_path: Path) -> None:
    """Oracle: Holm by hand: the smallest of two p-values doubled; q of equal ones is their p."""
    a = runs(tmp_path, "a", drawn(1))
    b = runs(tmp_path, "b", {"adamw": drawn(3, 0.5)["adamw"], "lion": drawn(2)["lion"]})

    found = compare_sets(a, b, metrics=("loss",))
    adamw, lion = found.findings

    assert adamw.verdict == "higher"
    assert adamw.corrected_p_more == pytest.approx(min(1, 2 * adamw.p_more))
    assert adamw.q_value == pytest.approx(2 * adamw.p_any)
    assert lion.q_value >= lion.p_any
    alone = only(compare_sets(a, b, metrics=("loss",), cells=("adamw",)))
    assert alone.corrected_p_more == alone.p_more


def test_unknown_names_are_mistakes_with_the_nearest(tmp_path: Path) -> None:
    """Oracle: the house rule on errors."""
    a = runs(tmp_path, "a", drawn(1))

    with pytest.raises(UserError, match="Did you mean 'loss'"):
        compare_sets(a, a, metrics=("los",))
    with pytest.raises(UserError, match="Did you mean 'lion'"):
        compare_sets(a, a, cells=("lyon",))
    with pytest.raises(UserError, match="alpha"):
        compare_sets(a, a, alpha=2.0)


def test_margins_are_read_as_they_are_written() -> None:
    """Oracle: by hand: shares of times and bytes, nats of a loss."""
    read = read_margins(["step_time=1%", "peak_memory=0.005", "loss=0.02"])

    assert read == {"step_time": 0.01, "peak_memory": 0.005, "loss": 0.02}
    for text in ("loss=2%", "loss=-1", "step_time=200%", "step_time", "los=1"):
        with pytest.raises(UserError):
            read_margins([text])


def test_a_crash_in_the_statistics_refuses_one_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: an exception is never a verdict, and leaves the other metrics alone."""

    def crash(*_: object, **__: object) -> float:
        raise ZeroDivisionError("scripted")

    a, b = runs(tmp_path, "a", drawn(1)), runs(tmp_path, "b", drawn(2))
    monkeypatch.setattr(recorded, "_other_text", crash)

    found = compare_sets(a, b, metrics=("loss", "peak_memory"))

    assert {one.verdict for one in found.findings if one.metric == "loss"} == {"refused"}
    assert "ZeroDivisionError: scripted" in found.findings[0].reason
    assert found.families[1].findings[0].verdict != "refused"
    assert found.exit_code == 3


def mirrored(finding: Finding) -> tuple[Any, ...]:
    low, high = finding.low, finding.high
    return (
        MIRRORED.get(finding.verdict, finding.verdict),
        finding.n,
        tuple(-value for value in finding.differences),
        None if high is None else -high,
        None if low is None else -low,
        finding.p_less,
        finding.p_more,
    )


def plain(finding: Finding) -> tuple[Any, ...]:
    return (
        finding.verdict,
        finding.n,
        finding.differences,
        finding.low,
        finding.high,
        finding.p_more,
        finding.p_less,
    )


@given(seed=st.integers(0, 10**6), count=st.integers(4, 14), shift=st.floats(-0.1, 0.1))
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.slow
def test_swapping_the_sets_mirrors_every_verdict(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, shift: float
) -> None:
    """Oracle: the same pairs with the other sign, over drawn losses, peaks and speeds."""
    folder = tmp_path_factory.mktemp("sets")
    a, b = runs(folder, "a", drawn(seed)), runs(folder, "b", drawn(seed + 1, shift), 1 + shift / 3)
    c = duel(folder, f"{seed}-c", {"adamw": 1.0, "lion": 2.0}, count)
    d = duel(folder, f"{seed}-d", {"adamw": 1.5, "lion": 3.0 + shift}, 12)

    for one, other in ((a, b), (c, d)):
        forth, back = compare_sets(one, other), compare_sets(other, one)
        assert [plain(f) for f in forth.findings] == [mirrored(f) for f in back.findings]


@given(order=st.permutations(range(16)))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_order_of_records_and_the_folders_names_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    """Oracle: the same lines, shuffled, in a folder of another name."""
    folder = tmp_path_factory.mktemp("sets")
    a, b = runs(folder, "a", drawn(1)), runs(folder, "b", drawn(2, 0.03))
    records = [b.records[i].model_dump(mode="json") for i in order]
    moved = load_results(write_run(folder / "elsewhere", "b", records))

    before, after = compare_sets(a, b), compare_sets(a, moved)

    assert before.families == after.families
    assert before.notes == after.notes


@pytest.mark.slow
def test_ratios_of_unchanged_code_raise_alarms_at_the_stated_rate(tmp_path: Path) -> None:
    """Oracle: the binomial 99.9 % bound at alpha .01, two-sided, over 200 pairs of duels."""
    declared = declaration([arm("adamw"), arm("lion")])
    template = duel(tmp_path, "a", {"adamw": 0.02, "lion": 0.03})
    draw, alarms = random.Random(7), 0

    def again(number: int) -> Results:
        pace = draw.uniform(0.5, 2)
        speeds = {"adamw": 0.02 * pace, "lion": 0.03 * pace}
        made = replicates(f"{number}", declared, speeds, 12, noise=0.02)
        same = [one.model_copy(update={"session": "a"}) for one in made]
        return Results(template.path, template.sessions, (), (), tuple(same))

    for number in range(200):
        found = compare_sets(
            again(2 * number),
            again(2 * number + 1),
            metrics=("step_time",),
            margins={"step_time": 0.0},
        )
        p_any = only(found).p_any
        alarms += p_any is not None and p_any <= 0.01
        assert only(found).verdict in {"equivalent", "inconclusive"}

    assert alarms <= 8
