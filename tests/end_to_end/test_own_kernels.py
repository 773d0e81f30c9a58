"""A layer norm of the user's own, by the real command: listed, trained with, and failed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.slow

NORMS = '''
"""Layer norms of a user's own; only the first is right."""
import torch


def plain(input, normalized_shape, weight, bias, eps):
    """Norm in plain operations."""
    centred = input - input.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt() * weight + bias


def raises(input, normalized_shape, weight, bias, eps):
    """Has a bug."""
    raise KeyError("a bug")


def inexact(input, normalized_shape, weight, bias, eps):
    """Forgets the mean."""
    return input * (input.square().mean(-1, keepdim=True) + eps).rsqrt() * weight + bias


def narrow(input, normalized_shape, weight, bias, eps):
    """Gives the means alone, which would broadcast."""
    return input.mean(-1, keepdim=True)
'''
NAMES = ["default", *(f"norms:{name}" for name in ("plain", "raises", "narrow", "inexact"))]
LEVELS = f"axes.kernel.layer_norm={NAMES}"


@pytest.fixture(scope="module")
def by_norm(command: Command, project: Path) -> dict[str, dict[str, Any]]:
    (project / "norms.py").write_text(NORMS)
    done = command(
        "run", "small.toml", "--set", LEVELS, "--set", "axes.optimizer='adamw'",
        "--set", "name='norms'", "--set", "workload.steps=4", "--set", "workload.evaluate_every=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (project / "results/norms/records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 5
    silent = {"name": "default"}
    return {row["cell"]["kernel"].get("layer_norm", silent)["name"]: row for row in records}


def test_plain_operations_train_as_torchs_own(by_norm: dict[str, dict[str, Any]]) -> None:
    """Oracle: torch.nn.functional.layer_norm in the same session, every loss within 1e-5."""
    own, usual = by_norm["norms:plain"], by_norm["default"]

    assert (own["status"], own["timed_steps"]) == ("ok", 4)
    assert own["losses"] == pytest.approx(usual["losses"], abs=1e-5)
    assert own["evaluations"][-1]["loss"] == pytest.approx(
        usual["evaluations"][-1]["loss"], abs=1e-5
    )
    errors = {row["quantity"]: row for row in own["kernel_errors"]}
    assert list(errors) == ["output", *(f"gradient of {n}" for n in ("input", "weight", "bias"))]
    assert all(row["error"] <= row["allowed_error"] for row in errors.values())
    assert usual["kernel_errors"] == []
    assert own["initial_weights_sha256"] == usual["initial_weights_sha256"]
    assert "norms.py" in own["code"]["outside"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("norms:raises", "KeyError: 'a bug' (at norms.py:14 in raises)"),
        (
            "norms:narrow",
            "'norms:narrow': its output has shape [4, 16, 1]; it must have [4, 16, 16]",
        ),
        (
            "norms:inexact",
            "kernel.layer_norm 'norms:inexact': its output differs from float64 by",
        ),
    ],
)
def test_a_wrong_one_is_a_failed_record_with_its_reason(
    by_norm: dict[str, dict[str, Any]], name: str, words: str
) -> None:
    """Oracle: what each function does on purpose."""
    assert by_norm[name]["status"] == "failed"
    assert words in by_norm[name]["reason"]


def test_the_listing_says_how_a_function_of_ones_own_is_called(command: Command) -> None:
    """Oracle: torch's signature of the function that it replaces."""
    done = command("list", "kernel.layer_norm", "default")

    assert done.returncode == 0, done.stderr
    assert "layer_norm(input, normalized_shape, weight, bias, eps)" in " ".join(done.stdout.split())


def test_kernel_stands_for_all_its_operations(command: Command) -> None:
    """Oracle: the catalogue's axes and entries; a name that none of them has is a mistake."""
    operations = [axis for axis in catalogue.AXES if axis.startswith("kernel.")]
    rows = command("list", "kernel").stdout.splitlines()
    liger = command("list", "kernel", "liger").stdout
    wrong, absent = command("list", "kernle"), command("list", "kernel", "ligre")
    own = command("list", "kernel", "torch.nn.functional:gelu")

    assert [row.split()[0] for row in rows] == operations
    assert "kernel.layer_norm liger\n" in liger
    assert "kernel.mlm_loss liger\n" in liger
    assert wrong.stderr.endswith("Did you mean 'kernel'?\n")
    assert absent.stderr.endswith("Did you mean 'liger'?\n")
    assert own.stderr.endswith("name one, as kernel.attention.\n")
    assert (wrong.returncode, absent.returncode, own.returncode) == (2, 2, 2)
