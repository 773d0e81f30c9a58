"""A session's first line: what was asked for, where, with what."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.machine import describe_machine, fingerprint, versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertopt_bench.matrix.spec import Matrix


def first_line(
    matrix: Matrix,
    *,
    code: Mapping[str, Any],
    order_seed: int,
    declared: Mapping[str, Any],
    digest: str | None = None,
) -> dict[str, Any]:
    """Describe matrix, machine, versions and code, and what this kind of session declares.

    ``digest`` stands for more than the matrix where arms belong to what is continued.
    """
    machine, software = describe_machine(), versions()
    return {
        "matrix": {
            "name": matrix.name,
            "description": matrix.description,
            "digest": matrix.digest if digest is None else digest,
            "source": matrix.source,
        },
        "machine": {**machine, "fingerprint": fingerprint(machine, software)},
        "versions": software,
        "code": dict(code),
        "order_seed": order_seed,
        "command": shlex.join(["bertopt-bench", *sys.argv[1:]]),
        "declared": dict(declared),
    }
