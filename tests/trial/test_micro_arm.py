"""An arm of a duel of operations: what it answers, and what it refuses."""

from __future__ import annotations

from functools import partial
from time import monotonic_ns
from typing import Any

import pytest

from bertopt_bench.dispatch.duel import PROTOCOL, WARM_FIELDS
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.micro import read_micro_arms
from bertopt_bench.results.duels import ArmRun, Block
from bertopt_bench.trial.micro import arm as arm_module
from bertopt_bench.trial.micro.arm import run_micro_arm
from bertopt_bench.trial.micro.timing import Batch
from bertopt_bench.trial.worker import run_task

WARM = {"do": "warm", "trace": True, "window_seconds": 0.001, "most_seconds": 0.05}
SHAPES = ["batch_size=2", "seq_len=16", "heads=2", "head_size=8"]


def request_of(operation: str, arm: str, shapes: list[str], **more: Any) -> dict[str, Any]:
    _, arms = read_micro_arms(operation, arms=[arm], overrides=shapes)
    return {
        "cell": arms[0].cell.content, "seed": 1, "injected_share": 0.0, "modules": [],
        "overlay": [], "threads": 1, "dispatched_ns": monotonic_ns(), **more,
    }  # fmt: skip


def obey(request: dict[str, Any], *commands: dict[str, Any]) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    orders = iter([*commands, None])
    run_micro_arm(request, said.append, [0], partial(next, orders))
    return said


def test_an_arm_answers_each_command_with_what_the_engine_stores() -> None:
    """Oracle: the stored models take the answers as they are."""
    block = {"do": "block", "steps": 1000, "rewarm": 1}
    said = obey(request_of("attention", "flash", SHAPES), WARM, block, block)

    assert [one["kind"] for one in said] == ["ready", "warm", "block", "block"]
    assert said[0]["protocol"] == PROTOCOL
    warm = said[1]
    kept = {key: warm[key] for key in WARM_FIELDS if key in warm}
    run = ArmRun(arm="a", status="ok", warm_windows=warm["windows"], **kept)
    assert any("flash" in name for name in run.kernels_ran)
    assert run.operation["operation"] == "attention"
    assert run.operation["error"] <= run.operation["allowed_error"]
    for told in said[2:]:
        fields = ("steps", "wall_seconds", "injected_seconds", "step_seconds", "disturbance")
        stored = Block(
            round=0, position=0, arm="a", clock_seconds=told["began_ns"] / 1e9,
            **{key: told[key] for key in fields},
        )  # fmt: skip
        assert stored.steps == 1000
        assert told["finite"] is True


def test_seconds_are_those_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: scripted batches of 2 ms a call: windows, steps and wall time all tell it."""
    request = request_of("gelu", "default", ["hidden_size=8"])
    monkeypatch.setattr(
        arm_module.Bench, "batch",
        lambda _, calls=None: Batch(calls or 4, 2e-3 * (calls or 4), 0.0),
    )  # fmt: skip
    warm, block = obey(request, WARM, {"do": "block", "steps": 10, "rewarm": 1})[1:]

    assert {round(x, 9) for window in warm["windows"] for x in window} == {2e-3}
    assert block["steps"] == 10
    assert block["wall_seconds"] == pytest.approx(20e-3)
    assert [round(x, 9) for x in block["step_seconds"]] == [2e-3] * len(block["step_seconds"])


def test_a_slowed_arm_waits_half_of_its_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: half of each batch's time is asked to pass, and told apart."""
    waited: list[float] = []
    monkeypatch.setattr(arm_module, "_delay", lambda seconds: waited.append(seconds) or seconds)
    request = request_of("gelu", "default", ["hidden_size=8"], injected_share=0.5)
    monkeypatch.setattr(
        arm_module.Bench, "batch", lambda _, calls=None: Batch(calls or 4, 1e-4, 0.0)
    )
    block = obey(request, WARM, {"do": "block", "steps": 8, "rewarm": 1})[2]
    own = block["wall_seconds"] - block["injected_seconds"]

    timed = sum(waited[-len(block["step_seconds"]) :]) if block["step_seconds"] else 0.0
    assert waited
    assert timed == pytest.approx(block["injected_seconds"])
    assert block["injected_seconds"] == pytest.approx(0.5 * own)


def test_equal_seeds_give_equal_inputs_and_others_do_not() -> None:
    """Oracle: the hash that the statistics compare arms by."""
    hashes = [
        obey(request_of("gelu", name, ["hidden_size=8"], seed=seed), WARM)[1][
            "initial_weights_sha256"
        ]
        for name, seed in (("default", 1), ("composed", 1), ("default", 2))
    ]

    assert hashes[0] == hashes[1] != hashes[2]


def test_what_only_the_host_bounds_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a device that is no processor, whose batch took the host longer."""
    request = request_of("gelu", "default", ["hidden_size=8"])
    monkeypatch.setattr(
        arm_module.Bench, "batch", lambda _, calls=None: Batch(calls or 4, 1e-5, 3e-5)
    )
    monkeypatch.setattr(arm_module._Arm, "_on_host", property(lambda _: False))
    with pytest.raises(UserError, match="host-bound"):
        obey(request, WARM)


def test_a_wrong_kernel_ends_the_arm_with_its_reason(tmp_path: Any, monkeypatch: Any) -> None:
    """Oracle: the worker's failure message, as any arm's."""
    (tmp_path / "wrong_micro.py").write_text("def gelu(values):\n    return 2 * values\n")
    monkeypatch.syspath_prepend(tmp_path)
    said: list[dict[str, Any]] = []
    request = request_of("gelu", "wrong_micro:gelu", ["hidden_size=8"])
    run_task("micro_arm", {**request, "threads": 0}, said.append, [0], lambda: None)

    assert said[-1]["kind"] == "failure"
    assert said[-1]["status"] == "failed"
    assert "is wrong" in said[-1]["reason"]
    assert "Nothing was timed" in said[-1]["reason"]
