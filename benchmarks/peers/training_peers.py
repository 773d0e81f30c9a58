"""Train one BERT three ways, side by side: ours, transformers + accelerate, optimum-benchmark.

All start from the same checkpoint (no dropout), in fp32 eager, with the same threads, fused AdamW
(decay on all but vectors) and a constant rate, without clipping:

- ours: a trial as a matrix makes it; its head runs on the masked positions only;
- accelerate: `BertForMaskedLM` in a loop, by Accelerator.prepare and backward, on our batches;
- optimum: optimum-benchmark's training scenario as it is. It takes no data: its generator draws
  random tokens, a mask of ones and a label in every slot. What it fed is looked at and printed;
- optimum_our_batches: the same scenario with its generator's place taken by our sequences. The
  Trainer shuffles them, so that its batches are of the same sequences and not the same batches.

Every round runs each arm once, in a fresh process of its own; over the rounds each stands in each
place, and before and after each other one, equally often. The unit is the round: a process' median
step by ours of the same round, then Hodges-Lehmann and the exact interval.

What a step's time has in it: ours and accelerate's from step to step, fetching the batch included;
optimum-benchmark's as it takes it, from the Trainer's on_step_begin to on_step_end, without the
fetch. It runs with its inline launcher: its process launcher's parent spins on a core all the
while. Its memory sampler runs in a process apart from the timed ones.

    python benchmarks/peers/training_peers.py [--rounds 8] [--steps 30] [--arms ARM ...] [--json F]
    python benchmarks/peers/training_peers.py --dry    # what would be installed and run

The peers live in virtual environments of their own below the project's cache, made once by pip.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import training_table as table
from peer_environments import ENVIRONMENTS, peer_python
from setting import QUICKSTART, request_for

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("training_arms.py")
ARMS = ("ours", "accelerate", "optimum", "optimum_our_batches")
BURN_IN = 5
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "LOG_TO_FILE": "0",
    "LOG_LEVEL": "ERROR",
    "PYTHONPATH": str(ROOT),
}


def write_setting(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write what every arm reads; our text is prepared in the user's cache."""
    steps = BURN_IN + arguments.steps
    request = request_for(
        QUICKSTART,
        f"workload.model='{arguments.model}'",
        f"workload.seq_len={arguments.seq_len}",
        f"workload.batch_size={arguments.batch_size}",
        f"workload.vocabulary_size={arguments.vocabulary}",
        f"workload.steps={steps}",
        f"workload.evaluate_every={steps}",
        "workload.evaluation_batches=1",
        "axes.optimizer=[{name='adamw', lr=1e-3, betas=[0.9, 0.999], eps=1e-6}]",
        "axes.schedule=['constant']",
        "axes.regularizer=['weight_decay']",
        "axes.precision=['fp32']",
        "axes.kernel.optimizer_step='fused'",
    )
    request["threads"] = arguments.threads or request["threads"]
    setting = {
        "request": request,
        "burn_in": BURN_IN,
        "steps": arguments.steps,
        "batch_size": arguments.batch_size,
        "seq_len": arguments.seq_len,
        "vocabulary_size": request["text"]["vocabulary_size"],
        "threads": request["threads"],
        "optimizer": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-6, "weight_decay": 0.01},
    }
    (folder / "setting.json").write_text(json.dumps(setting, indent=1), encoding="utf-8")
    return setting


def python_of(arm: str) -> str:
    """Give the interpreter of an arm, its environment made where it is not there yet."""
    if arm in {"ours", "prepare"}:
        return sys.executable
    return str(peer_python("accelerate" if arm == "accelerate" else "optimum-benchmark", say))


def run_arm(arm: str, folder: Path, threads: int, *words: str) -> dict[str, Any]:
    """Run an arm in a fresh process and give what it measured.

    Raises:
        UserError: it fails, with the end of what it said.
    """
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    command = [python_of(arm), str(SCRIPT), arm, str(folder), *words]
    environment = os.environ | QUIET | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode or not result.is_file():
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise UserError(f"the arm '{arm}' failed with exit code {done.returncode}:\n{tail}")
    measured: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return measured


def run_rounds(
    arms: Sequence[str], rounds: int, folder: Path, threads: int
) -> list[dict[str, dict[str, Any]]]:
    """Run every arm once a round, in balanced orders; a round is what its arms measured."""
    orders = table.balanced_orders(len(arms))
    found = []
    for number in range(rounds):
        order = [arms[index] for index in orders[number % len(orders)]]
        say(f"round {number + 1} of {rounds}: {', '.join(order)}")
        found.append({arm: run_arm(arm, folder, threads) for arm in order})
    return found


def dry(arms: Sequence[str], rounds: int) -> None:
    """Say what would be installed and run."""
    for name, environment in ENVIRONMENTS.items():
        there = "is there" if environment.is_whole() else "would be made, some 2 GB"
        print(f"{name}: {there}: {environment.folder}")
        print(f"  {environment.command()}")
    print(f"then {rounds} rounds of: {', '.join(arms)}; each in a fresh process")


def say(text: str) -> None:
    """Tell a person what goes on, beside what is printed."""
    print(text, file=sys.stderr, flush=True)


def count(text: str) -> int:
    """Read a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def read_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=count, default=8)
    parser.add_argument("--steps", type=count, default=30, help="timed ones of a process")
    parser.add_argument("--arms", nargs="+", default=list(ARMS[1:]), choices=ARMS[1:])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seq-len", type=count, default=128)
    parser.add_argument("--batch-size", type=count, default=16)
    parser.add_argument("--vocabulary", type=count, default=8192)
    parser.add_argument("--threads", type=count, help="of every arm; by default one a core")
    parser.add_argument("--json", type=Path, help="write every measured step there")
    parser.add_argument("--dry", action="store_true", help="say what would be installed and run")
    arguments = parser.parse_args(words)
    arguments.arms = ["ours", *(arm for arm in ARMS[1:] if arm in arguments.arms)]
    table.check_rounds(arguments.rounds, len(arguments.arms))
    return arguments


def compare(arguments: argparse.Namespace, folder: Path) -> str:
    """Prepare, run memory passes and rounds, check that the arms did the same; give the table."""
    for arm in arguments.arms:
        python_of(arm)
    setting = write_setting(folder, arguments)
    threads = setting["threads"]
    run_arm("prepare", folder, threads)
    own_memory = {
        arm: table.own_memory_bytes(run_arm(arm, folder, threads, "--memory")["report"])
        for arm in arguments.arms
        if arm.startswith("optimum")
    }
    rounds = run_rounds(arguments.arms, arguments.rounds, folder, threads)
    table.check_alike(rounds, threads)
    if arguments.json is not None:
        raw = {"setting": setting, "own_memory_bytes": own_memory, "rounds": rounds}
        arguments.json.write_text(json.dumps(table.without_places(raw)), encoding="utf-8")
    return table.render(rounds, setting["batch_size"], own_memory)


def main() -> int:
    try:
        arguments = read_arguments()
        if arguments.dry:
            dry(arguments.arms, arguments.rounds)
            return 0
        with tempfile.TemporaryDirectory(prefix="training-peers-") as folder:
            print(compare(arguments, Path(folder)))
    except UserError as error:
        say(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
