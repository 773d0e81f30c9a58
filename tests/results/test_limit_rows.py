"""Columns of a device's limits: MFU of two peaks, optimizer bandwidth, and why one is missing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from made_records import content, record, session

from bertopt_bench.results.limit_rows import Limits, limit_columns
from bertopt_bench.results.record import Record, Session
from bertopt_bench.results.verify_limits import check_compiling, check_limits, check_operations

if TYPE_CHECKING:
    from bertopt_bench.results.findings import Finding

H100 = {"name": "NVIDIA H100 80GB HBM3", "power_limit_watts": 650.0, "mig": False}
CUDA = {"name": "cuda", "index": 0}


def event(rates: dict[str, float], bandwidth: float = 1e12, device: Any = None) -> dict[str, Any]:
    values = {"matmul_flops_per_second": rates, "bandwidth_bytes_per_second": bandwidth}
    return {"device": device or CUDA, "values": values}


def ran(*events: dict[str, Any], gpus: Any = (H100,)) -> Session:
    machine = {"gpus": list(gpus)}
    return Session.model_validate(session(ceilings=events, machine=machine))


def columns(fields: dict[str, Any], *events: dict[str, Any], **more: Any) -> dict[str, Any]:
    return limit_columns(Record.model_validate(fields), Limits.of(ran(*events, **more)))


def on_cuda(precision: str = "bf16", **fields: Any) -> dict[str, Any]:
    return record(content(device=CUDA, precision=precision), **fields)


def test_mfu_is_of_the_highest_measured_peak_and_of_the_datasheets() -> None:
    """Oracle: by hand: 10 TFLOP in each of six steps of 40 ms is 250 TFLOP/s of 800, of 989.4."""
    timed = {"step_seconds": [0.04] * 6, "flops_per_step": 10 * 10**12}
    peaks = [event({"bfloat16": rate, "float32": 5e13}) for rate in (7e14, 8e14, 6e14)]
    row = columns(on_cuda(**timed), *peaks)

    assert row["model_flops_per_second"] == pytest.approx(2.5e14)
    assert row["ceiling_share"] == pytest.approx(250 / 800)
    assert row["datasheet_share"] == pytest.approx(250 / 989.4)
    assert row["datasheet_missing"] == ""
    assert (row["gpu_sku"], row["gpu_power_limit_watts"]) == ("H100 SXM5 80GB", 650.0)


def test_the_limit_of_power_is_that_of_the_trials_end() -> None:
    """Oracle: what NVML said at the end of the timed loop, not at the session's begin."""
    row = columns(on_cuda(disturbance={"gpu_power_limit_watts": 500.0}))

    assert row["gpu_power_limit_watts"] == 500.0


@pytest.mark.parametrize(
    ("fields", "gpus", "why"),
    [
        (record(), [], "no maker of CPUs"),
        (on_cuda(), [], "does not say on which cuda device"),
        (on_cuda(), [H100, {"name": "NVIDIA H200"}], "does not say on which cuda device"),
        (on_cuda(gpu_name="NVIDIA GeForce RTX 4090"), [H100], "no datasheet of 'NVIDIA GeForce"),
        (on_cuda(), [{**H100, "mig": True}], "a slice"),
        (on_cuda("fp64"), [H100], "not used for float64"),
    ],
)
def test_a_peak_that_is_not_known_is_never_invented(
    fields: dict[str, Any], gpus: list[dict[str, Any]], why: str
) -> None:
    """Oracle: no number, and the reason in words."""
    row = columns(fields, event({"bfloat16": 1e14}), gpus=gpus)

    assert math.isnan(row["datasheet_share"])
    assert why in row["datasheet_missing"]


def test_the_gpu_of_a_record_is_the_one_it_names() -> None:
    """Oracle: a session with two kinds of GPU, and a record that names one."""
    gpus = [{**H100, "name": "NVIDIA H200", "power_limit_watts": 700.0}, H100]
    row = columns(on_cuda(gpu_name="NVIDIA H200"), gpus=gpus)

    assert (row["gpu_sku"], row["gpu_power_limit_watts"]) == ("H200 SXM 141GB", 700.0)


def test_optimizer_bandwidth_is_the_least_bytes_by_the_phases_time() -> None:
    """Oracle: by hand: AdamW's 28 bytes of a million weights in 2 ms: 14 GB/s of 20."""
    cpu = {"name": "cpu"}
    one = record(parameter_count=10**6)
    row = columns(one, event({}, 16e9, cpu), event({}, 20e9, cpu))

    assert row["optimizer_bytes_per_step"] == 28e6
    assert row["optimizer_bytes_per_second"] == pytest.approx(14e9)
    assert row["optimizer_bandwidth_share"] == pytest.approx(0.7)
    assert row["optimizer_bytes_missing"] == ""


def test_an_optimizers_share_is_of_its_own_mix() -> None:
    """Oracle: by hand: SGD's 12 bytes of a million weights in 2 ms, 6 GB/s, of 12; AdamW's 20."""
    cpu, sgd = {"name": "cpu"}, record(content(optimizer="sgd"), parameter_count=10**6)
    measured = event({}, 20e9, cpu)
    measured["values"]["update_bytes_per_second"] = {"2 reads, 1 write": 12e9}
    own, other = columns(sgd, measured), columns(sgd, event({}, 20e9, cpu))

    assert own["optimizer_bandwidth_share"] == pytest.approx(0.5)
    assert (own["update_mix"], own["update_mix_missing"]) == ("2 reads, 1 write", "")
    assert other["optimizer_bandwidth_share"] == pytest.approx(0.3)
    assert other["update_mix"] == "4 reads, 3 writes"
    assert "sgd has 2 reads, 1 write, which its session did not measure" in str(
        other["update_mix_missing"]
    )


@pytest.mark.parametrize(
    ("optimizer", "words", "mix"),
    [
        ("lion", 5, "3 reads, 2 writes"),
        ("adamw", 7, "4 reads, 3 writes"),
        ("lamb", 10, "4 reads, 3 writes"),
        ("ademamix", 9, "5 reads, 4 writes"),
    ],
)
def test_each_optimizer_has_its_mix_and_the_best_of_its_measures(
    optimizer: str, words: int, mix: str
) -> None:
    """Oracle: by hand: a million weights in 2 ms by the mix's rate, the better one of two."""
    rates = {"3 reads, 2 writes": 2e10, "4 reads, 3 writes": 3e10, "5 reads, 4 writes": 4e10}
    events = [event({}, 3e10 * part, {"name": "cpu"}) for part in (0.5, 1.0)]
    for part, one in zip((0.5, 1.0), events, strict=True):
        one["values"]["update_bytes_per_second"] = {k: part * v for k, v in rates.items()}
    row = columns(record(content(optimizer=optimizer), parameter_count=10**6), *events)

    assert row["optimizer_bandwidth_share"] == pytest.approx(4e6 * words / 2e-3 / rates[mix])
    assert (row["update_mix"], row["update_mix_missing"]) == (mix, "")
    assert row["bandwidth_ceiling_bytes_per_second"] == 3e10


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (content(optimizer="muon"), "muon: its matrices"),
        (content(optimizer="mine:Own"), "mine:Own"),
        (content(workload={"mode": "inference"}), "a forward pass updates nothing"),
    ],
)
def test_an_update_that_is_not_counted_says_why(cell: dict[str, Any], why: str) -> None:
    """Oracle: no bandwidth, and the reason in words."""
    row = columns(record(cell))

    assert math.isnan(row["optimizer_bytes_per_second"])
    assert why in row["optimizer_bytes_missing"]


# --- verify ---


def kinds(**changed: Any) -> dict[str, Any]:
    """Give a traced step of 10 ms: a linear layer of 6 ms, and an update of 1 ms."""
    linear = {"kind": "linear", "calls": 3, "flops": 1e6, "bytes": 1e5}
    update = {"kind": "optimizer", "calls": 1, "flops": 1.0, "bytes": 28e6}
    times = {"seconds": 0.006, "counted_seconds": 0.005}
    return {
        "step_seconds": changed.pop("step_seconds", 0.01),
        "kinds": [
            {**linear, **times, **changed.pop("linear", {})},
            {**update, "seconds": 0.001, "counted_seconds": 0.001, **changed.pop("update", {})},
        ],
    }


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({}, ""),
        ({"step_seconds": 0.0068}, "its operations took 0.007000 s of a step of 0.006800 s"),
        ({"linear": {"counted_seconds": 0.0061}}, "more of linear's time is counted"),
        ({"update": {"bytes": 27e6}}, "its optimizer moved 27,000,000 bytes; by formula 28,000,0"),
    ],
)
def test_operations_that_cannot_be_are_found(planted: dict[str, Any], words: str) -> None:
    """Oracle: a sound step in which one thing was made wrong."""
    one = record(parameter_count=10**6, operations=kinds(**planted))
    found = list(check_operations(Record.model_validate(one)))

    assert [finding.severity for finding in found] == (["error"] if words else [])
    assert all(words in finding.text for finding in found)


def limits(fields: dict[str, Any], *events: dict[str, Any]) -> list[Finding]:
    return list(check_limits(Record.model_validate(fields), ran(*events)))


def test_mfu_is_tokens_by_the_closed_form_over_the_peak() -> None:
    """Oracle: a sound record has nothing to say; other FLOPs a step than the form's have."""
    sound = record()
    events = (event({"float32": 1e12}, device={"name": "cpu"}),)
    wrong = record(flops_per_step=2 * sound["flops_per_step"])

    assert limits(sound, *events) == []
    assert ["of the ceiling's peak" in f.text for f in limits(wrong, *events)] == [True]


def test_a_continued_trial_has_no_times_to_check() -> None:
    """Its times count nowhere; oracle: the record that is sound without the interruption."""
    events = (event({"float32": 1e12}, device={"name": "cpu"}),)

    assert limits(record(interrupted=[3]), *events) == []


def test_a_next_sentence_adds_a_pooler_and_two_logits() -> None:
    """Oracle: by hand: 4 pairs of 16 hidden numbers: 3 * 4 * (2 * 256 + 4 * 16) FLOPs more."""
    plain = record()
    more = 3 * 4 * (2 * 256 + 4 * 16)
    pairs = content(workload={"next_sentence": True})
    events = (event({"float32": 1e12}, device={"name": "cpu"}),)

    assert limits(record(pairs, flops_per_step=plain["flops_per_step"] + more), *events) == []
    assert len(limits(record(pairs, flops_per_step=plain["flops_per_step"]), *events)) == 1


def test_more_than_a_peak_is_an_error_of_a_datasheet_and_a_doubt_of_a_measure() -> None:
    """Oracle: no device exceeds its datasheet; a measure may have met a busy moment."""
    fast = on_cuda(step_seconds=[1e-12] * 6)
    found = limits(fast, event({"bfloat16": 1e12}))

    assert [finding.severity for finding in found] == ["error", "warning"]
    assert "counted wrongly" in found[0].text


@pytest.mark.parametrize(
    ("state", "hits", "misses", "seconds", "words"),
    [
        ("warm", 3, 0, 0.5, []),
        ("cold", 0, 3, 9.0, []),
        ("cold", 2, 1, 9.0, []),
        ("warm", 2, 1, 9.0, ["is warm with 2 hits, 1 misses"]),
        ("cold", 3, 0, 9.0, ["is cold with 3 hits, 0 misses"]),
        ("cold", 0, 3, None, ["no compile time"]),
    ],
)
def test_a_cache_is_warm_where_it_had_every_graph(
    state: str, hits: int, misses: int, seconds: float | None, words: list[str]
) -> None:
    """Oracle: the definition."""
    cache = {"state": state, "hits": hits, "misses": misses}
    one = Record.model_validate(record(compile_cache=cache, compile_seconds=seconds))
    found = [finding.text for finding in check_compiling(one)]

    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))
