"""``python -m bertopt_bench.trial.ranged REQUEST``: profiled steps for nsys and ncu to look at.

A process of its own rather than a fork: these tools follow programs that were started.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from bertopt_bench.trial.profiling import run_in_ranges


def main() -> None:
    """Read the request and run it."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if request.get("threads"):
        torch.set_num_threads(request["threads"])
    run_in_ranges(request)


if __name__ == "__main__":
    main()
