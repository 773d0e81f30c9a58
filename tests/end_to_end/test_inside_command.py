"""A run that diverges on purpose, on real text, says at which step, in which layer, what grew."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from bertopt_bench import load_results

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_a_rate_far_too_large_is_seen_from_inside(command: Command, project: Path) -> None:
    """Oracle: SGD at rate 300, which no BERT survives; AdamW beside it does not diverge.

    The first update must already be larger than the weights that it changes.
    """
    (project / "falls.toml").write_text(
        (project / "small.toml").read_text().replace('"sgd"', '{name = "sgd", lr = 300.0}')
        + "[measure]\ninside_steps = 3\n"
    )
    done = command("run", "falls.toml", "--results", "falls", "--page", "falls.html")
    assert done.returncode == 0, done.stderr

    by_name = {r.cell["optimizer"]["name"]: r for r in load_results(project / "falls").counted}
    fallen = by_name["sgd"]
    assert (fallen.status, by_name["adamw"].status) == ("diverged", "ok")
    assert fallen.inside is not None
    assert fallen.inside.same_losses
    assert fallen.inside.steps[-1] == fallen.diverged_at_step
    assert max(fallen.inside.update_ratio[0]) > 1

    page = (project / "falls.html").read_text()
    told = re.search(r'<p class="fall">(.*?)</p>', page)
    assert told is not None
    assert f"diverged at step {fallen.diverged_at_step}: the " in told[1]
    assert re.search(
        r" of (layer 1 \w+|the embeddings|the head) grew [\d,.e]+-fold, from ", told[1]
    )
    assert '<svg class="heat"' in page

    refused = command("run", "falls.toml", "--set", "measure.inside_step=3")
    assert refused.returncode == 2
    assert "Did you mean 'inside_steps'" in refused.stderr
