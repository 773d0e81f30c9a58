"""How soon after its dispatch is a trial of `tiny` assembled and ready for burn-in?

The first trial of a zygote is told apart from the later ones (goal: 0.15 s for those).

    python benchmarks/peers/trial_start.py [--trials 20]
"""

from __future__ import annotations

import argparse

import numpy as np
from setting import QUICKSTART, request_for

from bertopt_bench.dispatch.local import Zygote


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    arguments = parser.parse_args()
    request = request_for(QUICKSTART, "axes.precision='fp32'", steps=1)
    seconds = []
    with Zygote(threads=request["threads"]) as zygote:
        for _ in range(arguments.trials + 1):
            outcome = zygote.run("trial", request, timeout_seconds=120)
            assert outcome.ready is not None, outcome
            seconds.append(outcome.ready["assemble_seconds"])
    later = np.asarray(seconds[1:])
    print(f"first: {seconds[0]:.3f} s")
    print(
        f"later, n = {len(later)}: median {np.median(later):.3f} s, min {later.min():.3f}, "
        f"max {later.max():.3f} (goal: 0.15 s)"
    )


if __name__ == "__main__":
    main()
