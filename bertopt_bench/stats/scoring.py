"""Score training curves in one go: everything the page and `score` show, as frames.

The same curves give the same bytes: rows have one order, draws are seeded by content, and numbers
are kept to 12 significant digits, since mathematical libraries differ in the last ones.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.stats import speedups
from bertopt_bench.stats.curves import AXIS, KEYS, UNFINISHED, Aim, checked, runs_of
from bertopt_bench.stats.fronts import fronts
from bertopt_bench.stats.ranking import ranks
from bertopt_bench.stats.reaching import (
    INTERPOLATION,
    baseline_targets,
    declared_targets,
    reach,
    summarise,
)
from bertopt_bench.stats.resampling import DRAWS
from bertopt_bench.stats.scores import TAU_MAX, check_tau, profiles_of, scores_of
from bertopt_bench.stats.sensitivity import sensitivity
from bertopt_bench.stats.variance import variance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pandas import DataFrame

    from bertopt_bench.stats.reaching import Target
    from bertopt_bench.stats.variance import Variance

DIGITS = 12
TAIL_DIGITS = 6  # a small probability of an F has many times the relative error of that F
TABLES = ("runs", "finals", "targets", "reached", "to_target", "speed_ups", "scores", "profile",
          "ranks", "fronts", "sensitivity", "variance")  # fmt: skip
USUAL_BASELINES = ("adamw",)


@dataclass(frozen=True)
class Asked:
    """What is asked of curves; without targets the baseline's own results give them.

    ``targets`` are written as ``4.5`` or ``WORKLOAD=4.5``; ``margin`` is in the metric's unit;
    ``remarks`` stand before the notes.
    """

    aim: Aim = field(default_factory=Aim)
    baseline: str | None = None
    targets: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    tau_max: float = TAU_MAX
    margin: float | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """What curves came to. Each frame has n and spread beside its numbers; ``notes`` say limits.

    ``runs`` has a row a run, ``finals`` the metric at the end against the baseline, ``reached`` a
    row a run and target, ``to_target`` a row a submission and target, ``speed_ups`` those against
    the baseline, ``scores`` and ``profile`` AlgoPerf's over the workloads.
    """

    asked: Asked
    baseline: str
    notes: tuple[str, ...]
    runs: DataFrame
    finals: DataFrame
    targets: DataFrame
    reached: DataFrame
    to_target: DataFrame
    speed_ups: DataFrame
    scores: DataFrame
    profile: DataFrame
    ranks: DataFrame
    fronts: DataFrame
    sensitivity: DataFrame
    variance: DataFrame

    @property
    def tables(self) -> dict[str, DataFrame]:
        """Give the frames by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in TABLES}


def score(frame: DataFrame, asked: Asked | None = None) -> Scored:
    """Score a plain frame of curves (``stats.curves``).

    Raises:
        UserError: a frame that is none, an unknown baseline or workload, a target that is none.
    """
    asked = asked or Asked()
    check_tau(asked.tau_max)
    curves = _narrowed(checked(frame), asked.workloads)
    runs = runs_of(curves, asked.aim)
    baseline = _baseline(runs, asked.baseline)
    targets = declared_targets(curves, asked.targets) or baseline_targets(
        curves, runs, baseline, asked.aim
    )
    reached = reach(curves, targets, asked.aim)
    varied = _variances(runs)
    return Scored(
        asked=asked,
        baseline=baseline,
        notes=tuple(_notes(curves, runs, targets, asked, varied)),
        runs=_kept(runs),
        finals=_kept(speedups.final_findings(runs, baseline, asked.margin)),
        targets=_targets(targets),
        reached=_kept(reached),
        to_target=_kept(summarise(reached)),
        speed_ups=_kept(speedups.speed_ups(reached, runs, baseline)),
        scores=_kept(_by_target(reached, asked.tau_max, scores_of)),
        profile=_kept(_by_target(reached, asked.tau_max, profiles_of)),
        ranks=_kept(ranks(runs, asked.aim)),
        fronts=_kept(fronts(runs, asked.aim)),
        sensitivity=_kept(_sensitivities(runs, asked.aim)),
        variance=_kept(_variance_table(varied), p=TAIL_DIGITS),
    )


def _narrowed(curves: DataFrame, workloads: Sequence[str]) -> DataFrame:
    known = sorted(set(curves["workload"]))
    for name in workloads:
        if name not in known:
            raise UserError(
                f"no workload '{name}'. Workloads: {', '.join(known)}.{nearest(name, known)}"
            )
    return curves[curves["workload"].isin(list(workloads))] if workloads else curves


def _baseline(runs: DataFrame, asked: str | None) -> str:
    """Take the submission asked for, else the usual one, else the first.

    Of several, one that was tuned is meant, or else one whose other choices are ``none``.
    """
    known = sorted(set(runs["submission"]))
    if asked is None:
        usual = [s for u in USUAL_BASELINES for s in _begun_by(u, known)] or known
        tuned = [s for s in usual if s in _tuned(runs)]
        plain = [s for s in usual if "none" in s.split(" · ")]
        return (tuned or plain or usual)[0]
    found = named_submission(runs, asked)
    if found is None:
        raise UserError(
            f"no submission '{asked}' to be the baseline. Submissions: {', '.join(known)}."
            f"{nearest(asked, known)}"
        )
    return found


def named_submission(runs: DataFrame, asked: str) -> str | None:
    """Find a submission by its name, or by the first word of it where that can be but one.

    Of several that begin so, one that was tuned is meant, where it is the only one.
    """
    known = sorted(set(runs["submission"]))
    begun = _begun_by(asked, known)
    for found in (
        [asked] if asked in known else [],
        begun,
        [s for s in begun if s in _tuned(runs)],
    ):
        if len(found) == 1:
            return found[0]
    return None


def _begun_by(word: str, known: Sequence[str]) -> list[str]:
    return [name for name in known if name == word or name.startswith(f"{word} ")]


def _tuned(runs: DataFrame) -> set[str]:
    if "tuned" not in runs.columns:
        return set()
    return set(runs.loc[runs["tuned"].astype(bool), "submission"])


def _by_target(
    reached: DataFrame, tau_max: float, make: Callable[[DataFrame, str, float], DataFrame]
) -> DataFrame:
    """Make a table of each target, in steps and in seconds."""
    import pandas as pd

    made = [
        make(runs, by, tau_max).assign(target=target)
        for target, runs in reached.groupby("target", sort=True)
        for by in ("steps", "seconds")
        if not runs[by].isna().any()
    ]
    return pd.concat(made, ignore_index=True) if made else pd.DataFrame()


def _targets(targets: Sequence[Target]) -> DataFrame:
    import pandas as pd

    rows = [
        {"workload": t.workload, "target": t.name, "value": t.value, "declared": t.is_declared}
        for t in targets
    ]
    return _kept(pd.DataFrame(rows))


def _sensitivities(runs: DataFrame, aim: Aim) -> DataFrame:
    """Give a curve over learning rates for all that vary in nothing else: see ``rate_families``."""
    import pandas as pd

    made = [
        sensitivity(group, higher_is_better=aim.higher_is_better).assign(workload=workload)
        for workload, group in rate_families(runs)
    ]
    return pd.concat(made, ignore_index=True) if made else pd.DataFrame()


def rate_families(runs: DataFrame) -> Iterator[tuple[str, DataFrame]]:
    """Go through the workloads, runs renamed by all but their rate, those with one rate left out.

    What is left of a submission's name is its words but ``lr=...``.
    """
    if "lr" not in runs.columns:
        return
    rated = runs.dropna(subset=["lr"]).rename(columns={"final": "metric"})
    rated = rated.assign(submission=rated["submission"].map(_without_rate))
    for workload, group in rated.groupby("workload", sort=True):
        counts = group.groupby("submission")["lr"].nunique()
        kept = group[group["submission"].isin(list(counts[counts > 1].index))]
        if len(kept):
            yield str(workload), kept


def _without_rate(submission: str) -> str:
    return re.sub(r" ?\blr=[^ ]+", "", submission).strip() or submission


def _variances(runs: DataFrame) -> list[tuple[str, Variance]]:
    """Analyse each held-out text and step budget on its own: other losses do not compare."""
    factors = [str(name) for name in runs.columns if str(name).startswith(AXIS)]
    if not factors or runs["seed"].isna().any():
        return []
    by = "text" if "text" in runs.columns else "workload"
    found = []
    for text, group in runs.groupby(by, sort=True):
        one = variance(group, factors)
        if one is not None:
            found.append((str(text), one))
    return found


def _variance_table(found: Sequence[tuple[str, Variance]]) -> DataFrame:
    import pandas as pd

    made = [
        one.table.assign(term=one.table["term"].str.replace(AXIS, "", regex=False), text=text)
        for text, one in found
    ]
    return pd.concat(made, ignore_index=True) if made else pd.DataFrame()


def _notes(
    curves: DataFrame,
    runs: DataFrame,
    targets: Sequence[Target],
    asked: Asked,
    varied: Sequence[tuple[str, Variance]],
) -> Iterator[str]:
    """Say what limits the numbers."""
    yield from asked.remarks
    if not all(target.is_declared for target in targets):
        yield (
            "the targets come from the baseline's own results here: exploratory. Fix them before "
            "the runs"
        )
    missing = sorted(set(runs["workload"]) - {target.workload for target in targets})
    if missing:
        yield f"no target, and so no time to one, on {', '.join(missing)}"
    if runs["seed"].isna().any():
        yield "runs name no seed (column 'seed'): nothing pairs, and there is no verdict"
    ends = runs["status"].value_counts()
    if "diverged" in ends:
        yield f"{ends['diverged']} of {len(runs)} runs diverged, and count as never there"
    if UNFINISHED in ends:
        lost = ", and count as never there" if "status" in curves.columns else ""
        yield f"{ends[UNFINISHED]} of {len(runs)} runs unfinished: they have no end{lost}"
    gap = _widest_gap(curves)
    yield (
        f"between evaluations, at most {gap:g} steps apart, the {asked.aim.name} is taken as linear"
    )
    for text, one in varied:
        if one.left_out:
            yield (
                f"left out of the analysis of variance ({text}), which needs a finite value for "
                f"every seed: {'; '.join(one.left_out)}"
            )
        if one.confounded:
            yield (
                f"in the analysis of variance ({text}) {', '.join(one.confounded)} cannot be told "
                "apart: no level of one stands with several of the others"
            )


def _widest_gap(curves: DataFrame) -> float:
    gaps = curves.groupby(list(KEYS), sort=False)["step"].diff()
    return float(gaps.max()) if gaps.notna().any() else 0.0


def _kept(frame: DataFrame, **fewer: int) -> DataFrame:
    """Keep 12 significant digits of every number; of some columns ``fewer``."""
    made = frame.copy()
    for name in made.columns:
        if made[name].dtype.kind == "f":
            made[name] = [_rounded(value, fewer.get(name, DIGITS)) for value in made[name]]
    return made


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value


def as_json(scored: Scored) -> dict[str, Any]:
    """Give everything as plain values; NaN is null, infinities are words."""
    return {
        "metric": {
            "name": scored.asked.aim.name,
            "unit": scored.asked.aim.unit,
            "better": "higher" if scored.asked.aim.higher_is_better else "lower",
        },
        "baseline": scored.baseline,
        "tau_max": scored.asked.tau_max,
        "interpolation": INTERPOLATION,
        "bootstrap_draws": DRAWS,
        "notes": list(scored.notes),
        **{name: _records(frame) for name, frame in scored.tables.items()},
    }


def _records(frame: DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): _json_value(value) for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _json_value(value: Any) -> Any:
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return None if math.isnan(plain) else str(plain)
    return plain
