"""Make a row's columns of what its trial did of what the device can do: rates, shares, bytes.

A limit is the highest rate that the trial's own session measured on the same device, or a
datasheet's, where the GPU's maker states one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.measure.datasheets import Datasheet, datasheet_of
from bertopt_bench.measure.in_place import ADAMW_STATES, mix_name
from bertopt_bench.workload.optimizer_work import step_bytes, step_count, why_uncounted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.results.record import Record, Session

NAN = math.nan
CEILING_DTYPES = {
    "fp32": "float32",
    "tf32": "tf32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp64": "float64",
}
"""Which matrix-product rate limits a precision."""
NO_CPU_DATASHEET = (
    "no maker of CPUs states a rate of matrix products by data type, and cores by clock by width "
    "would be arithmetic, not a datasheet"
)


@dataclass(frozen=True)
class Limits:
    """What a session measured of each device at most, and the GPUs that it saw.

    A device is its whole choice as canonical JSON (two threads do less than eight); early sessions
    noted its name only. ``bandwidths`` are of AdamW's mix of reads and writes, ``updates`` of each
    mix by its name, which early sessions lack.
    """

    rates: Mapping[tuple[str, str], float]
    bandwidths: Mapping[str, float]
    updates: Mapping[tuple[str, str], float]
    gpus: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, session: Session) -> Limits:
        """Take the highest of what was measured over the session: a limit is a limit."""
        rates: dict[tuple[str, str], float] = defaultdict(float)
        bandwidths: dict[str, float] = defaultdict(float)
        updates: dict[tuple[str, str], float] = defaultdict(float)
        for measured in session.ceilings:
            device = measured.get("device")
            named = canonical_json(device) if isinstance(device, dict) else str(device)
            values = measured.get("values", {})
            for dtype, rate in values.get("matmul_flops_per_second", {}).items():
                rates[named, dtype] = max(rates[named, dtype], rate)
            moved = values.get("bandwidth_bytes_per_second") or 0.0
            bandwidths[named] = max(bandwidths[named], moved)
            for mix, moved in (values.get("update_bytes_per_second") or {}).items():
                updates[named, mix] = max(updates[named, mix], moved)
        return cls(
            {key: rate for key, rate in rates.items() if rate > 0},
            {key: rate for key, rate in bandwidths.items() if rate > 0},
            {key: rate for key, rate in updates.items() if rate > 0},
            session.machine.get("gpus") or (),
        )

    def flops_per_second(self, record: Record) -> float:
        """Give the measured matrix-product rate of the trial's device and precision."""
        dtype = CEILING_DTYPES.get(record.cell["precision"]["name"], "")
        device = record.cell["device"]
        of_name = self.rates.get((device["name"], dtype), NAN)
        return self.rates.get((canonical_json(device), dtype), of_name)

    def bytes_per_second(self, record: Record) -> float:
        """Give the measured bandwidth of the trial's device, of AdamW's in-place update."""
        device = record.cell["device"]
        of_name = self.bandwidths.get(device["name"], NAN)
        return self.bandwidths.get(canonical_json(device), of_name)

    def update_bandwidth(self, record: Record) -> tuple[str, float]:
        """Give the mix of the trial's optimizer with its bandwidth; AdamW's where it is unmeasured.

        LAMB reads more in a second pass: it is measured against the mix of what it writes.
        """
        count = step_count(record.cell["optimizer"])
        if count is not None:
            mix = mix_name(count.states)
            rate = self.updates.get((canonical_json(record.cell["device"]), mix))
            if rate is not None:
                return mix, rate
        return mix_name(ADAMW_STATES), self.bytes_per_second(record)


UNMEASURED = Limits({}, {}, {})


def limit_columns(record: Record, limits: Limits) -> dict[str, Any]:
    """Give work by time, and its share of the limits; NaN, with a reason, where there is none."""
    row = _rates(record)
    done, peak = row["model_flops_per_second"], limits.flops_per_second(record)
    sheet, dtype = _datasheet(record, limits)
    stated = sheet.flops_per_second.get(dtype, NAN) if sheet else NAN
    return {
        **row,
        "ceiling_dtype": dtype,
        "ceiling_flops_per_second": peak,
        "ceiling_share": done / peak,
        "datasheet_flops_per_second": stated,
        "datasheet_share": done / stated,
        "datasheet_missing": _why_no_datasheet(record, limits),
        "gpu_name": gpu_name(record, limits),
        "gpu_sku": sheet.sku if sheet else "",
        "gpu_power_limit_watts": _power_limit(record, limits),
        **_optimizer(record, limits),
    }


def gpu_name(record: Record, limits: Limits) -> str:
    """Name the GPU that the trial ran on; empty on a CPU, or where several may have been it."""
    if record.cell["device"]["name"] != "cuda":
        return ""
    if record.gpu_name:
        return record.gpu_name
    names = {str(gpu.get("name") or "") for gpu in limits.gpus}
    return names.pop() if len(names) == 1 else ""


def slot_tokens(record: Record, steps: int) -> int | None:
    """Count the slots that the network computed in so many steps, padding included."""
    if record.ragged is not None:
        return sum(record.ragged.slot_tokens[:steps])
    one = record.slot_tokens_per_step
    return None if one is None else one * steps


def _rates(record: Record) -> dict[str, float]:
    names = ("tokens_per_second", "slot_tokens_per_second", "model_flops_per_second")
    row = dict.fromkeys((*names, "padding_share"), NAN)
    steps = 0 if record.interrupted else len(record.step_seconds)
    seconds = math.fsum(record.step_seconds[:steps])
    if not seconds:
        return row
    told = len(record.real_tokens) >= steps
    if told:
        row["tokens_per_second"] = sum(record.real_tokens[:steps]) / seconds
    slots = slot_tokens(record, steps)
    if slots is not None:
        row["slot_tokens_per_second"] = slots / seconds
        if told and slots:
            row["padding_share"] = 1 - sum(record.real_tokens[:steps]) / slots
    if record.flops_per_step is not None:
        row["model_flops_per_second"] = record.flops_per_step * steps / seconds
    return row


def _datasheet(record: Record, limits: Limits) -> tuple[Datasheet | None, str]:
    """Give the datasheet of the trial's GPU, and the data type that limits it."""
    dtype = CEILING_DTYPES.get(record.cell["precision"]["name"], "")
    divided = any(gpu.get("mig") for gpu in limits.gpus)  # a slice does not do what the whole does
    return (None if divided else datasheet_of(gpu_name(record, limits))), dtype


def _why_no_datasheet(record: Record, limits: Limits) -> str:
    device = record.cell["device"]["name"]
    if device == "cpu":
        return NO_CPU_DATASHEET
    name = gpu_name(record, limits)
    if not name:
        return f"the record does not say on which {device} device it ran"
    sheet, dtype = _datasheet(record, limits)
    if sheet is None:
        return f"no datasheet of '{name}' is known here, or it is a slice of a GPU"
    known = dtype in sheet.flops_per_second
    return "" if known else f"the datasheet of {sheet.sku} is not used for {dtype or 'this'}"


def _power_limit(record: Record, limits: Limits) -> float:
    """Give the limit of the GPU in watts: as the trial ended, else as the session began."""
    seen = record.disturbance.get("gpu_power_limit_watts")
    if seen is None and (name := gpu_name(record, limits)):
        ours = [gpu for gpu in limits.gpus if gpu.get("name") == name]
        seen = ours[0].get("power_limit_watts") if ours else None
    return NAN if seen is None else float(seen)


def _optimizer(record: Record, limits: Limits) -> dict[str, Any]:
    """Give the least bytes of an update by the time of the phase that holds it.

    What else stands in that phase (clipping, averages, an fp16 scaler) counts against it.
    """
    forward, choice = is_inference(record.cell), record.cell["optimizer"]
    seconds = record.phases.optimizer_seconds if record.phases else NAN
    moved = None
    if not forward and record.parameter_count:
        width = 8 if record.cell["precision"]["name"] == "fp64" else 4
        moved = step_bytes(choice, record.parameter_count, width)
    rate = moved / seconds if moved and seconds > 0 else NAN
    mix, most = limits.update_bandwidth(record)
    return {
        "optimizer_bytes_per_step": NAN if moved is None else float(moved),
        "optimizer_bytes_per_second": rate,
        "bandwidth_ceiling_bytes_per_second": limits.bytes_per_second(record),
        "update_ceiling_bytes_per_second": most,
        "update_mix": "" if math.isnan(rate / most) else mix,
        "update_mix_missing": "" if math.isnan(rate / most) else _why_other_mix(choice, mix),
        "optimizer_bandwidth_share": rate / most,
        "optimizer_bytes_missing": "a forward pass updates nothing"
        if forward
        else why_uncounted(choice),
    }


def _why_other_mix(choice: Mapping[str, Any], mix: str) -> str:
    """Say that an optimizer is measured against a mix that is not its own; empty where it is."""
    count = step_count(choice)
    own = mix if count is None else mix_name(count.states)
    if own == mix:
        return ""
    return f"{choice['name']} has {own}, which its session did not measure: {mix} stand in"
