"""Forecasts: arithmetic on counted FLOPs, and the words of ``plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from written_matrices import load

from bertopt_bench.matrix import cells, forecast, spec
from bertopt_bench.workload import formulas
from bertopt_bench.workload.filling import WHOLE, Filled
from bertopt_bench.workload.known_text import KnownText
from bertopt_bench.workload.memory_formulas import memory_forecast_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.matrix.spec import Matrix

TEXT = """
seeds = [1, 2]
replicates = 3
[workload]
steps = 40
evaluate_every = 20
evaluation_batches = 6
[timing]
steps = 10
[axes]
optimizer = ["sgd", "adamw"]
[[exclude]]
optimizer = "sgd"
precision = "fp32"
reason = "left out"
"""


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    (tmp_path / "forecast.toml").write_text(TEXT)
    return spec.load(tmp_path / "forecast.toml")


def test_seconds_are_steps_by_flops_by_the_rate(matrix: Matrix) -> None:
    """Oracle: by hand, from the steps and evaluations of whole trials and timing replicates.

    2 trials have 40 steps and 3 evaluations, 4 have 10 and 2, and all have 3 + 3 + 6 steps beside;
    a batch of an evaluation takes a third of a step, and a skipped cell nothing.
    """
    plans = cells.plan_trials(cells.expand(matrix), matrix, order_seed=1)
    rate = 1e10
    expected = forecast.forecast(plans, matrix, {"cpu": rate})
    (one,) = expected.cells.values()
    flops = formulas.train_flops(
        formulas.model_size("tiny"), vocabulary=4096, batch=16, seq_len=64, masked=16 * 9
    )
    step = flops / rate + forecast.STEP_OVERHEAD_SECONDS
    parameters = formulas.parameter_count(formulas.model_size("tiny"), vocabulary=4096)
    around = forecast.TRIAL_OVERHEAD_SECONDS + parameters * forecast.ASSEMBLE_SECONDS_A_PARAMETER
    whole = around + (40 + 12 + 3 * 6 / 3) * step
    short = around + (10 + 12 + 2 * 6 / 3) * step

    assert one.flops_per_step == flops
    assert one.step_seconds == pytest.approx(step, rel=1e-12)
    assert expected.seconds == pytest.approx(2 * whole + 4 * short, rel=1e-12)


def test_a_trial_on_a_gpu_starts_and_one_of_inference_runs_forward_only(tmp_path: Path) -> None:
    """Oracle: by hand: 40 passes and 3 + 3 beside, two evaluations of 6; a third of the FLOPs."""
    (tmp_path / "m.toml").write_text(
        "[workload]\nmode = 'inference'\nsteps = 40\nevaluation_batches = 6\n"
        "[axes]\ndevice = 'cuda'"
    )
    matrix = spec.load(tmp_path / "m.toml")
    plans = cells.plan_trials(cells.expand(matrix), matrix, order_seed=1)
    expected = forecast.forecast(plans, matrix, {"cuda": 1e10})
    size = formulas.model_size("tiny")
    flops = formulas.forward_flops(size, vocabulary=4096, batch=16, seq_len=64, masked=16 * 9)
    one = flops / 1e10 + forecast.STEP_OVERHEAD_SECONDS / 3
    around = (
        forecast.TRIAL_OVERHEAD_SECONDS
        + forecast.CUDA_START_SECONDS
        + formulas.parameter_count(size, vocabulary=4096) * forecast.ASSEMBLE_SECONDS_A_PARAMETER
    )

    assert [cell.flops_per_step for cell in expected.cells.values()] == [flops]
    assert expected.seconds == pytest.approx(around + (40 + 3 + 3 + 12) * one, rel=1e-12)


def test_the_assumed_rate_is_of_the_cores_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: by hand: a control group's quota of one core, whatever the affinity mask says."""
    monkeypatch.setattr("bertopt_bench.measure.machine.cpu_quota", lambda _: 1.0)
    monkeypatch.setattr("bertopt_bench.measure.machine._affinity", lambda: [0, 1, 2, 3])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})

    assert forecast.assumed_rate("cpu") == forecast.CPU_FLOPS_PER_SECOND_A_CORE


def test_memory_is_the_largest_cells(tmp_path: Path) -> None:
    """Oracle: the workload's own formula for each cell."""
    (tmp_path / "m.toml").write_text("[workload]\nmodel = ['tiny', 'mini']")
    matrix = spec.load(tmp_path / "m.toml")
    found = cells.expand(matrix)
    expected = forecast.forecast(cells.plan_trials(found, matrix, 1), matrix)
    sizes = [memory_forecast_bytes(cell.content) for cell in found]

    assert sizes[0] < sizes[1]
    assert expected.peak_memory_bytes == sizes[1]
    assert [expected.cells[cell.id].peak_memory_bytes for cell in found] == sizes


def test_layouts_are_forecast_as_if_nothing_were_padded(tmp_path: Path) -> None:
    """Lengths are known only once a text is prepared; oracle: the padded cell: an upper bound."""
    (tmp_path / "m.toml").write_text("[workload]\nlayout = ['padded', 'unpadded', 'packed']")
    matrix = spec.load(tmp_path / "m.toml")
    expected = forecast.forecast(cells.plan_trials(cells.expand(matrix), matrix, 1), matrix)

    assert len(expected.cells) == 3
    assert len(set(expected.cells.values())) == 1


def test_a_bound_is_called_one_until_the_text_is_prepared(tmp_path: Path) -> None:
    """Oracle: the formula by hand: the bound is padded's; a known share of 40 % fits the limit."""
    (tmp_path / "m.toml").write_text("[workload]\nlayout = ['padded', 'unpadded', 'packed']")
    matrix = spec.load(tmp_path / "m.toml")
    found = cells.expand(matrix)
    most = memory_forecast_bytes(found[0].content) - 1
    texts = {found[2].id: KnownText(Filled(slots=0.6, real=0.6, pairs=0.6, at_once=0.6))}
    padded, unpadded, packed = (cell.skip for cell in forecast.fitting(found, most, texts))

    assert padded is not None
    assert unpadded is not None
    assert packed is None
    assert "at most" not in padded
    assert unpadded == f"{padded.replace('needs', 'needs at most')}: {forecast.UNKNOWN}"
    rows = forecast.describe_plan(matrix, found, texts).splitlines()
    assert ["at most" in row for row in rows[2:6]] == [False, True, False, True]
    assert rows[5] == "at most: how much is padding is not known before the text is prepared"


def test_plan_names_cells_skips_and_the_forecast(matrix: Matrix) -> None:
    """Oracle: the counts of the matrix by hand: 2 cells, 1 skipped, 1 x 2 x 3 trials."""
    text = forecast.describe_plan(matrix, cells.expand(matrix))

    assert "2 cells, 1 of them skipped; 2 seeds x 3 replicates; 6 trials to run" in text
    assert "skipped 1: excluded: left out" in text
    assert "forecast: " in text
    assert all(name in text for name in ("adamw", "sgd", "MiB", "GFLOP"))


def test_a_plan_of_skipped_cells_alone_takes_nothing(matrix: Matrix) -> None:
    """Oracle: no trial, no second, no byte."""
    skipped = [cell for cell in cells.expand(matrix) if cell.skip is not None]
    expected = forecast.forecast(cells.plan_trials(skipped, matrix, 1), matrix)

    assert (expected.seconds, expected.peak_memory_bytes) == (0.0, 0)
    assert "0 trials to run" in forecast.describe_plan(matrix, skipped)


def test_one_is_not_written_as_several(tmp_path: Path) -> None:
    """Oracle: English; an inference cell's FLOPs are those of a forward pass."""
    (tmp_path / "m.toml").write_text("seeds = [1]\n[workload]\nmode = 'inference'")
    matrix = spec.load(tmp_path / "m.toml")
    text = forecast.describe_plan(matrix, cells.expand(matrix))

    assert "1 cell, 0 of them skipped; 1 seed x 1 replicate; 1 trial to run" in text
    assert "GFLOP a pass" in text


@pytest.mark.parametrize(
    ("count", "text"), [(16, "16 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**34, "16.00 GiB")]
)
def test_a_few_bytes_are_no_fraction_of_a_kibibyte(count: int, text: str) -> None:
    """Oracle: by hand."""
    assert forecast.as_size(count) == text


NO_GPU: dict[str, Any] = {
    "torch": "2.13.0",
    "cuda": {"count": 0, "names": [], "capability": []},
    "packages": {},
    "compiler": True,
}


@pytest.fixture
def of_a_gpu(tmp_path: Path) -> Matrix:
    """Give two cells that lack a GPU alone, and one that no GPU runs."""
    (tmp_path / "gpu.toml").write_text(
        "[workload]\nmodel = ['base', 'large']\n[axes]\ndevice = 'cuda'\n"
        "[axes.kernel]\nattention = 'math'\n"
        "[[include]]\nmodel = 'base'\nattention = 'cudnn'\nprecision = 'fp32'"
    )
    return spec.load(tmp_path / "gpu.toml")


def test_what_lacks_a_gpu_alone_is_forecast_without_one(of_a_gpu: Matrix) -> None:
    """Oracle: the formulas, which need no device; cudnn takes no fp32 on any GPU."""
    found = cells.expand(of_a_gpu, NO_GPU)
    base, large, never = forecast.describe_plan(of_a_gpu, found).splitlines()[2:5]

    assert [cell.elsewhere for cell in found] == [True, True, False]
    need = forecast.as_size(memory_forecast_bytes(found[1].content))
    assert "torch finds none here; by forecast " in base
    assert large.endswith(need)
    assert "GFLOP" in large
    assert never.endswith("torch finds none here")
    last = forecast.describe_plan(of_a_gpu, found).splitlines()[-2:]
    assert last[0] == "forecast: nothing runs here"
    assert last[1].startswith("forecast for a machine that has what is missing here: ")
    assert f", at most {need} at once" in last[1]


def test_a_limit_marks_what_would_not_fit_a_gpu_that_is_not_here(of_a_gpu: Matrix) -> None:
    """Oracle: the formula of each cell; the limit is one byte below the larger one's."""
    found = cells.expand(of_a_gpu, NO_GPU)
    most = memory_forecast_bytes(found[1].content) - 1
    base, large, never = forecast.fitting(found, most)

    assert (base, never) == (found[0], found[2])
    assert large.skip is not None
    assert large.skip.startswith(f"{found[1].skip}; needs ")
    assert "GFLOP" not in forecast.describe_plan(of_a_gpu, [large])


def test_a_plan_in_which_nothing_runs_says_no_bytes(matrix: Matrix) -> None:
    """Oracle: the last line's own words."""
    skipped = [cell for cell in cells.expand(matrix) if cell.skip is not None]

    text = forecast.describe_plan(matrix, skipped)
    assert text.endswith("\n\nforecast: nothing runs here")


def test_a_limit_drops_exactly_the_cells_above_it_and_says_why(tmp_path: Path) -> None:
    """Oracle: the formula of each cell; the limit is one byte below the larger one's."""
    (tmp_path / "m.toml").write_text("[workload]\nmodel = ['tiny', 'mini']")
    matrix = spec.load(tmp_path / "m.toml")
    found = cells.expand(matrix)
    most = memory_forecast_bytes(found[1].content)

    assert forecast.fitting(found, most) == forecast.fitting(found, None) == found
    tiny, mini = forecast.fitting(found, most - 1)
    assert tiny == found[0]
    assert mini.skip is not None
    assert f"needs {most:,} B by forecast, and --max-memory is {most - 1:,} B" in mini.skip
    text = forecast.describe_plan(matrix, [tiny, mini])
    assert "2 cells, 1 of them skipped" in text
    assert f"skipped: {mini.skip}" in text


def test_a_cell_that_is_skipped_anyway_keeps_its_reason(matrix: Matrix) -> None:
    """Oracle: the matrix' own reason."""
    assert "excluded: left out" in {cell.skip for cell in forecast.fitting(cells.expand(matrix), 1)}


def test_a_vocabulary_that_the_text_does_not_yield_is_not_forecast() -> None:
    """Oracle: the forecast of the same cell that asks for what the text yields."""
    asked = {"name": "some", "workload": {"vocabulary_size": 8192}}
    matrix, smaller = load(asked), load({**asked, "workload": {"vocabulary_size": 5000}})
    (cell,), (due,) = cells.expand(matrix), cells.expand(smaller)
    texts = {cell.id: KnownText(WHOLE, vocabulary_size=5000)}
    most = memory_forecast_bytes(due.content)
    plans = cells.plan_trials([cell], matrix, 0)

    assert forecast.fitting([cell], most)[0].skip
    assert forecast.fitting([cell], most, texts)[0].skip is None
    (found,) = forecast.forecast(plans, matrix, texts=texts).cells.values()
    (plain,) = forecast.forecast(cells.plan_trials([due], smaller, 0), smaller).cells.values()
    assert found == plain


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_a_known_text_is_forecast_as_it_fills_a_batch(mode: str) -> None:
    """Oracle: the formula of the same shares; the bound without them is higher."""
    asked = {"name": "some", "workload": {"layout": "packed", "mode": mode, "batch_size": 64}}
    matrix = load(asked)
    (cell,) = cells.expand(matrix)
    filled = Filled(slots=0.5, real=0.4, pairs=0.2, at_once=0.1)
    plans = cells.plan_trials([cell], matrix, 0)
    (found,) = forecast.forecast(plans, matrix, texts={cell.id: KnownText(filled)}).cells.values()
    (bound,) = forecast.forecast(plans, matrix).cells.values()

    assert found.peak_memory_bytes == memory_forecast_bytes(cell.content, filled)
    assert found.peak_memory_bytes < bound.peak_memory_bytes
