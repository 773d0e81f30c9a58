"""Ask torch.compile what it has made in this process, how long that took, and what was on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Compiled:
    """Everything compiled so far: training and evaluation graphs, optimizer steps, checks.

    ``seconds`` is wall time as torch counts it: looked up or made, graphs and their backward ones.
    ``hits``, ``misses`` and ``bypassed`` are graphs by what Inductor's cache on disk had of them.
    """

    graphs: int
    seconds: float
    hits: int
    misses: int
    bypassed: int

    @property
    def cache_state(self) -> str:
        """``warm`` where the cache had every graph, else ``cold``: something had to be made."""
        return "warm" if self.hits and not self.misses and not self.bypassed else "cold"

    def fields(self) -> dict[str, Any]:
        """Give the fields of a record; None where nothing was compiled."""
        if not self.graphs:
            return {"compile_seconds": None, "compile_cache": None}
        cache = {
            "state": self.cache_state,
            "hits": self.hits,
            "misses": self.misses,
            "bypassed": self.bypassed,
        }
        return {"compile_seconds": self.seconds, "compile_cache": cache}


def compiled_so_far() -> Compiled:
    """Read torch's own counters (``torch._dynamo.utils``)."""
    from torch._dynamo.utils import calculate_time_spent, counters

    found = counters["inductor"]
    return Compiled(
        graphs=int(counters["stats"]["unique_graphs"]),
        seconds=float(calculate_time_spent()["total_wall_time"]),
        hits=int(found["fxgraph_cache_hit"]),
        misses=int(found["fxgraph_cache_miss"]),
        bypassed=int(found["fxgraph_cache_bypass"]),
    )


def graphs_left_out() -> int:
    """Count the graphs that were to be CUDA graphs and, for a reason of torch's, are not."""
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["cudagraph_skips"])
