"""The example of a user's Triton kernel, under Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = "needs triton: pip install -c constraints.txt '.[triton]'"
CODE = """
from bertopt_bench.axes.devices import cpu
from bertopt_bench.matrix.micro import OPERATIONS, read_options
from bertopt_bench.trial.micro.cases import open_case

for dtype in ("float32", "bfloat16"):
    for direction in ("forward", "backward", "both"):
        options = read_options(
            OPERATIONS["gelu"],
            {"batch_size": 2, "seq_len": 7, "hidden_size": 100, "dtype": dtype,
             "direction": direction},
        )
        case = open_case("gelu", "triton_gelu:gelu", options, cpu())
        with case.context():
            case.calls[0]()
        print(dtype, direction, case.errors.error, case.errors.reference_error)
"""


@pytest.mark.skipif(find_spec("triton") is None, reason=NEEDED)
def test_the_example_is_right_in_every_direction_and_dtype() -> None:
    """Oracle: the float64 check of open_case, on a size that is no multiple of the block."""
    environment = {
        **os.environ, "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples" / "micro")]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False,
        timeout=170,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 6
