"""The suites of benchmarks/micro as a user runs them, on very small shapes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.matrix.micro import OPERATIONS
from bertopt_bench.pipeline import write_report
from bertopt_bench.results.micro import read_micro

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "benchmarks" / "micro"
SMALL = ["--batch-size", "2", "--seq-len", "8,16", "--heads", "2", "--head-size", "8",
         "--hidden-size", "16", "--vocabulary-size", "50", "--batches", "3"]  # fmt: skip


def loaded() -> Any:
    """Load the suites' conftest under a name of its own."""
    spec = importlib.util.spec_from_file_location("micro_suites", SUITE / "conftest.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


SUITES = loaded()


class Options:
    """A pytest configuration with the options given."""

    def __init__(self, given: dict[str, str]) -> None:
        self.given = given

    def getoption(self, name: str) -> str | None:
        option = f"--{name.removeprefix('micro_').replace('_', '-')}"
        return self.given.get(name, self.given.get(option))


def run_suite(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    return subprocess.run(
        [sys.executable, "-m", "pytest", str(SUITE), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=170,
    )  # fmt: skip


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("micro")
    file = folder / "micro.json"
    done = run_suite(folder, *SMALL, "--cache", "hot", "--benchmark-json", str(file))
    return done, file


VARIED = {"padding": (0.25,)}


@pytest.mark.slow
def test_every_operation_is_timed_and_leaves_what_a_row_needs(small_run: Any) -> None:
    """Oracle: the file that pytest-benchmark wrote, row by row."""
    done, file = small_run

    assert done.returncode == 0, done.stdout[-3000:]
    document = json.loads(file.read_text())
    operations = {row["extra_info"]["operation"] for row in document["benchmarks"]}
    assert operations == {"attention", "layer_norm", "gelu", "mlm_loss", "optimizer_step"}
    wanted = {
        "bytes", "bytes_formula", "gb_per_second", "tflop_per_second", "share_of_ceiling",
        "error", "reference_error", "host_us", "host_bound", "cache", "calls_a_batch",
    }  # fmt: skip
    for row in document["benchmarks"]:
        info = row["extra_info"]
        assert wanted <= info.keys(), row["name"]
        assert info["error"] <= info["allowed_error"]
        assert row["stats"]["rounds"] == 3
        rate = info["bytes"] / row["stats"]["median"] / 1e9
        assert info["gb_per_second"] == pytest.approx(rate, rel=1e-6)
    assert "node" not in document["machine_info"]


@pytest.mark.slow
def test_ceilings_are_measured_before_and_again_after(small_run: Any) -> None:
    """Oracle: two measurements in the file; a share is of the better one."""
    document = json.loads(small_run[1].read_text())
    first, last = document["ceilings"]
    best = max(first["bandwidth_bytes_per_second"], last["bandwidth_bytes_per_second"])
    moving = [r for r in document["benchmarks"] if r["extra_info"]["ceiling"] == "bandwidth"]

    assert moving
    for row in moving:
        share = row["extra_info"]["bytes"] / best / row["stats"]["median"]
        assert row["extra_info"]["share_of_ceiling"] == pytest.approx(share, rel=1e-6)


@pytest.mark.slow
def test_the_file_makes_a_page(small_run: Any, tmp_path: Path) -> None:
    """Oracle: report reads what the suite wrote."""
    page = write_report([small_run[1]], tmp_path / "page.html")

    assert "Seconds a call over seq_len" in page.read_text()
    assert len(read_micro(small_run[1]).rows) > 10


@pytest.mark.slow
def test_a_wrong_kernel_fails_its_benchmark_and_leaves_no_row(tmp_path: Path) -> None:
    """Oracle: a user's kernel that doubles; the right one beside it is timed."""
    (tmp_path / "doubling.py").write_text(
        "import torch\n\n\ndef gelu(values):\n    return 2 * torch.nn.functional.gelu(values)\n"
    )
    file = tmp_path / "micro.json"
    done = run_suite(
        tmp_path, "-k", "gelu", "--implementation", "default,doubling:gelu", "--cache", "hot,cold",
        "--batch-size", "2", "--seq-len", "8", "--hidden-size", "16", "--batches", "3",
        "--benchmark-json", str(file),
    )  # fmt: skip

    assert done.returncode == 1, done.stdout[-3000:]
    assert "is wrong" in done.stdout
    rows = json.loads(file.read_text())["benchmarks"]
    assert {row["extra_info"]["implementation"] for row in rows} == {"default"}
    assert {row["extra_info"]["cache"] for row in rows} == {"hot", "cold"}
    groups = {row["group"] for row in rows}
    assert groups == {"gelu, hot caches", "gelu, cold caches"}


MISTAKES: list[tuple[list[str], list[str]]] = [
    (["--dtype", "float8"], ["one of float32", "Did you mean 'float64'"]),
    (["--seq-len", "8,,16"], ["empty part"]),
    (["--seq-len", "8,16,8"], ["names 8 twice"]),
    (["--implementation", "math,math"], ["names math twice"]),
    (["--implementation", "flesh"], ["Did you mean 'flash'"]),
    (["bench_gelu.py", "--heads", "4"],
     ["--heads is no option of gelu", "one of attention", "--hidden-size"]),
    (["-k", "gelu", "--heads", "4"], ["--heads is no option of gelu"]),
    (["bench_attention.py", "--implementation", "fused"],
     ["none of attention", "one of optimizer_step", "default, math, flash", "module:function"]),
    (["bench_gelu.py", "--implementation", "compile"], ["Did you mean 'compiled'"]),
    (["bench_gelu.py", "--implementation", "mine:"], ["none of gelu", "called as (input)"]),
    (["--batches", "0"], ["--batches: is 0", "at least 1"]),
]  # fmt: skip
MANY = """
import json, sys
import pytest
for arguments in json.loads(sys.argv[1]):
    print(f"ended: {int(pytest.main(arguments))}", file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def mistaken() -> list[str]:
    """Give what pytest says to each mistake, with its exit code at the end, from one process."""
    asked = [["-p", "no:xdist", "-q", *arguments] for arguments, _ in MISTAKES]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-c", MANY, json.dumps(asked)], cwd=SUITE, stdout=subprocess.PIPE,
        env=environment | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.STDOUT, text=True, check=True, timeout=170,
    )  # fmt: skip
    return re.split(r"(?<=ended: \d)\n", done.stdout)


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_is_told_alone_with_what_is_allowed(mistaken: list[str], number: int) -> None:
    """Oracle: pytest's own code of wrong usage, 4; the text in one line, and no traceback."""
    said = mistaken[number]
    told = [line for line in said.splitlines() if line.startswith("ERROR: ")]

    assert said.endswith("ended: 4"), said
    assert len(told) == 1, said
    for words in MISTAKES[number][1]:
        assert words in told[0]
    assert len(said.splitlines()) < 8, said


def test_suites_that_run_together_need_not_all_have_an_option() -> None:
    """Oracle: attention has heads and optimizer_step fused; gelu, beside them, has neither."""
    together = [OPERATIONS[name] for name in ("attention", "gelu", "optimizer_step")]
    asked = Options({"--heads": "4", "--implementation": "default,fused,my_module:gelu"})

    SUITES.check_asked(asked, together)
    with pytest.raises(UserError, match="no option of gelu, optimizer_step"):
        SUITES.check_asked(asked, together[1:])


def test_lists_span_the_cases_and_unknown_names_of_other_operations_are_left_out() -> None:
    """Oracle: by hand: 2 lengths x 2 shares; sparse is no attention."""
    given = {"--seq-len": "8,16", "--padding": "0.0,0.5", "--implementation": "sparse,flash,m:f"}
    cases = list(SUITES._cases(Options(given), "attention", {"implementation": ("math",)}, VARIED))

    assert [name for _, name, *_ in cases] == ["flash"] * 4 + ["m:f"] * 4
    spanned = {(options["seq_len"], options["padding"]) for *_, options, _ in cases[:4]}
    assert spanned == {(8, 0.0), (16, 0.0), (8, 0.5), (16, 0.5)}


def test_other_options_are_varied_one_by_one_unless_some_are_asked_for() -> None:
    """Oracle: by hand: the usual case, and one with a quarter of padding."""
    cases = list(SUITES._cases(Options({}), "attention", {"implementation": ("math",)}, VARIED))

    assert [options["padding"] for *_, options, _ in cases] == [0.0, 0.25]


@pytest.mark.slow
def test_what_cannot_run_here_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """Oracle: torch has efficient attention on CUDA only."""
    done = run_suite(tmp_path, "-k", "attention", "--implementation", "efficient", "--seq-len", "8")

    assert done.returncode == 0, done.stdout[-2000:]
    assert "on CUDA only" in done.stdout
