"""Layouts, as a user runs them: same batches, same losses, records that verify."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.slow

LAYOUTS = "workload.layout=['padded','unpadded','packed']"


@pytest.fixture(scope="module")
def rows(command: Command, project: Path) -> dict[str, dict[str, Any]]:
    done = command("run", "small.toml", "--set", LAYOUTS, "--set", "axes.optimizer='sgd'")
    assert done.returncode == 0, done.stderr
    lines = (project / "results" / "small" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {record["cell"]["workload"].get("layout", "padded"): record for record in records}


def test_layouts_train_alike_on_the_same_batches(rows: dict[str, dict[str, Any]]) -> None:
    """Oracle: the padded record: hashes, tokens, losses and evaluations."""
    padded = rows["padded"]
    assert set(rows) == {"padded", "unpadded", "packed"}
    for row in rows.values():
        assert row["status"] == "ok"
        for name in ("batches_sha256", "evaluation_sha256", "initial_weights_sha256"):
            assert row[name] == padded[name]
        assert row["real_tokens"] == padded["real_tokens"]
        assert row["masked_tokens"] == padded["masked_tokens"]
        assert row["losses"] == pytest.approx(padded["losses"], rel=1e-5)
        assert [seen["loss"] for seen in row["evaluations"]] == pytest.approx(
            [seen["loss"] for seen in padded["evaluations"]], rel=1e-5
        )


def test_slots_and_real_tokens_are_both_recorded(
    rows: dict[str, dict[str, Any]], command: Command
) -> None:
    """Oracle: the definitions: unpadded slots are the real tokens; all layouts verify."""
    unpadded, packed = rows["unpadded"]["ragged"], rows["packed"]["ragged"]

    assert rows["padded"]["ragged"] is None
    assert unpadded["slot_tokens"] == rows["unpadded"]["real_tokens"]
    assert unpadded["attended_pairs"] == packed["attended_pairs"]
    assert all(slots % 16 == 0 for slots in packed["slot_tokens"])
    assert rows["unpadded"]["flops_per_step"] <= rows["packed"]["flops_per_step"]
    assert rows["packed"]["flops_per_step"] <= rows["padded"]["flops_per_step"]
    verified = command("verify", "results/small")
    assert verified.returncode == 0, verified.stdout
