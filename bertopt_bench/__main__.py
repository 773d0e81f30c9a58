"""Let ``python -m bertopt_bench`` be ``bertopt-bench``."""

from __future__ import annotations

from bertopt_bench.cli import main

main()
