"""The matrices for a GPU: planned anywhere, short enough there, and in need of little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bertopt_bench.matrix import cells, forecast, spec
from bertopt_bench.workload.cache import cache_root
from bertopt_bench.workload.prepare import prepare

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
FILES = sorted(FOLDER.glob("*.toml"))
WRITTEN = ("inference", "kernels", "layouts", "operations", "optimizers", "precisions")
LEFT_OUT = ("is not installed", "excluded: ", "has no fused step")
"""Why a cell may not run there: it lacks a package, or is left out on purpose."""
MOST_SECONDS = 600.0
CARD_BYTES = 80e9


def machine(gpus: int, torch: str = "2.11.0", *packages: str) -> dict[str, Any]:
    """Describe a machine as the probe would: its GPUs are H100s."""
    return {
        "torch": torch,
        "cuda": {"count": gpus, "names": ["NVIDIA H100"] * gpus, "capability": [[9, 0]] * gpus},
        "packages": dict.fromkeys(packages, "4.1.0"),
        "compiler": True,
        "cpu": {"threads": 16, "isa": []},
    }


def test_there_are_the_matrices_that_were_asked_for() -> None:
    """Oracle: the issue's list."""
    assert set(WRITTEN) <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_without_a_gpu_every_cell_is_skipped_with_a_reason(file: Path) -> None:
    """Oracle: a machine on which torch finds no device; the plan says so and takes no time."""
    matrix = spec.load(file)
    found = cells.expand(matrix, machine(0))

    assert found
    assert all(cell.skip for cell in found)
    text = forecast.describe_plan(matrix, found)
    assert "0 trials to run" in text
    assert "torch finds none here" in text


@pytest.mark.parametrize("packages", [(), ("pytorch_optimizer",)])
@pytest.mark.parametrize("torch", ["2.11.0", "2.13.0"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_an_h100_each_ends_within_ten_minutes(
    file: Path, torch: str, packages: tuple[str, ...]
) -> None:
    """Oracle: the forecast at the assumed rate, a tenth of what such a card does in bf16."""
    matrix = spec.load(file)
    found = cells.expand(matrix, machine(1, torch, *packages))
    expected = forecast.forecast(cells.plan_trials(found, matrix, 1), matrix)

    assert len(expected.cells) >= 4
    assert 0 < expected.seconds <= MOST_SECONDS
    assert expected.peak_memory_bytes < CARD_BYTES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_rule_of_kernels_or_layouts_is_in_the_way(file: Path) -> None:
    """Oracle: the reasons of what is skipped on a machine without any package but ours."""
    reasons = {cell.skip for cell in cells.expand(spec.load(file), machine(1, "2.13.0"))}

    assert all(any(part in why for part in LEFT_OUT) for why in reasons - {None} if why)


@pytest.mark.parametrize("name", WRITTEN)
def test_their_text_is_pythons_own_and_is_enough(name: str) -> None:
    """Oracle: the preparation itself, which refuses too small a text; nothing is fetched."""
    matrix = spec.load(FOLDER / f"{name}.toml")
    workloads = [cell.content["workload"] for cell in cells.expand(matrix)]
    largest = max(workloads, key=lambda one: one["batch_size"])
    told: list[str] = []
    prepared = prepare(
        largest, [1], steps=1, cache=cache_root(), progress=lambda what, *_: told.append(what)
    )

    assert {one["corpus"] for one in workloads} == {"python_docs"}
    assert prepared.train_sequences >= largest["batch_size"]
    assert not any("fetch" in what for what in told)


def test_what_came_after_torch_2_11_is_skipped_there() -> None:
    """Oracle: the release notes of torch 2.12: Adagrad's fused step on CUDA is new."""
    matrix = spec.load(FOLDER / "optimizers.toml")
    older, newer = (cells.expand(matrix, machine(1, torch)) for torch in ("2.11.0", "2.12.1"))
    changed = [(a, b) for a, b in zip(older, newer, strict=True) if a.skip != b.skip]

    assert len(changed) == 2  # of base and large
    for before, after in changed:
        assert before.content["optimizer"]["name"] == "adagrad"
        assert "torch 2.12" in str(before.skip)
        assert after.skip is None
