"""A policy file is read whole and checked before anything runs."""

from __future__ import annotations

import math
import re
from datetime import date
from typing import TYPE_CHECKING

import pytest
from scripted_duels import CELLS, MATRIX

from bertopt_bench.errors import MatrixError, UserError
from bertopt_bench.gate.policy import in_unit, read_policy

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.gate.policy import Policy

WHOLE = f"""
matrix = "gated.toml"
metric = ["step_time", "peak_memory"]
margin = "3%"
cells = ["{CELLS[0]}", "{CELLS[1]}"]
gate_runs_per_month = 60
false_alarms_per_year = 2
replicates = 14
budget = "20m"
base = "origin/main"
differs = ["torch"]
[[accepted]]
cell = "precision=bf16 optimizer=sgd"
metric = "step_time"
bound = "8%"
reason = "a  better\\nloss"
expiry = 2027-01-31
"""


def read(folder: Path, text: str) -> Policy:
    (folder / "gated.toml").write_text(MATRIX)
    file = folder / "policy.toml"
    file.write_text(text)
    return read_policy(file)


def changed(key: str, value: str) -> str:
    """Replace a top-level key's line of the whole policy."""
    return re.sub(rf"(?m)^{key} = .*$", lambda _: f"{key} = {value}", WHOLE, count=1)


def test_a_whole_policy_is_read(tmp_path: Path) -> None:
    """Oracle: the text above."""
    policy = read(tmp_path, WHOLE)

    assert policy.name == "policy"
    assert policy.matrix == tmp_path / "gated.toml"
    assert policy.metrics == ("step_time", "peak_memory")
    assert policy.margins == {"step_time": 0.03, "peak_memory": 0.03}
    assert [cell.text for cell in policy.cells] == list(CELLS)
    assert policy.budget_seconds == 1200
    assert (policy.replicates, policy.seeds, policy.base) == (14, 3, "origin/main")
    assert policy.differs == ("torch",)
    [accepted] = policy.accepted
    assert (accepted.cell, accepted.bound, accepted.reason) == (CELLS[1], 0.08, "a better loss")


def test_what_is_left_out_has_the_protocols_defaults(tmp_path: Path) -> None:
    """Oracle: the protocol: 12 replicates, a margin of 2 % of times and 1 % of bytes."""
    lines = WHOLE.partition("[[accepted]]")[0].split("\n")
    kept = [
        line for line in lines if line.split(" ")[0] in {"matrix", "cells", "gate_runs_per_month"}
    ]
    policy = read(tmp_path, "\n".join(kept))

    assert policy.metrics == ("step_time",)
    assert policy.margins == {"step_time": 0.02}
    assert (policy.replicates, policy.false_alarms_per_year) == (12, 1.0)
    assert policy.budget_seconds is policy.base is None


def test_a_loss_has_its_margin_in_nats(tmp_path: Path) -> None:
    """Oracle: hand-written values; without one it is left to the spread over seeds."""
    text = changed("metric", '["step_time", "loss"]').replace(
        'metric = "step_time"', 'metric = "loss"'
    )
    text = text.replace('bound = "8%"', "bound = 0.05")
    policy = read(
        tmp_path, text.replace('margin = "3%"', 'margin = { step_time = "2%", loss = 0.01 }')
    )
    spread = read(tmp_path, text.replace('margin = "3%"', 'margin = { step_time = "2%" }'))

    assert policy.margins == {"step_time": 0.02, "loss": 0.01}
    assert spread.margins == {"step_time": 0.02, "loss": None}
    assert policy.margins_of(CELLS[1], date(2026, 1, 1)) == {"step_time": 0.02, "loss": 0.05}
    assert in_unit("loss", 0.05) == 0.05
    assert in_unit("step_time", 0.05) == pytest.approx(math.log(1.05))


@pytest.mark.parametrize(
    ("day", "margin", "expired"),
    [(date(2027, 1, 30), 0.08, 0), (date(2027, 1, 31), 0.08, 0), (date(2027, 2, 1), 0.03, 1)],
)
def test_an_acceptance_raises_its_margin_to_the_end_of_its_last_day(
    tmp_path: Path, day: date, margin: float, expired: int
) -> None:
    """Oracle: the calendar."""
    policy = read(tmp_path, WHOLE)

    assert policy.margins_of(CELLS[1], day) == {"step_time": margin, "peak_memory": 0.03}
    assert policy.margins_of(CELLS[0], day) == {"step_time": 0.03, "peak_memory": 0.03}
    assert len(policy.expired(day)) == expired


MISTAKES = [
    (changed("matrix", '"gatd.toml"'), "matrix", "there is no file"),
    (changed("metric", '"step_tme"'), "metric", "Did you mean 'step_time'?"),
    (changed("metric", '["loss", "loss"]'), "metric[1]", "repeats"),
    (changed("metric", "[]"), "metric", "empty list"),
    (changed("metric", '"time_to_target"'), "metric", "one of step_time, peak_memory, loss"),
    (changed("metric", '["step_time", "loss"]'), "margin", "in nats"),
    (changed("margin", '"200%"'), "margin", "below 100 %"),
    (changed("margin", '{ step_time = "2%" }'), "margin.peak_memory", "is missing"),
    (changed("margin", '{ steptime = "2%" }'), "margin.steptime", "Did you mean 'step_time'?"),
    (changed("cells", "[]"), "cells", "empty list"),
    (changed("cells", '["optimizer=adamw"]'), "cells[0]", "stands for 2 cells"),
    (changed("cells", '["optimizer=adamx precision=fp32"]'), "cells[0]", "Did you mean 'adam'"),
    (changed("cells", '["opimizer=adamw"]'), "cells[0]", "Did you mean 'optimizer'?"),
    (changed("cells", '["  "]'), "cells[0]", "must be overrides"),
    (changed("cells", "[3]"), "cells[0]", "must be overrides"),
    (
        changed("cells", f'["{CELLS[0]}", "precision=fp32 optimizer=adamw"]'),
        "cells[1]",
        "keep one",
    ),
    (changed("gate_runs_per_month", "0"), "gate_runs_per_month", "of at least 1"),
    (changed("false_alarms_per_year", "0"), "false_alarms_per_year", "above 0"),
    (changed("false_alarms_per_year", "nan"), "false_alarms_per_year", "finite"),
    (changed("replicates", "5"), "replicates", "of at least 6"),
    (changed("budget", '"20 parsecs"'), "budget", "must be a duration"),
    (changed("base", '" "'), "base", "is empty"),
    (changed("differs", "[1]"), "differs[0]", "a text"),
    ("surprise = 1\n" + WHOLE, "surprise", "no such key"),
    (WHOLE.replace('matrix = "gated.toml"\n', ""), "matrix", "is missing"),
    (WHOLE.replace('optimizer=sgd"\nmetric', 'optimizer=sgdd"\nmetric'), "accepted[0].cell", "Did"),
    (WHOLE.replace('"8%"', '"3%"'), "accepted[0].bound", "nothing needs accepting"),
    (WHOLE.replace("2027-01-31", '"2027-01-31"'), "accepted[0].expiry", "without quotes"),
    (WHOLE.replace("2027-01-31", "2027-01-31T00:00:00"), "accepted[0].expiry", "a day"),
    (WHOLE.replace("a  better\\nloss", " "), "accepted[0].reason", "is empty"),
    (WHOLE.replace('bound = "8%"\n', ""), "accepted[0].bound", "is missing"),
    (WHOLE + 'unit = "s"\n', "accepted[0].unit", "no such key"),
    (WHOLE.replace('metric = "step_time"', 'metric = "loss"'), "accepted[0].metric", "one of"),
    (WHOLE + WHOLE[WHOLE.index("[[accepted]]") :], "accepted[1]", "a second time"),
    ("matrix = ", "", "is no TOML"),
]


@pytest.mark.parametrize(("text", "key", "words"), MISTAKES)
def test_every_mistake_names_its_key_and_what_to_do(
    tmp_path: Path, text: str, key: str, words: str
) -> None:
    """Oracle: the key path and the sentence, written by hand."""
    with pytest.raises(MatrixError) as caught:
        read(tmp_path, text)

    assert caught.value.key == key
    assert words in str(caught.value)


def test_a_policy_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    """Oracle: the file beside it."""
    read(tmp_path, WHOLE)

    with pytest.raises(UserError, match=r"Did you mean '.*policy\.toml'"):
        read_policy(tmp_path / "polcy.toml")
