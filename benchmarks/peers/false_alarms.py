"""How often does a tool call identical code different? The same A/A data, each tool's own test.

Every session of a results folder of duels has the baseline twice: as itself and as its control. The
step times of the two go to asv, pytest-benchmark and pyperf (their own code decides, with their own
thresholds), to two textbook tests on steps, and to our judge. They are fed in two ways:

- interleaved: all steps of both, as the session recorded them. This is kinder to the other tools
  than their own way of measuring: drift hits both sides alike here.
- A, then B: steps of the baseline from the first half of the session's processes, steps of the
  control from the second half. This is what one sees who measures one commit, then the other.

An alarm is a difference claimed in either direction; pytest-benchmark looks for slow-downs only.
pyperf's test takes equal numbers of values only (given unequal ones it says "significant" without
one), so the longer side is cut. Our judge refuses times that were not interleaved.

    pip install asv pyperf -c constraints.txt
    python benchmarks/peers/false_alarms.py [results/calibration] [--markdown]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from importlib import metadata, util
from itertools import chain
from typing import TYPE_CHECKING

from scipy import stats as textbook

from bertopt_bench import load_results
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.duels import LEAST_REPLICATES
from bertopt_bench.results.duels import CONTROL, Declaration
from bertopt_bench.stats.duels import step_time_differences, whole
from bertopt_bench.stats.families import clopper_pearson
from bertopt_bench.stats.verdicts import WORDS, Comparison, Rule, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bertopt_bench.results.duels import Replicate

INSTALL = "pip install -c constraints.txt '.[peers]'"
ALPHA = 0.01
FAIL = "mean:5%"  # the threshold of pytest-benchmark's documentation; it has no default

Steps = tuple[tuple[float, ...], ...]
"""Seconds a step of one arm, process by process."""


@dataclass(frozen=True)
class Sides:
    """What a tool is given: the baseline and the same code once more."""

    baseline: Steps
    control: Steps


@dataclass(frozen=True)
class Pair:
    """The A/A pair of one session; ``differences`` are those that our judge takes."""

    session: str
    sides: Sides
    differences: tuple[float, ...]

    def one_then_the_other(self) -> Sides:
        """Give what sequential measurement would have seen: each side from its half alone."""
        half = len(self.sides.baseline) // 2
        return Sides(self.sides.baseline[:half], self.sides.control[-half:])


@dataclass(frozen=True)
class Tool:
    """A way to compare; ``alarms`` says whether it finds a difference."""

    package: str
    way: str
    rule: str
    alarms: Callable[[Sides], bool]

    @property
    def is_here(self) -> bool:
        """Say whether the package is installed."""
        return util.find_spec(self.package.replace("-", "_")) is not None

    @property
    def title(self) -> str:
        """Give package, version and which of its ways this is."""
        package = (
            f"{self.package} {metadata.version(self.package)}" if self.is_here else self.package
        )
        return f"{package}, {self.way}" if self.way else package


@dataclass(frozen=True)
class Count:
    """False alarms out of so many comparisons."""

    alarms: int
    pairs: int

    def __str__(self) -> str:
        low, high = clopper_pearson(self.alarms, self.pairs)
        share = self.alarms / self.pairs
        return f"{self.alarms} of {self.pairs} ({share:.0%}; {low:.0%} to {high:.0%})"


# ---- each tool's own comparison ----


def asv(sides: Sides, factor: float = 1.1) -> bool:
    """Ask as ``asv compare`` does for its marks + and -; 1.1 is its default ``--factor``."""
    from asv.commands.compare import _is_result_better
    from asv_runner.statistics import compute_stats

    samples = [pooled(side) for side in (sides.baseline, sides.control)]
    (before, before_stats), (after, after_stats) = (compute_stats(s, 1) for s in samples)
    old, new = (before_stats, samples[0]), (after_stats, samples[1])
    return bool(
        _is_result_better(after, before, new, old, factor)
        or _is_result_better(before, after, old, new, factor)
    )


def asv_without_factor(sides: Sides) -> bool:
    """Ask as ``asv compare --factor 1`` does: for any difference that its test finds."""
    return asv(sides, factor=1.0)


def pytest_benchmark(sides: Sides) -> bool:
    """Ask as ``--benchmark-compare --benchmark-compare-fail=mean:5%`` does."""
    from pytest_benchmark.stats import Stats
    from pytest_benchmark.utils import parse_compare_fail

    stored = []
    for side in (sides.baseline, sides.control):
        made = Stats()
        for seconds in pooled(side):
            made.update(seconds)
        stored.append(made.as_dict())
    return bool(parse_compare_fail(FAIL).fails(stored[1], stored[0]))


def pyperf(sides: Sides) -> bool:
    """Ask as ``pyperf compare_to`` does: is the change significant."""
    from pyperf._compare import CompareData, CompareResult

    sides = cut_to_equal(sides)
    baseline, control = (
        CompareData("steps", pyperf_benchmark(side)) for side in (sides.baseline, sides.control)
    )
    return bool(CompareResult(baseline, control).significant)


def pyperf_benchmark(steps: Steps) -> object:
    """Make pyperf's form of an arm: a run a process, a value a step."""
    from pyperf import Benchmark, Run

    told = {"name": "step", "unit": "second"}
    return Benchmark([Run(run, metadata=told, collect_metadata=False) for run in steps if run])


def welch(sides: Sides) -> bool:
    """Test the means of steps, as if steps were independent."""
    samples = (pooled(sides.baseline), pooled(sides.control))
    return bool(textbook.ttest_ind(*samples, equal_var=False).pvalue < ALPHA)


def mann_whitney(sides: Sides) -> bool:
    """Test the ranks of steps, as if steps were independent."""
    samples = (pooled(sides.baseline), pooled(sides.control))
    return bool(textbook.mannwhitneyu(*samples).pvalue < ALPHA)


TOOLS = (
    Tool("asv", "", "Mann-Whitney p < 0.002, medians 10 % apart", asv),
    Tool("asv", "--factor 1", "Mann-Whitney p < 0.002", asv_without_factor),
    Tool("pytest-benchmark", "", f"compare-fail {FAIL}, slower only", pytest_benchmark),
    Tool("pyperf", "", "t-test p < 0.05", pyperf),
    Tool("scipy", "Welch on steps", f"p < {ALPHA}", welch),
    Tool("scipy", "Mann-Whitney on steps", f"p < {ALPHA}", mann_whitney),
)


def judged(pair: Pair) -> str:
    """Ask our judge, at no margin, and give its verdict."""
    rule = Rule("step_time", alpha=ALPHA, family_error=0.05, margin=0.0)
    (finding,) = judge([Comparison("baseline", CONTROL, pair.differences)], rule)
    return finding.verdict


# ---- the data ----


def pooled(steps: Steps) -> list[float]:
    """Give all steps of all processes."""
    return list(chain.from_iterable(steps))


def cut_to_equal(sides: Sides) -> Sides:
    """Drop the last steps of the longer side."""
    count = min(len(pooled(sides.baseline)), len(pooled(sides.control)))
    return Sides(first(sides.baseline, count), first(sides.control, count))


def first(steps: Steps, count: int) -> Steps:
    """Give the first ``count`` steps."""
    kept = []
    for run in steps:
        kept.append(run[:count])
        count -= len(kept[-1])
    return tuple(kept)


def read_pairs(folder: str) -> list[Pair]:
    """Read the A/A pair of every duel that has whole replicates.

    Raises:
        UserError: the folder has none.
    """
    results = load_results(folder)
    pairs = []
    for session in results.sessions:
        if "duel" not in session.declared:
            continue
        declaration = Declaration.model_validate(session.declared["duel"])
        baseline = next(arm.label for arm in declaration.arms if arm.role == "baseline")
        found = whole(r for r in results.replicates if r.session == session.session)
        found = [r for r in found if {baseline, CONTROL} <= {block.arm for block in r.blocks}]
        if len(found) >= max(2, min(LEAST_REPLICATES, declaration.looks[-1])):  # not cut off
            sides = Sides(arm_steps(found, baseline), arm_steps(found, CONTROL))
            differences = step_time_differences(found, baseline, CONTROL)
            pairs.append(Pair(session.session, sides, differences))
    if not pairs:
        raise UserError(
            f"{folder} holds no A/A pair of two whole replicates or more; make some with "
            "'bertopt-bench duel' or 'bertopt-bench calibrate'."
        )
    return pairs


def arm_steps(replicates: Sequence[Replicate], arm: str) -> Steps:
    """Give an arm's seconds a step, in the order of time; a block without them is its mean step."""
    ordered = sorted(replicates, key=lambda r: min(block.clock_seconds for block in r.blocks))
    return tuple(
        tuple(
            chain.from_iterable(
                block.step_seconds or [block.wall_seconds / block.steps]
                for block in sorted(replicate.blocks, key=lambda block: block.clock_seconds)
                if block.arm == arm
            )
        )
        for replicate in ordered
    )


# ---- what is said ----


def rows(pairs: Sequence[Pair]) -> list[tuple[str, str, str, str]]:
    """Make the table: tool, rule, alarms interleaved, alarms A then B."""
    verdicts = [judged(pair) for pair in pairs]
    ours = Count(sum(v in WORDS["step_time"] for v in verdicts), len(pairs))
    refused = verdicts.count("refused")
    said = f"{ours}, {refused} refused" if refused else str(ours)
    name = f"bertopt-bench {metadata.version('bertopt-bench')}"
    rule = f"signed-rank over process pairs p < {ALPHA}"
    table = [(name, rule, said, "refuses")]
    for tool in TOOLS:
        if not tool.is_here:
            table.append((tool.title, tool.rule, f"skipped: {INSTALL}", ""))
            continue
        ways = ([pair.sides for pair in pairs], [pair.one_then_the_other() for pair in pairs])
        counts = [str(Count(sum(map(tool.alarms, way)), len(pairs))) for way in ways]
        table.append((tool.title, tool.rule, *counts))
    return table


HEADER = ("tool", "says different by", "false alarms, interleaved", "false alarms, A then B")


def written(table: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Align the columns; Markdown has bars between them."""
    lines = [HEADER, *table]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    padded = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in padded)
    bars = [f"| {' | '.join(line)} |" for line in padded]
    return "\n".join([bars[0], f"| {' | '.join('-' * width for width in widths)} |", *bars[1:]])


def described(pairs: Sequence[Pair]) -> str:
    """Say how much data there is."""
    replicates = [len(pair.sides.baseline) for pair in pairs]
    steps = [len(pooled(pair.sides.baseline)) for pair in pairs]
    unequal = sum(len(pooled(p.sides.baseline)) != len(pooled(p.sides.control)) for p in pairs)
    return (
        f"{len(pairs)} A/A pairs, a session each; {spanned(replicates)} processes and "
        f"{spanned(steps)} steps an arm; {unequal} pairs have more steps on one side. In brackets: "
        "share and its 95 % Clopper-Pearson interval."
    )


def spanned(counts: Sequence[int]) -> str:
    """Write a range, or the one number that it is."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="?", default="results/calibration")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    try:
        pairs = read_pairs(arguments.results)
    except UserError as error:
        sys.exit(str(error))
    print(f"{described(pairs)}\n\n{written(rows(pairs), markdown=arguments.markdown)}")


if __name__ == "__main__":
    main()
