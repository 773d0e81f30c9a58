"""Ours beside transformers + accelerate and optimum-benchmark: what is reckoned of their words."""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peer_environments
import pytest
import torch
import training_arms
import training_peers
import training_table as table

from bertopt_bench.errors import UserError

REPORT = json.loads(Path(__file__).with_name("optimum_benchmark_report.json").read_text())
"""A report of optimum-benchmark 0.6.0: BERT tiny, 5 steps of warm-up and 4 timed, batches of 8."""


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_orders_are_balanced(count: int) -> None:
    """Oracle: Williams 1949: each in each place, and behind each other one, equally often."""
    orders = table.balanced_orders(count)
    places = Counter((place, one) for order in orders for place, one in enumerate(order))
    followed = Counter(pair for order in orders for pair in pairwise(order))

    assert all(sorted(order) == list(range(count)) for order in orders)
    assert len(places) == count * count
    assert len(followed) == count * (count - 1)
    assert len(set(places.values())) == len(set(followed.values())) == 1


@pytest.mark.parametrize(("rounds", "take"), [(7, 8), (0, 4), (-1, 4), (9, 12)])
def test_rounds_that_are_not_balanced_are_refused(rounds: int, take: int) -> None:
    """Oracle: by hand, multiples of 4 for 4 arms; the text names the next one."""
    with pytest.raises(UserError, match=f"Take {take}"):
        table.check_rounds(rounds, 4)
    table.check_rounds(take, 4)


def test_its_own_throughput_is_too_high_by_the_number_of_steps() -> None:
    """Oracle: its report's own raw values, 4 steps of 8 sequences each."""
    seconds = REPORT["train"]["latency"]["values"]
    own = table.own_figures(REPORT)

    assert own.steps == len(seconds) == 4
    assert own.throughput == pytest.approx(4 * 8 / (sum(seconds) / 4))
    assert own.corrected == pytest.approx(4 * 8 / sum(seconds))
    assert own.throughput / own.corrected == pytest.approx(4)


def test_its_memory_is_read_in_bytes() -> None:
    """Oracle: psutil counts whole pages of 4,096 bytes; its MB are millions."""
    found = table.own_memory_bytes(REPORT)

    assert found == 561_790_976
    assert found % 4096 == 0


def edited(path: str, value: Any) -> dict[str, Any]:
    report = deepcopy(REPORT)
    *inner, last = path.split(".")
    place = report
    for key in inner:
        place = place[key]
    place[last] = value
    return report


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({}, "train"),
        (edited("train.latency", None), "not one of 0.6.0"),
        (edited("train.latency.unit", "ms"), "ms"),
        (edited("train.throughput.unit", "tokens/s"), "tokens/s"),
    ],
)
def test_a_report_of_another_kind_is_refused(report: dict[str, Any], said: str) -> None:
    """Oracle: the text names what is not as in 0.6.0."""
    with pytest.raises(UserError, match=said):
        table.own_figures(report)


def told(milliseconds: float, **given: Any) -> dict[str, Any]:
    """Give what a process measured, each step so long."""
    return {
        "step_seconds": [milliseconds / 1e3] * 3,
        "parameters": 1000,
        "peak_resident_bytes": 300 * 2**20,
        "peak_memory_bytes": 25 * 2**20,
        "threads": 2,
        "versions": {"torch": "2.13.0+cpu", "transformers": None},
        "first_loss": 9.0,
        **given,
    }


def optimum(milliseconds: float, **given: Any) -> dict[str, Any]:
    unmetered = {"first_loss": None, "peak_memory_bytes": None, "report": REPORT}
    return told(milliseconds, **{**unmetered, **given})


def test_ratios_are_taken_round_by_round() -> None:
    """Oracle: by hand: rounds drift, twice as slow in each of them is 2 exactly; n = 4 has none."""
    rounds = [{"ours": told(10 * n), "accelerate": told(20 * n)} for n in range(1, 9)]

    assert table.ratio_to_ours(rounds, "accelerate") == "2.00 [2.00, 2.00]"
    assert "n = 4: too few" in table.ratio_to_ours(rounds[:4], "accelerate")


def test_the_table_shows_its_throughput_and_the_corrected_one() -> None:
    """Oracle: by hand: 8 sequences in 10 ms are 800 a second; the report's 133.0 by 4 is 33.2."""
    fed = {
        "shape": [72, 64], "distinct_tokens": 2718, "label_share": 1.0, "attended_share": 1.0,
        "columns": ["input_ids", "labels"],
    }  # fmt: skip
    one = {"ours": told(10), "accelerate": told(20), "optimum": optimum(40, fed=fed)}
    text = table.render([one] * 8, 8, {"optimum": 2**29})
    rows = {line.split(" | ")[0][2:]: line for line in text.splitlines() if line.startswith("| ")}

    assert "| 10.0 (10.0 to 10.0) | 800.0 (800.0 to 800.0) | 1 | 25.0" in rows["ours"]
    assert "2.00 [2.00, 2.00]" in rows["transformers + accelerate"]
    assert rows["optimum-benchmark"].endswith(
        "| 4.00 [4.00, 4.00] | not told | 300 (300 to 300) | 512 | 133.0 (133.0 to 133.0) | "
        "33.2 (33.2 to 33.2) |"
    )
    assert "Fed 72 by 64 tokens, 2,718 distinct ones; 100% of the slots with a label" in text
    assert "divides the sequences of all its steps by the mean time of one" in text
    assert "n = 8 rounds" in text


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (told(1, threads=1), "threads"),
        (told(1, parameters=999), "999"),
        (told(1, versions={"torch": "2.12.0"}), "2.12.0"),
        (told(1, first_loss=9.1), "first weights"),
    ],
)
def test_arms_that_did_something_else_are_refused(other: dict[str, Any], said: str) -> None:
    """Oracle: one fact changed at a time; another build of the same torch is the same."""
    table.check_alike([{"ours": told(1), "accelerate": told(1, first_loss=9.00005)}], 2)
    same = told(1, versions={"torch": "2.13.0", "transformers": "5"})
    table.check_alike([{"ours": told(1), "accelerate": same, "optimum": optimum(1)}], 2)
    with pytest.raises(UserError, match=said):
        table.check_alike([{"ours": told(1), "accelerate": other}], 2)


def test_a_batch_as_transformers_takes_it() -> None:
    """Oracle: by hand: two rows of four slots, slots 1 and 6 masked, an unused place at slot 0."""
    batch = SimpleNamespace(
        input_ids=torch.tensor([[1, 4, 7, 2], [1, 8, 4, 2]], dtype=torch.int32),
        attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)[:, None, None],
        masked_index=torch.tensor([1, 0, 6, 4], dtype=torch.int32),
        labels=torch.tensor([30, -100, 31, -100]),
    )
    found = training_arms.as_transformers_takes_it(batch)

    assert found["labels"].tolist() == [[-100, 30, -100, -100], [-100, -100, 31, -100]]
    assert found["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert found["input_ids"].tolist() == batch.input_ids.tolist()


def test_vectors_do_not_decay() -> None:
    """Oracle: a linear layer's weight and bias, by hand."""
    model = torch.nn.Linear(3, 2)
    matrices, vectors = training_arms.decayed(model, {"optimizer": {"weight_decay": 0.01}})

    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.01, 0.0)
    assert matrices["params"] == [model.weight]
    assert vectors["params"] == [model.bias]


def test_an_environment_is_whole_only_after_pip_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: an interpreter alone, as an interrupted pip leaves it, is not enough."""
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", str(tmp_path))
    one = peer_environments.ENVIRONMENTS["optimum-benchmark"]
    other = peer_environments.Environment(one.name, ("optimum-benchmark==0.5.0",), one.constrained)
    one.python.parent.mkdir(parents=True)
    one.python.touch()

    assert not one.is_whole()
    assert one.folder != other.folder
    assert f"torch=={torch.__version__.partition('+')[0]}" in one.command()
    (one.folder / "whole.json").touch()
    assert one.is_whole()


def test_ours_is_always_there_and_first() -> None:
    """Oracle: every ratio is to ours."""
    assert training_peers.read_arguments(["--arms", "optimum", "--rounds", "2"]).arms == [
        "ours",
        "optimum",
    ]


@pytest.mark.parametrize("words", [["--steps", "0"], ["--threads", "-1"], ["--arms", "ours"]])
def test_what_cannot_be_compared_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: exit code 2, and the option is named."""
    with pytest.raises(SystemExit) as ended:
        training_peers.read_arguments(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_no_place_of_this_machine_is_written() -> None:
    """Oracle: by hand."""
    assert table.without_places({"a": "/here/x", "b": [1, "fp32"]}) == {
        "a": "(a path)",
        "b": [1, "fp32"],
    }
