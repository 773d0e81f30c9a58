"""Targets and baseline that a matrix declares: read, checked, and part of what was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertopt_bench.errors import MatrixError
from bertopt_bench.matrix.convergence import declared
from bertopt_bench.matrix.spec import load

ROOT = Path(__file__).parent.parent.parent
PLAIN = (ROOT / "benchmarks" / "optimizers.toml").read_text()
DECLARED = f'{PLAIN}\n[convergence]\ntargets = [4.5, 4.7]\nbaseline = "adamw"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "m.toml"
    path.write_text(text)
    return path


def test_targets_change_what_was_asked_for(tmp_path: Path) -> None:
    """So that a folder cannot be continued under targets that were fixed after its first runs."""
    plain = load(written(tmp_path, PLAIN)).digest
    assert load(written(tmp_path, DECLARED)).digest != plain
    assert declared([DECLARED]) == (("4.5", "4.7"), "adamw")


def test_what_declares_nothing_gives_nothing() -> None:
    assert declared([]) == declared([PLAIN]) == declared(["no = = toml"]) == ((), None)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("target = [4.5]", "Did you mean 'targets'"),
        ("targets = 4.5", "a list"),
        ('targets = ["low"]', "a loss in nats"),
        ("targets = [true]", "a loss in nats"),
        ("baseline = 1", "a text"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, table: str, says: str) -> None:
    with pytest.raises(MatrixError, match=says) as raised:
        load(written(tmp_path, f"{PLAIN}\n[convergence]\n{table}\n"))
    assert "convergence." in str(raised.value)


def test_inference_declares_no_convergence(tmp_path: Path) -> None:
    """Oracle: the house rule: what changes nothing is refused; beside training it is for that."""
    told = "[convergence]\ntargets = [4.5]\n"
    with pytest.raises(MatrixError, match=r"convergence: is about training"):
        load(written(tmp_path, f"[workload]\nmode = 'inference'\n{told}"))

    assert load(written(tmp_path, f"[workload]\nmode = ['inference', 'training']\n{told}")).source
    included = "[[include]]\nmode = 'training'\n"
    assert load(written(tmp_path, f"[workload]\nmode = 'inference'\n{told}{included}")).includes
