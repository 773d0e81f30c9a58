"""Read what is declared of a duel: metrics, margins, error rates, replicates, budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError
from bertopt_bench.matrix.keys import Key, Place
from bertopt_bench.matrix.quantities import read_seconds, read_share
from bertopt_bench.matrix.spec import read_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

METRICS = ("step_time", "peak_memory", "loss", "time_to_target")
PRESET_LOOKS = (10, 20, 30)
PRESET_REPLICATES = (6, 8, 10, 11, 12, 16, 20, 30)
"""What a budget may choose from, by the cost of the first replicate alone."""

LEAST_REPLICATES = 6  # below that no interval exists at 95 %
KEYS = {
    "metric": None,
    "margin": None,
    "alpha": Key("float", above=0, below=0.5),
    "family_error": Key("float", above=0, below=0.5),
    "replicates": Key("int", least=1, most=1000),
    "rounds": Key("int", least=2, most=1000),
    "until": None,
    "budget": None,
    "target": Key("float", above=0),
    "alternate": Key("bool"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a duel declares besides its arms.

    ``margins`` are shares by metric; that of ``loss`` is in nats, None for a quarter of the
    baseline's standard deviation over seeds. ``until`` is the half-width asked for. ``sides`` and
    ``comparisons`` (labels) are a gate's to set; ``block_seconds`` and ``rounds`` the protocol's.
    """

    metrics: tuple[str, ...] = ("step_time",)
    margins: tuple[tuple[str, float | None], ...] = (
        ("step_time", 0.02),
        ("peak_memory", 0.01),
        ("loss", None),
        ("time_to_target", 0.02),
    )
    alpha: float = 0.01
    family_error: float = 0.05
    replicates: int = 12
    rounds: int = 6
    until: float | None = None
    budget_seconds: float | None = None
    target_loss: float | None = None
    alternate: bool = False
    sides: int = 2
    block_seconds: float = 0.5
    burst_seconds: float | None = 0.06
    most_warm_seconds: float = 60.0
    comparisons: tuple[tuple[str, str], ...] | None = None
    purpose: str = "duel"

    @property
    def looks(self) -> tuple[int, ...]:
        """Give the replicate numbers at which the data may be looked at."""
        return PRESET_LOOKS if self.until is not None else (self.replicates,)


def read_settings(
    matrix_file: Path | str | None,
    given: Mapping[str, Any],
    overrides: Settings | None = None,
) -> Settings:
    """Read ``[duel]`` of a matrix file, and what the command line gives over it; None has no file.

    Raises:
        MatrixError: an unknown key, a wrong type, a value outside its limits.
        UserError: settings that contradict each other.
    """
    line, spot = Place("command line"), Place("command line")
    table: Mapping[str, Any] = {}
    if matrix_file is not None:
        spot = Place(Path(matrix_file), "duel")
        table = spot.table(read_document(Path(matrix_file)).get("duel", {}))
    stated = {key: value for key, value in given.items() if value is not None}
    asked = _metrics(stated["metric"], line.at("metric")) if "metric" in stated else ()
    over = stated.get("margin", {})  # it wins, so the table's need not fit these metrics
    asked = tuple(name for name in asked if isinstance(over, dict) and name not in over)
    settings = _settings(overrides or Settings(), table, spot, asked)
    settings = _settings(settings, stated, line)
    if settings.until is not None and {"replicates"} & {*table, *stated}:
        raise UserError(
            "replicates and until are both given: until looks after "
            f"{', '.join(map(str, PRESET_LOOKS))} replicates. Keep one of them."
        )
    return settings


def session_seeds(seeds: Sequence[int], number: int) -> tuple[int, ...]:
    """Give the seeds of a gate's first, second, ... session: none is in two of them.

    Training repeats itself bit for bit, so that only other seeds can confirm it.
    """
    return tuple(seed + (number - 1) * (max(seeds) + 1) for seed in seeds)


def check_series(duels: int, injected: int) -> None:
    """Refuse numbers of duels to repeat that are none.

    Raises:
        UserError: a number below 0, or nothing to run at all.
    """
    for name, what, count in (
        ("--duels", "A/A duels", duels),
        ("--injected", "duels with a slowed arm", injected),
    ):
        if count < 0:
            raise UserError(f"{name} {count}: the number of {what} must be 0 or more.")
    if not duels and not injected:
        raise UserError(
            "--duels 0 and --injected 0 leave nothing to measure; one of them must be 1 or more, "
            "such as --duels 12 --injected 6."
        )


def _settings(
    settings: Settings, table: Mapping[str, Any], place: Place, asked: tuple[str, ...] = ()
) -> Settings:
    """Change settings by a table; ``asked`` are the metrics of which one margin is, if others."""
    place.known(table, KEYS)
    changes: dict[str, Any] = {}
    for key in sorted(table, key=lambda name: name != "metric"):  # a margin is of the metrics
        value, spot, rule = table[key], place.at(key), KEYS[key]
        if key == "metric":
            changes["metrics"] = _metrics(value, spot)
        elif key == "margin":
            metrics = asked or changes.get("metrics") or settings.metrics
            changes["margins"] = _margins(settings, value, spot, metrics)
        elif key == "until":
            changes["until"] = read_share(value, spot.error)
        elif key == "budget":
            changes["budget_seconds"] = read_seconds(value, spot.error)
        elif rule is not None:
            name = {"target": "target_loss"}.get(key, key)
            changes[name] = rule.read(value, spot)
    return replace(settings, **changes)


def _metrics(value: Any, place: Place) -> tuple[str, ...]:
    rule = Key("str", choices=METRICS)
    written = value if isinstance(value, list | tuple) else [value]
    if not written:
        raise place.error(f"is empty; name one or more of {', '.join(METRICS)}.")
    return tuple(dict.fromkeys(rule.read(item, place) for item in written))


def _margins(
    settings: Settings, value: Any, place: Place, metrics: tuple[str, ...]
) -> tuple[tuple[str, float | None], ...]:
    """Read one margin for every one of these metrics, or a table by metric; a loss' is in nats."""
    margins = dict(settings.margins)
    if isinstance(value, dict):
        place.known(value, METRICS, "metric")
        margins |= {name: _margin(name, one, place.at(name)) for name, one in value.items()}
    else:
        margins |= {name: _margin(name, value, place) for name in metrics}
    return tuple(margins.items())


def _margin(metric: str, value: Any, place: Place) -> float:
    if metric != "loss":
        return read_share(value, place.error)
    number = _number(value)
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not 0 <= number < math.inf:
        raise place.error(
            f"is {number!r}; the margin of a loss is in nats: a number of at least 0, as 0.02. "
            "In a matrix, margin = {step_time = '2%', loss = 0.02} gives each metric its own."
        )
    return float(number)


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
