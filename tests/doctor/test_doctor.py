"""The command's body on written machines, with scripted measurements: nothing is timed here."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench import doctor
from bertopt_bench.doctor import text
from bertopt_bench.doctor.budget import Budget
from bertopt_bench.doctor.text import shown, write
from bertopt_bench.errors import UserError
from bertopt_bench.measure.suitability import STEAL_SHARE

if TYPE_CHECKING:
    from pathlib import Path

CEILINGS: dict[str, Any] = {
    "cpu": {
        "matmul_flops_per_second": {"float32": 198e9},
        "bandwidth_bytes_per_second": 57.6e9,
        "copy_bytes_per_second": 42.6e9,
        "samples": {
            "matmul_seconds": {"float32": [0.1, 0.2]},
            "bandwidth_seconds": [0.1] * 15,
            "copy_seconds": [0.1] * 18,
        },
        "skipped": {"bfloat16": "one product would take about 9 s here"},
        "matmul_size": 2048,
        "bandwidth_mix": "4 reads and 3 writes",
    }
}
FINDING: dict[str, Any] = {
    "n": 8,
    "estimate": -0.003,
    "low": -0.011,
    "high": 0.007,
    "noise_floor": 0.013,
    "verdict": "agrees",
}
TORCH = {"version": "2.13.0", "matmul_precision": "highest", "determinism": {"cudnn": False}}


def noise(**changes: object) -> dict[str, Any]:
    return {"finding": {**FINDING, **changes}, "blocks": [], "what": "a tiny BERT, 8 replicates"}


@pytest.fixture(autouse=True)
def _no_gpu_and_not_nice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr("os.nice", lambda _increment: 0)  # whoever runs the tests may run them so


def examined(
    root: Path, measured: Any = None, ceilings: Any = None, **options: Any
) -> doctor.Diagnosis:
    return doctor.examine(
        doctor.Measures(
            lambda _: (measured or noise)(), lambda _: (ceilings or CEILINGS.copy)(), lambda: TORCH
        ),
        root=root,
        sleep=lambda _seconds: None,
        **options,
    )


def refusing(text: str) -> Any:
    def refuse() -> dict[str, Any]:
        raise UserError(text)

    return refuse


def test_everything_is_said_in_its_order(tmp_path: Path) -> None:
    """Environment, ceilings, noise floor, what to change, what was not looked at."""
    text = write(examined(tmp_path))

    heads = ("Processor", "torch", "Ceilings", "Noise floor", "What to change", "did not look at")
    places = [text.index(head) for head in heads]
    assert places == sorted(places)


def test_ceilings_carry_their_units_and_how_they_were_taken(tmp_path: Path) -> None:
    """Oracle: the scripted rates."""
    text = write(examined(tmp_path))

    assert "198 GFLOP/s (2048 cubed, fastest of 2 after one)" in text
    assert "57.6 GB/s (4 reads and 3 writes; fastest of 15)" in text
    assert "42.6 GB/s (1 read and 1 write of float32; fastest of 18)" in text
    assert "not measured: one product would take about 9 s here" in text


def test_a_gpus_warm_start_and_every_mix_are_told() -> None:
    """Oracle: scripted values as a session on a GPU has them."""
    values = {**CEILINGS["cpu"], "matmul_size": 8192, "matmul_warm_seconds": 0.3}
    values["update_bytes_per_second"] = {"2 reads, 1 write": 31e9}
    values["samples"] = {**values["samples"], "update_seconds": {"2 reads, 1 write": [0.1] * 4}}
    told = "\n".join(text._ceilings({"cuda 0": values}))

    assert "(8192 cubed, fastest of 2 after 0.3 s of them)" in told
    assert "in place, 2 reads, 1 write" in told
    assert "31.0 GB/s (fastest of 4)" in told


def test_operands_that_are_laid_otherwise_are_told() -> None:
    """Oracle: scripted values as a session on a processor without 16-bit arithmetic has them."""
    values = {**CEILINGS["cpu"], "matmul_operands": {"float32": "a' b"}}
    told = " ".join(" ".join(text._ceilings({"cpu": values})).split())

    assert "(2048 cubed, operands laid as a' b, fastest of 2 after one)" in told


def test_the_noise_floor_has_n_estimate_interval_and_half_width(tmp_path: Path) -> None:
    """Oracle: exp(x) - 1 of the scripted log ratios; half of 0.018 is 0.009."""
    text = " ".join(write(examined(tmp_path)).split())

    assert "n = 8 replicates: second arm -0.3% against the first" in text
    assert "95 % interval -1.1% to +0.7% (half-width 0.9%)" in text
    assert "Noise floor 1.3%" in text


def test_too_few_replicates_show_no_interval(tmp_path: Path) -> None:
    """Below 6 replicates there is none that holds."""
    few = noise(n=4, low=None, high=None, noise_floor=None, reason="4 replicates are too few")
    text = " ".join(write(examined(tmp_path, lambda: few)).split())

    assert "no interval: 4 replicates are too few, and 6 are the least" in text
    assert "half-width" not in text


def test_identical_code_that_differs_is_said_plainly(tmp_path: Path) -> None:
    text = write(examined(tmp_path, lambda: noise(verdict="disagrees")))

    assert "Identical code was found to differ" in text


def test_noisy_blocks_are_told_and_advised_on(tmp_path: Path) -> None:
    """The same blocks give the reason against a verdict and the advice."""
    blocks = [{"arm": "a", "disturbance": {"steal_share": 2 * STEAL_SHARE}}]
    seen = examined(tmp_path, lambda: {**noise(), "blocks": blocks})

    assert len(seen.noise["reasons"]) == 1
    assert "blocks" not in seen.noise
    assert [advice.topic for advice in seen.advice] == ["steal"]
    assert "Too noisy for a verdict: the hypervisor" in write(seen)


def test_what_cannot_be_measured_leaves_the_rest_standing(tmp_path: Path) -> None:
    """A trial process that does not start is a reason in the text, not a traceback."""
    seen = examined(tmp_path, refusing("no text"), refusing("the trial process did not start"))
    text = write(seen)

    assert "not measured: no text" in text
    assert "not measured: the trial process did not start" in text
    assert "the noise floor: nothing was timed against itself" in text


def test_a_noise_measurement_that_gives_nothing_is_told(tmp_path: Path) -> None:
    text = write(examined(tmp_path, lambda: None))

    assert "not measured: it gave nothing" in text


def test_a_machine_that_shows_nothing_is_said_to_show_nothing(tmp_path: Path) -> None:
    """An invisible governor is no good governor: it is listed as not looked at."""
    seen = examined(tmp_path)
    text = write(seen)

    assert "governor                        not visible" in text
    assert "the frequency governor: this system does not show it" in seen.not_looked_at
    assert any("steal" in words for words in seen.not_looked_at)
    assert seen.advice == ()
    assert "nothing that could be seen" in text


def test_what_is_visible_is_not_listed_as_unseen() -> None:
    """Oracle: a machine description in which every fact is there."""
    machine = {
        "governor": "performance",
        "turbo": False,
        "cpu_mhz_now": 2000.0,
        "steal_share_since_boot": 0.0,
        "simultaneous_threads": "0",
        "addresses_randomised": True,
        "on_battery": False,
        "pressure": {"cpu": 0.0},
        "gpus": [{"name": "G", "now": {}}],
    }

    assert doctor.unseen(machine, noise()) == ()
    assert len(doctor.unseen({**machine, "gpus": [{"name": "G"}]}, {})) == 2


def test_json_has_the_same_and_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = examined(tmp_path)

    doctor.show(seen, as_json=True)
    told = json.loads(capsys.readouterr().out)

    assert set(told) == set(seen.as_dict())
    assert told["ceilings"]["cpu"]["copy_bytes_per_second"] == 42.6e9
    assert told["noise"]["finding"]["n"] == 8
    assert told["not_looked_at"] == list(seen.not_looked_at)


def test_the_machine_is_watched_before_anything_runs(tmp_path: Path) -> None:
    """The idle moment comes first, else our own work would be taken for that of others."""
    order: list[str] = []

    def ceilings(_: object) -> dict[str, Any]:
        order.append("ceilings")
        return CEILINGS

    doctor.examine(
        doctor.Measures(lambda _: order.append("noise"), ceilings, lambda: TORCH),
        root=tmp_path,
        sleep=lambda seconds: order.append(f"idle {seconds}"),
    )

    assert order == [f"idle {doctor.IDLE_SECONDS}", "ceilings", "noise"]


def test_a_setting_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    """Oracle: the governor's file, rewritten while the noise is measured."""
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("performance\n")

    def measured() -> dict[str, Any]:
        governor.write_text("powersave\n")
        return noise()

    seen = examined(tmp_path, measured)

    assert "performance before, powersave after" in seen.changed[0]
    assert "Careful: the frequency governor changed" in write(seen)


def test_no_line_is_wider_than_the_page_but_commands(tmp_path: Path) -> None:
    """Commands stay whole, to be copied."""
    lines = write(examined(tmp_path)).splitlines()

    assert all(len(line) <= 100 for line in lines if not line.lstrip().startswith("Do: "))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("swap_bytes", 2 * 2**30, "2 GiB"),
        ("steal_share", 0.0213, "2.13%"),
        ("steal_share_since_boot", 0.5, "50.00%"),
        ("power_limit_watts", 699.6, "700 W"),
        ("turbo", None, "not visible"),
        ("cpu_quota", None, "none"),
        ("cpu_quota", 1.5, "1.5"),
        ("turbo", False, "no"),
        ("address_randomisation", "0", "off"),
        ("affinity", [0, 1], "0, 1"),
        ("variables", {}, "none"),
        ("cache_bytes", {"L1d": 32768, "L2": 2**20}, "L1d 32 KiB, L2 1 MiB"),
        ("pressure", {"cpu": 0.1, "io": None}, "cpu 10.00%, io not visible"),
    ],
)
def test_facts_are_written_with_their_units(name: str, value: Any, text: str) -> None:
    assert shown(name, value) == text


def test_a_gpu_is_shown_with_what_goes_on(tmp_path: Path) -> None:
    """A description of NVML's nests the present state."""
    seen = examined(tmp_path)
    gpu = {"name": "Example H", "power_limit_watts": 700.0, "now": {"throttle_reasons": ["idle"]}}
    shown_too = doctor.Diagnosis(
        **{
            **{name: getattr(seen, name) for name in seen.__dataclass_fields__},
            "machine": {**seen.machine, "gpus": [gpu]},
        }
    )

    text = write(shown_too)

    assert "GPU 0" in text
    assert "throttle reasons idle" in text


def test_measures_share_one_budget_and_what_they_cut_is_said(tmp_path: Path) -> None:
    """Oracle: a scripted clock: 30 s for the ceilings leave 25 of 55 for the noise, which cuts."""
    now = [1000.0]
    left: list[float] = []

    def ceilings(budget: Budget) -> dict[str, Any]:
        left.append(budget.left)
        now[0] += 30.0
        return CEILINGS

    def measured(budget: Budget) -> dict[str, Any]:
        left.append(budget.left)
        now[0] += 20.0
        budget.cut("the noise floor rests on 4 of 6 replicates")
        return noise()

    seen = doctor.examine(
        doctor.Measures(measured, ceilings, lambda: TORCH),
        root=tmp_path,
        sleep=lambda _seconds: None,
        budget=Budget(55.0, clock=lambda: now[0]),
    )
    text = write(seen)

    assert left == [55.0, 25.0]
    assert seen.elapsed_seconds == 50.0
    assert seen.as_dict()["cut"] == ("the noise floor rests on 4 of 6 replicates",)
    assert "What was cut to stay under a minute\n  - the noise floor rests on 4 of 6" in text
    assert text.endswith("50 s")


def test_where_nothing_was_cut_nothing_is_said_of_it(tmp_path: Path) -> None:
    assert "What was cut" not in write(examined(tmp_path))


def test_the_budget_leaves_room_below_a_minute() -> None:
    """Oracle: the issue: under a minute, with some seconds for Python to start and to write."""
    assert 45.0 < Budget().seconds < 58.0
