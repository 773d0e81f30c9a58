"""The command `challenge`: a newcomer against a protocol's records, on real text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bertopt_bench.matrix.protocols import LOCK, protocol_hash
from bertopt_bench.matrix.spec import read_document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

PROTOCOL = """
name = "mini-v1"
seeds = [1, 2, 3, 4]
[workload]
model = {hidden = 16, layers = 1, heads = 2, intermediate = 32}
vocabulary_size = 512
seq_len = 16
batch_size = 4
steps = 4
evaluate_every = 2
evaluation_batches = 1
[timing]
burn_in_steps = 2
phase_steps = 1
timeout_seconds = 120.0
[protocol]
version = 1
baseline = "AdamW"
targets_at = [1.0, 0.5]
reproduce_seed = 1
text_sha256 = ""
[protocol.newcomer]
space.optimizer.lr = { below = 1, above = 0 }
[tuning]
points = 2
extensions = 0
seeds = [101]
report_defaults = []
[tuning.arms.AdamW]
optimizer = "adamw"
space.optimizer.lr = { below = 0, above = 1 }
"""
FILE = "benchmarks/protocols/mini-v1.toml"
LONG = 900.0  # seconds; on a machine with nothing else to do it takes some twenty


@pytest.fixture
def protocol(project: Path) -> Path:
    file = project / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PROTOCOL)
    (file.parent / LOCK).write_text(f"{protocol_hash(read_document(file))}  mini-v1\n")
    return file


def test_without_records_a_challenge_says_how_to_make_them(
    command: Command, protocol: Path
) -> None:
    """Oracle: exit code 2 and the command, before anything runs."""
    done = command("challenge", "own:Mine", "--protocol", FILE)

    assert done.returncode == 2
    assert f"bertopt-bench tune {FILE}" in done.stderr


@pytest.mark.slow
def test_a_newcomer_is_joined_after_the_baseline_reproduced_and_not_otherwise(
    command: Command, project: Path, protocol: Path
) -> None:
    """Oracle: bit identity on one machine; then published losses that no machine reproduces."""
    folder = project / "results/protocols/mini-v1"
    words = ("--results", str(folder / "tuning"), "--page", "tuning.html")
    tuned = command("tune", FILE, *words, timeout=LONG)
    tuned_file = str(folder / "tuning/tuned.toml")
    ran = command("run", tuned_file, "--results", str(folder), "--page", "p.html", timeout=LONG)
    done = command("challenge", "own:Mine", "--protocol", FILE, "--page", "c.html", timeout=LONG)

    assert tuned.returncode == ran.returncode == 0, tuned.stderr + ran.stderr
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Reproduced bit for bit: seed 1 of tuned AdamW on BERT L1 H16")
    assert "own:Mine (this challenge) on BERT L1 H16" in done.stdout
    page = (project / "c.html").read_text()
    assert "own:Mine" in page
    assert "steps to" in page
    spoil(folder / "records.jsonl")
    refused = command("challenge", "own:Mine", "--protocol", FILE, timeout=LONG)
    assert refused.returncode == 3
    assert "Nothing is joined" in refused.stdout


def spoil(file: Path) -> None:
    """Move every published loss down by 3 nats."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["losses"] = [loss - 3 for loss in row["losses"]]
        for seen in row["evaluations"]:
            seen["loss"] -= 3
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
